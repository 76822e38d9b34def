"""A build on a Dask cluster, a worker of which dies, gives the bytes of a local build."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shardkit.build.dask import dask_executor
from shardkit.build.run import build
from shardkit.errors import ArgumentError


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{words[0]}-{time.monotonic_ns()}.log").open("wb") as log:
        command = [sys.executable, "-m", "dask", *words]
        # A group of its own, so that a nanny and its worker can be killed together.
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, each under its nanny, as `dask worker` starts them."""
    from distributed import Client

    port = _free_port()
    address = f"tcp://127.0.0.1:{port}"
    started = [_start(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")]
    try:
        for _ in range(2):
            started.append(
                _start(tmp_path, "worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1")
            )
        with Client(address, timeout="30s") as client:  # type: ignore[no-untyped-call]  # it has no annotations
            client.wait_for_workers(2, timeout=60)
        yield address, started[1:]
    finally:
        for process in started:
            _stop(process)


class _KillsAWorker:
    """Progress that ends a worker and its nanny once the second shard is done."""

    def __init__(self, worker: subprocess.Popen[bytes]) -> None:
        self.worker, self.done = worker, 0

    def stage(self, name: str, total: int | None) -> None: ...

    def scanned(self, files: int) -> None: ...

    def converted(self, done: Any) -> None:
        self.done += 1
        if self.done == 2:
            os.killpg(self.worker.pid, signal.SIGKILL)
            self.worker.wait()


def test_a_build_that_loses_a_worker_gives_the_bytes_of_a_local_one(
    bench: Any, made: Any, built: Any, cluster: Any, tmp_path: Path
) -> None:
    address, workers = cluster
    bench.seed_key(tmp_path / "private")
    watcher = _KillsAWorker(workers[0])
    with dask_executor(address) as (executor, threads, most):
        assert (threads, most) == (2, 1)
        arguments = bench.arguments(made.root, tmp_path / "out", tmp_path / "private").with_workers(threads, most)
        outcome = build(arguments, watcher, executor)
    assert watcher.done >= len(built.before)
    assert outcome.counts == built.outcome.counts
    assert bench.tree(tmp_path / "out") == bench.tree(built.out)


def test_a_scheduler_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.build.dask.ANSWERS", 1)
    address = f"tcp://127.0.0.1:{_free_port()}"
    with pytest.raises(ArgumentError, match="no Dask scheduler answers"), dask_executor(address):
        pass
