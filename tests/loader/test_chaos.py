"""Whatever a store does, an epoch's samples are those of a calm one, or the store's error ends it and it goes on.

Each trial draws from its seed a bad server (see `bad_server.py`) or a `FaultStore`, a few kinds of faults and how
often, a cache or none, and when the server is killed and comes back. Every step's rows must be those of a calm epoch.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Binned, Loader, Packed
from shardkit.errors import StorageError
from shardkit.testing.faults import FAULTS, FaultStore

SERVER = Path(__file__).with_name("bad_server.py")
OF_A_SERVER = ("refused", "busy", "cut", "half", "stall", "slow", "short", "wrong", "outage")
EVERY = [("server", kind) for kind in OF_A_SERVER] + [("FaultStore", kind) for kind in FAULTS]
BATCHINGS = (Packed(tokens=512, patch=16, per_step=1), Binned(batch_size=2, patch=16, per_step=1))
LOADER: dict[str, Any] = {
    "split": None,
    "where": lambda table: np.arange(table.num_rows) % 3 == 0,
    "needs": ("key",),
    "device": "cpu",
    "seed": 2,
    "window": 8,
    "threads": 1,
    "read_ahead": 1 << 14,
}
SHORT_FORM, LONG_FORM = range(12), range(12, 212)  # seeds
RUNS = 60  # of a trial at most
AT_ONCE = 6  # trials: they mostly wait

Steps = dict[int, list[int]]


class Server:
    """The bad server of a folder, on the same port in all its lives. Trials side by side kill it for one another."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, 0
        self._lock = threading.Lock()
        self._process: Any = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-I", "-S", str(SERVER), str(self.folder), str(self.port)]
        with self._lock:
            if self._process is None:
                self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
                self.port = int(self._process.stdout.readline())

    def kill(self) -> None:
        with self._lock:
            if self._process is not None:
                with self._process as process:
                    process.kill()
                self._process = None


@pytest.fixture(scope="module")
def server(dataset_folder: Path) -> Iterator[Server]:
    variables = ("AWS_ENDPOINT_URL", "AWS_ALLOW_HTTP", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION")
    with pytest.MonkeyPatch.context() as patch:
        server = Server(dataset_folder)
        for name, value in zip(variables, (f"http://127.0.0.1:{server.port}", "true", "a", "b", "x"), strict=True):
            patch.setenv(name, value)
        yield server
        server.kill()


@pytest.fixture(scope="module")
def calm(dataset_folder: Path) -> list[Steps]:
    """Rows by step of an undisturbed epoch, for each way of batching."""
    found = []
    for batching in BATCHINGS:
        steps = Steps()
        assert _run(Loader(dataset_folder, batching=batching, **LOADER), steps)
        found.append(steps)
    return found


def _run(loader: Loader, steps: Steps, each: Callable[[], None] = lambda: None) -> bool:
    """Note the rows of whole steps until the epoch ends, or the store; whether it was the epoch."""
    rows: list[int] = []
    try:
        for batch in loader:
            rows += batch.rows.tolist()
            if batch.position.last:
                assert batch.position.step not in steps
                steps[batch.position.step], rows = rows, []
            each()
    except StorageError:
        return False
    finally:
        assert loader.stats()["bad"] == 0
    return True


class Trial:
    """What a seed draws."""

    def __init__(self, seed: int) -> None:
        self._draw, self.seed, self.runs, self._counted = random.Random(seed), seed, 0, 0
        draw = self._draw
        self.source, first = EVERY[seed % len(EVERY)]
        others = [kind for source, kind in EVERY if source == self.source and kind != first]
        self.kinds, self.percent = [first, *draw.sample(others, draw.randint(0, 2))], draw.choice((3, 10, 30))
        self.batching, self.deadline = draw.randrange(len(BATCHINGS)), draw.choice((2.0, 0.3))
        self.cached, self.web = draw.random() < 0.25, draw.random() < 0.5
        # After how many batches the server is killed, and for how many seconds it stays away.
        self.kills = [(draw.randrange(1, 20), draw.choice((0.0, 0.1, 0.4))) for _ in range(draw.choice((0, 0, 1, 2)))]
        self._restarts: list[threading.Timer] = []

    def run(self, server: Server, calm: list[Steps], place: Path) -> None:
        """An epoch in as many runs as it takes. Fails where it is another than the calm one."""
        steps, state = Steps(), None
        try:
            while True:
                self.runs += 1
                assert self.runs <= RUNS, f"the epoch has no end: {len(steps)} of {len(calm[self.batching])} steps"
                try:
                    loader = self._loader(server, place)
                except StorageError:  # it is away for longer than opening a dataset waits
                    continue
                if state is not None:
                    loader.load_state_dict(state)
                if _run(loader, steps, lambda: self._disturb(server)):
                    break
                state = json.loads(json.dumps(loader.state_dict()))
        finally:
            for restart in self._restarts:
                restart.join()
        assert steps == calm[self.batching]

    def _loader(self, server: Server, place: Path) -> Loader:
        plan = (
            f"{self.seed}.0." if self.source == "FaultStore" else f"{self.seed}.{self.percent}.{'+'.join(self.kinds)}"
        )
        root = f"http://127.0.0.1:{server.port}" if self.web and not self.cached else "s3:/"
        cache: dict[str, Any] = {"cache": place / str(self.seed), "cache_bytes": 1 << 30} if self.cached else {}
        more = cache | LOADER | {"wrap": self._wrap if self.source == "FaultStore" else None, "deadline": self.deadline}
        return Loader(f"{root}/b/{plan}", batching=BATCHINGS[self.batching], **more)

    def _wrap(self, reader: Any) -> FaultStore:
        """Other faults in every run. A byte is wrong less often than a loader reads it."""
        times = 2 if {"short", "wrong"} & set(self.kinds) else None
        return FaultStore(reader, 1000 * self.seed + self.runs, self.percent / 100, self.kinds, times=times)

    def _disturb(self, server: Server) -> None:
        """Kill the server when it is time."""
        self._counted += 1
        for after, pause in self.kills:
            if after == self._counted:
                for restart in self._restarts:
                    restart.join()
                server.kill()
                self._restarts.append(threading.Timer(pause, server.start))
                self._restarts[-1].start()


def _storm(seeds: Iterable[int], server: Server, calm: list[Steps], place: Path) -> str:
    """Run trials; a table of what happened by kind of fault."""

    def run(seed: int) -> Trial:
        trial = Trial(seed)
        try:
            trial.run(server, calm, place)
        except BaseException as error:
            error.add_note(f"in trial {seed}, with {trial.kinds} and {len(trial.kills)} kills")
            raise
        return trial

    table = defaultdict[str, Counter[str]](Counter)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for trial in threads.map(run, seeds):
            kinds = [f"{trial.source} {kind}" for kind in trial.kinds]
            for kind in ("all", *kinds, *(["server killed"] if trial.kills else [])):
                table[kind] += Counter(trials=1, whole=trial.runs == 1, resumed=trial.runs > 1, runs=trial.runs)
    return "\n".join(f"{kind}: {dict(counts)}" for kind, counts in sorted(table.items()))


@pytest.mark.deep
def test_a_store_in_trouble_changes_no_step_of_an_epoch(server: Server, calm: list[Steps], tmp_path: Path) -> None:
    assert "server killed:" in _storm(SHORT_FORM, server, calm, tmp_path)


@pytest.mark.deep
def test_a_store_in_trouble_for_long_changes_no_step_of_an_epoch(
    server: Server, calm: list[Steps], tmp_path: Path
) -> None:
    print(told := _storm(LONG_FORM, server, calm, tmp_path))
    for source, kind in (*EVERY, ("server", "killed")):
        assert f"{source} {kind}:" in told, "these seeds leave it out"
