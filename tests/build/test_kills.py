"""Whole builds and single children killed at any moment: the same command again gives the bytes of an undisturbed run.

Each file of a child that is killed runs once more, so the same file must not be
hit twice by chance: see `_kill_children`.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

LASTS = {"scan": 1.5, "plan": 0.1, "convert": 1.0, "assemble": 1.0}  # seconds after which a stage may be over
MANY = 120
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")


class _Run:
    """A build in a process of its own, and what it said."""

    def __init__(self, bench: Any, arguments: Any) -> None:
        self.process: subprocess.Popen[str] = bench.driver(arguments, stderr=subprocess.PIPE)
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.strip())

    def wait_for(self, stage: str) -> bool:
        """Whether the stage is reached before the build ends."""
        while self.process.poll() is None:
            if f"stage {stage}" in self.said:
                return True
            time.sleep(0.005)
        return False

    @property
    def stage(self) -> str:
        return next((line.split()[1] for line in reversed(self.said) if line.startswith("stage")), "start")

    def end(self) -> str:
        """Wait for its end; what it wrote on stderr."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        self.process.wait()
        self._reader.join()
        return errors


def _children(pid: int) -> list[int]:
    """The decoding processes of a build."""
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in thread.read_text().split()]
    return [one for one in found if b"spawn_main" in _command(one)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _kill_builds(bench: Any, arguments: Any, chance: random.Random, moments: Sequence[str]) -> Counter[str]:
    """Kill the same build again and again, each time in or after the stage named; kills by the stage they came in."""
    kills = Counter[str]()
    for stage in moments:
        run = _Run(bench, arguments)
        if stage == "start":
            time.sleep(chance.random())
        elif run.wait_for(stage):
            time.sleep(chance.random() * LASTS[stage])
        run.process.kill()
        errors = run.end()
        if run.process.returncode == 0:  # it was done before
            break
        assert run.process.returncode == -signal.SIGKILL, errors
        kills[f"build in {run.stage}"] += 1
    return kills


def _kill_children(run: _Run, chance: random.Random, count: int) -> Counter[str]:
    """Kill children of a running build; how many were killed as they came up, and in which stage others.

    A child that comes up has no file yet. A later one is killed only when three events came since the last such kill:
    two may have been on their way, and no third comes before the file of that kill is done.
    """
    kills, events, known, streak = Counter[str](), 0, set[int](), 0
    while run.process.poll() is None and kills.total() < count:
        here = _children(run.process.pid)
        new = [pid for pid in here if pid not in known]
        known.update(new)
        if kills and new and streak < 4 and chance.random() < 0.6:
            with suppress(ProcessLookupError):
                os.kill(new[0], signal.SIGKILL)
                kills["child that starts"] += 1
            streak += 1
        elif here and len(run.said) >= events + 3:
            time.sleep(chance.random() * 0.2)
            with suppress(ProcessLookupError):
                os.kill(chance.choice(here), signal.SIGKILL)
                kills[f"child in {run.stage}"] += 1
            events, streak = len(run.said), 0
        time.sleep(0.01)
    return kills


@pytest.fixture
def killed(bench: Any, made: Any, built: Any, tmp_path: Path) -> Callable[..., Counter[str]]:
    """(seed, moments, children) -> kills by kind, of one build that is compared with the undisturbed one at its end."""

    def run(seed: int, moments: Sequence[str] = (), children: int = 0) -> Counter[str]:
        chance, place = random.Random(seed), tmp_path / str(seed)
        bench.seed_key(place / "private")
        arguments = bench.arguments(made.root, place / "out", place / "private", workers=2)
        kills = _kill_builds(bench, arguments, chance, moments)
        last = _Run(bench, arguments)
        kills += _kill_children(last, chance, children)
        errors = last.end()
        assert last.process.returncode == 0, errors
        ended = replace(built, out=place / "out", private=place / "private")
        assert bench.tree(ended.out) == bench.tree(built.out), f"seed {seed}"
        assert ended.ledger() == built.ledger(), f"seed {seed}"
        shutil.rmtree(place)
        return kills

    return run


@pytest.mark.deep
def test_a_build_killed_in_one_stage_after_the_other_ends_as_if_nothing_had_been(killed: Any) -> None:
    kills = killed(1, ("scan", "convert", "assemble"))
    assert kills.total() >= 2, kills


def test_a_build_whose_children_are_killed_ends_as_if_nothing_had_been(killed: Any) -> None:
    kills = killed(2, children=6)
    assert kills.total() >= 3, kills


@pytest.mark.deep
def test_many_kills(killed: Any) -> None:
    kills, seed = Counter[str](), 100
    while kills.total() < MANY:
        moments = ("start", "scan", "plan", "convert", "convert", "convert", "assemble", "assemble")
        kills += killed(seed, moments)
        kills += killed(seed + 1, children=10)
        seed += 2
    print(f"{kills.total()} kills in {seed - 100} builds: {dict(sorted(kills.items()))}")
    for kind in ("build in scan", "build in convert", "build in assemble", "child in scan", "child in convert"):
        assert kills[kind] > 0, kills
