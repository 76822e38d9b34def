"""Whole builds and single children killed at any moment: the same command again gives the bytes of an undisturbed run.

The deep form kills two hundred times. Each file of a child that is killed runs once more, so the same file must not be
hit twice by chance: see `_kill_children`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

STAGES = ("scan", "plan", "convert", "assemble")
pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds children in /proc")


class _Run:
    """A build in a process of its own, and what it said when."""

    def __init__(self, bench: Any, arguments: Any) -> None:
        self.process: subprocess.Popen[str] = bench.driver(arguments, stderr=subprocess.PIPE)
        self.said: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append((time.monotonic(), line.strip()))

    def wait_for(self, stage: str) -> bool:
        """Whether the stage is reached before the build ends."""
        while self.process.poll() is None:
            if any(line == f"stage {stage}" for _, line in list(self.said)):
                return True
            time.sleep(0.005)
        return False

    @property
    def stage(self) -> str:
        return next((line.split()[1] for _, line in reversed(self.said) if line.startswith("stage")), "start")

    def end(self) -> str:
        """Wait for its end; what it wrote on stderr."""
        assert self.process.stderr is not None
        errors = self.process.stderr.read()
        self.process.wait()
        self._reader.join()
        return errors

    def durations(self) -> dict[str, float]:
        starts = [(at, line.split()[1]) for at, line in self.said if line.startswith("stage")]
        ends = [at for at, _ in starts[1:]] + [time.monotonic()]
        return {stage: end - at for (at, stage), end in zip(starts, ends, strict=True)}


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


def _whole(bench: Any, arguments: Any, chance: random.Random, count: int) -> Counter[str]:
    """Kill the same build again and again in one stage after the other; kills by the stage they came in."""
    kills = Counter[str]()
    lasts = {"scan": 1.5, "plan": 0.1, "convert": 4.0, "assemble": 0.5}
    for number in range(count):
        run = _Run(bench, arguments)
        if number % 8 == 7:
            time.sleep(chance.random())  # while it starts
        elif run.wait_for(stage := STAGES[number % len(STAGES)]):
            time.sleep(chance.random() * lasts[stage])
        run.process.kill()
        errors = run.end()
        if run.process.returncode == -signal.SIGKILL:
            kills[run.stage] += 1
        else:
            assert run.process.returncode == 0, errors
            lasts.update(run.durations())
    return kills


def _kill_children(run: _Run, chance: random.Random, count: int) -> Counter[str]:
    """Kill children of a running build; how many were killed as they came up, and how many at some later moment.

    A child that comes up has no file yet. A later one is killed only when three events came since the last such kill:
    two may have been on their way, and no third comes before the file of that kill is done.
    """
    kills, events, known = Counter[str](), 0, set[int]()
    while run.process.poll() is None and kills.total() < count:
        here = _children(run.process.pid)
        new = [pid for pid in here if pid not in known]
        known.update(new)
        if kills and new and chance.random() < 0.4:
            os.kill(new[0], signal.SIGKILL)
            kills["starting"] += 1
        elif here and len(run.said) >= events + 3:
            time.sleep(chance.random() * 0.2)
            with suppress(ProcessLookupError):
                os.kill(chance.choice(here), signal.SIGKILL)
                kills[run.stage] += 1
            events = len(run.said)
        time.sleep(0.01)
    return kills


def _chaos(bench: Any, made: Any, built: Any, place: Path, seed: int, whole: int, single: int) -> Counter[str]:
    """One build, killed `whole` times, with `single` kills of children in the run that is to end; kills by kind."""
    chance = random.Random(seed)
    place.mkdir()
    out, private = place / "out", place / "private"
    bench.seed_key(private)
    arguments = bench.arguments(made.root, out, private)
    kills = Counter({f"build in {stage}": n for stage, n in _whole(bench, arguments, chance, whole).items()})
    run = _Run(bench, arguments)
    kills.update({f"child in {stage}": n for stage, n in _kill_children(run, chance, single).items()})
    errors = run.end()
    assert run.process.returncode == 0, errors
    again = bench.build(made.root, out, private)
    assert again.outcome.new_files == 0
    assert bench.tree(out) == bench.tree(built.out), f"seed {seed}"
    assert again.ledger() == built.ledger(), f"seed {seed}"
    return kills


def test_a_build_and_its_children_killed_again_and_again_end_as_if_nothing_had_been(
    bench: Any, made: Any, built: Any, tmp_path: Path
) -> None:
    kills = _chaos(bench, made, built, tmp_path / "whole", seed=1, whole=4, single=0)
    kills += _chaos(bench, made, built, tmp_path / "single", seed=2, whole=0, single=6)
    assert sum(n for kind, n in kills.items() if kind.startswith("build")) >= 3, kills
    assert sum(n for kind, n in kills.items() if kind.startswith("child")) >= 3, kills


@pytest.mark.deep
def test_two_hundred_kills(bench: Any, made: Any, built: Any, tmp_path: Path) -> None:
    kills, seed = Counter[str](), 100
    while kills.total() < 200:
        kills += _chaos(bench, made, built, tmp_path / str(seed), seed, whole=12, single=6)
        seed += 1
    print(f"{kills.total()} kills in {seed - 100} builds: {dict(sorted(kills.items()))}")
    for kind in ("build in scan", "build in convert", "build in assemble", "child in scan", "child in convert"):
        assert kills[kind] > 0, kills
