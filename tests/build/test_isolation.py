"""Work that crashes, hangs or eats memory ends in a verdict, and the pool goes on."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from shardkit.build import isolation
from shardkit.errors import Quarantined

LONG = 60.0


@pytest.fixture(scope="module")
def pool() -> Iterator[isolation.IsolatedPool]:
    children = isolation.IsolatedPool(1, memory_limit=1 << 30)
    yield children
    children.close()


def _working_child(pool: isolation.IsolatedPool) -> int:
    """Process id of the child that runs a task now."""
    return isolation.result(pool.submit(os.getpid, timeout=LONG), LONG)


def test_a_value_comes_back(pool: isolation.IsolatedPool) -> None:
    assert isolation.result(pool.submit(divmod, 17, 5, timeout=LONG), LONG) == (3, 2)
    assert _working_child(pool) != os.getpid()


def test_what_a_task_raises_is_a_verdict_and_its_child_stays(pool: isolation.IsolatedPool) -> None:
    before = _working_child(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(divmod, 1, 0, timeout=LONG), LONG)
    assert caught.value.reason == "internal_error"
    assert "ZeroDivisionError" in caught.value.message
    assert _working_child(pool) == before


@pytest.mark.parametrize("again", [True, False])
def test_a_pool_that_is_closed_is_no_verdict_on_the_files_it_had(again: bool) -> None:
    children = isolation.IsolatedPool(1)
    _working_child(children)
    futures = [children.submit(time.sleep, 30, timeout=LONG, again=again) for _ in range(3)]
    time.sleep(0.5)  # the first is under way
    children.close()
    for future in futures:
        with pytest.raises(BaseException) as caught:  # noqa: PT011 - any but a verdict
            isolation.result(future, LONG)
        assert not isinstance(caught.value, Quarantined), "the file would be quarantined because the build was stopped"


def test_a_crash_is_a_verdict_and_the_pool_goes_on(pool: isolation.IsolatedPool) -> None:
    before = _working_child(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(ctypes.string_at, 0, timeout=LONG), LONG)
    assert caught.value.reason == "decoder_crash"
    assert "SIGSEGV" in caught.value.message
    assert _working_child(pool) != before


def test_a_task_that_leaves_by_itself_is_a_crash(pool: isolation.IsolatedPool) -> None:
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(os._exit, 7, timeout=LONG), LONG)
    assert (caught.value.reason, "exit code 7" in caught.value.message) == ("decoder_crash", True)


def test_a_task_that_hangs_is_killed(pool: isolation.IsolatedPool) -> None:
    before = _working_child(pool)
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(time.sleep, 600, timeout=0.5), 0.5)
    assert caught.value.reason == "decode_timeout"
    assert _working_child(pool) != before


def test_a_task_that_wants_ten_gigabytes_is_a_verdict(pool: isolation.IsolatedPool) -> None:
    with pytest.raises(Quarantined) as caught:
        isolation.result(pool.submit(bytearray, 10 << 30, timeout=LONG), LONG)
    assert caught.value.reason == "memory_limit"
    assert isolation.result(pool.submit(len, bytes(1 << 20), timeout=LONG), LONG) == 1 << 20


def test_one_crash_costs_no_other_task_its_result(pool: isolation.IsolatedPool) -> None:
    futures = [pool.submit(pow, 2, i, timeout=LONG) for i in range(3)]
    crash = pool.submit(ctypes.string_at, 0, timeout=LONG)
    futures += [pool.submit(pow, 2, i, timeout=LONG) for i in range(3, 6)]
    with pytest.raises(Quarantined):
        isolation.result(crash, LONG)
    assert [isolation.result(f, LONG) for f in futures] == [2**i for i in range(6)]


def _child(pool: isolation.IsolatedPool) -> int:
    """A child that waits for a task."""
    pid = _working_child(pool)
    os.kill(pid, 0)
    return pid


def test_killing_children_that_wait_costs_nothing() -> None:
    pool = isolation.IsolatedPool(2)
    try:
        for _ in range(6):
            os.kill(_child(pool), signal.SIGKILL)
            assert isolation.result(pool.submit(divmod, 17, 5, timeout=LONG), LONG) == (3, 2)
    finally:
        pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killing_children_that_start_costs_nothing() -> None:
    pool = isolation.IsolatedPool(1)
    try:
        future = pool.submit(divmod, 17, 5, timeout=LONG)
        killed: set[int] = set()
        while len(killed) < 3 and not future.done():
            for pid in set(_below(os.getpid())) - killed:
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        assert isolation.result(future, LONG) == (3, 2)
        assert killed
    finally:
        pool.close()


# Does what it is told to with its own process at its first run, and says at the next one what the time is.
TWICE = """
import os, pathlib, signal, time
first = pathlib.Path({path!r})
if not first.exists():
    first.touch()
    {deed}
first.write_text(str(time.time()))
"""


@pytest.mark.parametrize(
    "deed", ["os.kill(os.getpid(), signal.SIGKILL)", "os.abort()", "time.sleep(600)", "raise MemoryError"]
)
def test_a_task_whose_child_is_lost_runs_once_more_in_a_new_one(
    pool: isolation.IsolatedPool, tmp_path: Path, deed: str
) -> None:
    before, code = _working_child(pool), TWICE.format(path=str(tmp_path / "first"), deed=deed)
    assert isolation.result(pool.submit(exec, code, timeout=2), 2) is None
    assert _working_child(pool) != before
    (tmp_path / "first").unlink()
    with pytest.raises(Quarantined):
        isolation.result(pool.submit(exec, code, timeout=2, again=False), 2)


def test_a_task_whose_child_was_killed_from_outside_runs_again_when_no_other_does(tmp_path: Path) -> None:
    pool, code = isolation.IsolatedPool(3), TWICE.format(path=str(tmp_path / "t"), deed="os.kill(os.getpid(), 9)")
    try:
        for future in [pool.submit(time.sleep, 0.2, timeout=LONG) for _ in range(3)]:  # children are up
            isolation.result(future, LONG)
        sleeping = [pool.submit(exec, f"import time; time.sleep({s})", timeout=LONG) for s in (1.5, 2.5)]
        isolation.result(pool.submit(exec, code, timeout=LONG), LONG)
        assert all(future.done() for future in sleeping), "it ran beside what may have taken the memory"
        assert isolation.result(pool.submit(divmod, 17, 5, timeout=LONG), LONG) == (3, 2)
    finally:
        pool.close()


def test_a_child_that_has_grown_is_replaced_and_no_file_blamed(pool: isolation.IsolatedPool) -> None:
    """The limit of this pool is 1 GiB."""
    for _ in range(3):
        isolation.result(pool.submit(exec, "import builtins; builtins.kept = bytearray(700 << 20)", timeout=LONG), LONG)
        assert isolation.result(pool.submit(len, bytes(1 << 20), timeout=LONG), LONG) == 1 << 20
        assert isolation.result(pool.submit(exec, "bytearray(700 << 20)", timeout=LONG), LONG) is None


def test_a_child_keeps_the_memory_of_an_image_for_the_next(pool: isolation.IsolatedPool) -> None:
    code = "[(b'x' * (40 << 20), __import__('resource').getrusage(0).ru_minflt)[1] for _ in range(4)]"
    faults = isolation.result(pool.submit(eval, code, timeout=LONG), LONG)
    assert faults[-1] - faults[-2] < 1000  # of 10,240 pages


def test_a_child_leaves_no_core_dump(pool: isolation.IsolatedPool) -> None:
    assert isolation.result(pool.submit(resource.getrlimit, resource.RLIMIT_CORE, timeout=LONG), LONG) == (0, 0)
    # PR_GET_DUMPABLE: what a dump is piped to heeds no limit.
    code = "import ctypes; assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 0"
    assert isolation.result(pool.submit(exec, code, timeout=LONG), LONG) is None


def test_a_pool_without_children_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(isolation, "Child", refuse)
    monkeypatch.setattr(isolation, "_STARTS", 4)
    pool = isolation.IsolatedPool(1)
    try:
        with pytest.raises(isolation.Stopped, match="in a row"):
            isolation.result(pool.submit(divmod, 17, 5, timeout=LONG), LONG)
    finally:
        pool.close()


def test_large_files_get_more_time() -> None:
    assert isolation.allowance(0, 30) == 30
    assert isolation.allowance(100 << 20, 30) > isolation.allowance(1 << 20, 30) > 30


PARENT = """
import os, time
from shardkit.build import isolation
pool = isolation.IsolatedPool(2)
tasks = [pool.submit(time.sleep, 600, timeout=900) for _ in range(2)]
while sum(t.running() for t in tasks) < 2:
    time.sleep(0.05)
print("running", flush=True)
time.sleep(600)
"""


def _below(parent: int) -> list[int]:
    """Children of a process, from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, above = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(above) == parent and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_die_with_their_parent(alive: Callable[[Iterable[int]], set[int]]) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "running\n"
    children = _below(parent.pid)
    assert len(children) >= 2
    parent.kill()
    parent.communicate()
    for _ in range(200):
        if not alive(children):
            break
        time.sleep(0.05)
    assert not alive(children)
