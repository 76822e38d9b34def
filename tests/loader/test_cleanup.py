"""Nothing outlives a loader: threads, processes, shared memory, temporary files. And memory is flat."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit import Binned, Loader, Packed
from shardkit.loader.buffers import Buffers

SMALL: dict[str, Any] = {"split": None, "device": "cpu", "window": 8}
PACKED = Packed(tokens=512, patch=16, per_step=1)

STREAM = """
import sys, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from shardkit import Loader, Packed
loader = Loader(sys.argv[1], batching=Packed(tokens=512, patch=16, per_step=1), split=None, device="cpu",
                cache=sys.argv[2], cache_bytes=int(sys.argv[3]))
while True:
    for batch in loader:
        print("batch", flush=True)
"""


def _threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("shardkit")}


@pytest.fixture
def own_temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary files that nobody else uses."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def _family(pid: int) -> set[int]:
    """A process and those below it."""
    found = {pid}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found |= {one for child in children.read_text().split() for one in _family(int(child))}
    return found


def _shared(pids: Iterable[int]) -> set[str]:
    """Named shared memory that these processes, and no others, have open or mapped. Other programs use it, too."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):  # it has ended
            found |= {line.split(maxsplit=5)[-1] for line in Path(f"/proc/{pid}/maps").read_text().splitlines()}
            for link in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):  # closed
                    found.add(str(link.readlink()))
    return {name for name in found if name.startswith("/dev/shm/") and not name.endswith(" (deleted)")}


def _fail_at_the_first(loader: Loader) -> None:
    for _ in loader:
        raise ZeroDivisionError


@pytest.mark.parametrize("end", ["whole", "break", "exception", "next"])
def test_no_thread_outlives_an_iteration(dataset_folder: Path, own_temporary: Path, end: str) -> None:
    before, others = _shared([os.getpid()]), _threads()  # tests of hung reads leave such threads behind, and mean to
    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    if end == "exception":
        with pytest.raises(ZeroDivisionError):
            _fail_at_the_first(loader)
    elif end == "next":
        next(iter(loader))
    else:
        for _ in loader:
            assert _threads() - others
            if end == "break":
                break
    deadline = time.monotonic() + 2  # idle threads that read end by themselves: a hung mount must not hold up an exit
    while _threads() - others and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _threads() <= others
    assert _shared([os.getpid()]) <= before
    assert list(own_temporary.iterdir()) == []


@pytest.mark.deep
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_leaves_nothing_and_the_next_one_starts_at_once(
    dataset_folder: Path, tmp_path: Path, own_temporary: Path, how: signal.Signals, alive: Any
) -> None:
    cache, largest = tmp_path / "cache", max(p.stat().st_size for p in (dataset_folder / "shards").rglob("*.tar"))
    command = [sys.executable, "-c", STREAM, str(dataset_folder), str(cache), str(3 * largest)]
    for _ in range(2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        family, shared = set[int](), set[str]()
        for _ in range(5):
            assert process.stdout.readline() == "batch\n", process.communicate()[1]
            family |= _family(process.pid)
            shared |= _shared(family)
        process.send_signal(how)
        _, error = process.communicate(timeout=20)
        assert process.returncode in ((1, -how) if how == signal.SIGINT else (-how,))
        if how == signal.SIGINT:
            assert "KeyboardInterrupt" in error
        assert not alive(family)
        assert not [name for name in shared if Path(name).exists()]
        assert list(own_temporary.iterdir()) == []
        files = [p for p in cache.rglob("*") if p.is_file()]
        assert all(p.name == "shard" for p in files)
        assert sum(p.stat().st_size for p in files) <= 3 * largest


@pytest.mark.deep
def test_memory_stays_flat_over_a_thousand_changes_of_bin(dataset_folder: Path) -> None:
    script = """
import resource, sys
from shardkit import Binned, Loader
loader = Loader(sys.argv[1], batching=Binned(batch_size=1, patch=16, per_step=1), split=None, device="cpu", window=8)
changes, last, early = 0, None, 0
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
while changes < 1000:
    for batch in loader:
        shape = tuple(batch["images"].shape)
        changes += shape != last
        last = shape
        if changes == 300 and not early:
            early = rss()
print(early, rss())
"""
    command = [sys.executable, "-c", script, str(dataset_folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    early, late = map(float, done.stdout.split())
    assert late < early + 32, f"{early:.0f} MiB after 300 changes of bin, {late:.0f} after 1000"


def test_a_batch_that_is_kept_keeps_its_pixels(dataset_folder: Path) -> None:
    """Memory is used again, but only what nobody refers to."""
    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    kept = [(batch, batch["patches"].clone()) for batch in loader]
    assert len(kept) > 4
    for batch, copy in kept:
        assert batch["patches"].equal(copy)
    addresses = [batch["patches"].data_ptr() for batch in loader]
    assert len(set(addresses)) < len(addresses), "no memory was used again"


def test_a_binned_batch_is_flat_in_memory(dataset_folder: Path) -> None:
    for batch in Loader(dataset_folder, batching=Binned(batch_size=2, patch=16, per_step=1), **SMALL):
        assert batch["images"].is_contiguous()


def test_memory_that_is_given_back_runs_no_python_code() -> None:
    """Python prints a Ctrl-C that comes in a callback of the collector, and goes on."""
    tensor, called = Buffers().empty((3, 5), torch.float32), list[str]()
    sys.setprofile(lambda frame, event, _: called.append(frame.f_code.co_name) if event == "call" else None)
    try:
        del tensor
    finally:
        sys.setprofile(None)
    assert called == []


def test_memory_is_lent_again_when_nobody_refers_to_it() -> None:
    buffers = Buffers()
    first = buffers.empty((3, 5), torch.float32)
    part, place = first[1:], first.data_ptr()
    del first
    second = buffers.empty((3, 5), torch.float32)
    assert second.data_ptr() != place
    del part
    assert buffers.empty((3, 5), torch.float32).data_ptr() == place
