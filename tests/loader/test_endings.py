"""Iterations end with the program, whatever it left behind; and closing one waits for nothing that may be gone."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit import Loader, Packed
from shardkit.errors import ArgumentError
from shardkit.loader import prefetcher
from shardkit.loader.building import Builder

PACKED = Packed(tokens=512, patch=16, per_step=1)
HEAD = """
import os, sys, threading
from torch.utils.data import DataLoader
from shardkit import Loader, Packed, TorchDataset

def make(seed=0):
    batching, decoder = Packed(tokens=512, patch=16, per_step=1), sys.argv[2]
    return Loader(sys.argv[1], batching=batching, split=None, device="cpu", seed=seed, decoder=decoder)
"""
TWO_EPOCHS = """
loader = make()
for epoch in range(2):
    assert sum(1 for _ in loader) == len(loader)
print("last line", flush=True)
"""
HALF_USED = """
def endless(loader):
    while True:
        yield from loader

class Trainer:
    def __init__(self):
        self.batches = iter(make())

trainer = Trainer()
open_ones = [iter(make(seed)) for seed in range(4)] + [endless(make()), trainer.batches]
open_ones.append(iter(DataLoader(TorchDataset(make()), batch_size=None)))
for one in open_ones:
    next(one)
print("last line", flush=True)
"""
THREAD = """
loader = make()

def epoch():
    print("last line" if sum(1 for _ in loader) == len(loader) else "cut short", flush=True)

threading.Thread(target=epoch).start()
"""
FORKED = """
def child(work):
    process = os.fork()
    if not process:
        work()
        sys.exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def drop():
    globals().update(loader=None, batches=None)

def again():
    try:
        next(iter(loader))
    except ValueError as error:
        assert "spawn" in str(error)
    else:
        raise AssertionError

def go_on():
    try:
        next(batches)
    except ValueError as error:
        assert "forked" in str(error)

loader = make()
batches = iter(loader)
next(batches)
assert [child(work) for work in (lambda: None, drop, again, go_on)] == [0] * 4
assert 1 + sum(1 for _ in batches) == len(loader)
assert child(drop) == 0  # with a graph that nothing runs on
print("last line", flush=True)
"""


@pytest.mark.deep
@pytest.mark.parametrize("decoder", ["threads", "dali"])
@pytest.mark.parametrize(
    "script", [TWO_EPOCHS, HALF_USED, THREAD, FORKED], ids=["two epochs", "half used", "own thread", "forked"]
)
def test_a_program_ends_with_its_last_line(dataset_folder: Path, script: str, decoder: str) -> None:
    command = [sys.executable, "-c", HEAD + script, str(dataset_folder), decoder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "last line\n"), done.stderr[-2000:]
    assert "Error" not in done.stderr


@pytest.fixture
def hung(dataset_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Loader, Any]]:
    """A loader and its iteration, which has given one batch and gives no more: it hangs in building the second one."""
    release, build = threading.Event(), Builder.build
    calls = list[int]()

    def stuck(builder: Builder, work: Any, ready: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            release.wait(60)
        return build(builder, work, ready)

    monkeypatch.setattr(Builder, "build", stuck)
    monkeypatch.setattr(prefetcher, "_CLOSING", 0.2)
    loader = Loader(dataset_folder, batching=PACKED, split=None, device="cpu")
    batches = iter(loader)
    next(batches)
    yield loader, batches
    release.set()


def test_closing_waits_a_while_for_a_stage_that_hangs(hung: tuple[Loader, Any]) -> None:
    begun = time.monotonic()
    hung[1].close()
    assert time.monotonic() - begun < 5


def test_a_thread_of_ours_that_collects_an_iteration_does_not_wait_for_the_others(
    hung: tuple[Loader, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefetcher, "_CLOSING", 60.0)
    collector = threading.Thread(target=hung[1].close, name="shardkit-decode_0", daemon=True)
    collector.start()
    collector.join(10)
    assert not collector.is_alive()


def test_who_waits_for_a_batch_hears_at_once_that_the_iteration_ended(hung: tuple[Loader, Any]) -> None:
    loader, batches = hung
    heard = list[BaseException]()

    def wait() -> None:
        try:
            next(batches)
        except ArgumentError as error:
            heard.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    time.sleep(0.2)
    assert loader._prefetcher is not None
    loader._prefetcher.close()
    waiting.join(10)
    assert "another one" in str(heard[0])
