"""Commands of the downstream benchmark: each is run once, by one core, several side by side; a second start goes on.

A job is a command line and a name. When it is done, `done/NAME.json` in the work folder says what it took, all of its
starts; a job that is there is not run again, and one that was interrupted goes on where its command does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes
    ----------
    name : str
        Of the job, and of its log.
    words : tuple of str
        What follows `python -m trainer`, or `shardkit` where `program` says so.
    after : tuple of str
        Names of jobs whose results it needs.
    """

    name: str
    words: tuple[str, ...]
    after: tuple[str, ...] = ()
    program: str = "trainer"

    @property
    def command(self) -> list[str]:
        """The whole command line."""
        if self.program == "trainer":
            return [sys.executable, "-m", "trainer", *self.words]
        return [sys.executable, "-c", "from shardkit.cli import main; main()", *self.words]


@dataclass
class Jobs:
    """Jobs of a work folder.

    Parameters
    ----------
    work
        The folder.
    cores
        How many jobs run side by side, each on one core.
    """

    work: Path
    cores: int
    took: dict[str, Record] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> None:
        """Run what is not done yet, each job after those that it needs.

        Raises
        ------
        RuntimeError
            With the last words of the first job that failed; those that run beside it are finished. Or a job of this
            name was done with other words.
        """
        left = {job.name: job for job in jobs if not self._known(job)}
        running: dict[str, Any] = {}
        with ThreadPoolExecutor(self.cores) as pool:
            try:
                while left or running:
                    ready = [job for job in left.values() if all(name in self.took for name in job.after)]
                    for job in ready[: self.cores - len(running)]:
                        running[job.name] = pool.submit(self._measured, left.pop(job.name))
                    if not running:
                        raise RuntimeError(f"{', '.join(left)}: what they need is not among the jobs")
                    for name in [name for name, future in running.items() if future.done()]:
                        self.took[name] = running.pop(name).result()
                    time.sleep(0.2)
            except KeyboardInterrupt:
                for process in list(self.processes.values()):
                    process.terminate()  # it keeps where it is; the pool waits for it
                raise

    def _known(self, job: Job) -> bool:
        path = self._file(job, "done")
        if not path.exists():
            return False
        found = json.loads(path.read_text())
        if found["command"] != [job.program, *job.words]:
            raise RuntimeError(f"{self.work} holds {job.name}, done with other words: name another folder as --work")
        self.took[job.name] = found
        return True

    def _file(self, job: Job, folder: str) -> Path:
        return self.work / folder / f"{job.name}.json"

    def _measured(self, job: Job) -> Record:
        logs = self.work / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        earlier, begun = self._file(job, "begun"), time.perf_counter()
        spent: Record = json.loads(earlier.read_text()) if earlier.exists() else {}
        with (logs / f"{job.name}.log").open("ab") as log:
            process = subprocess.Popen(
                job.command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **one_core}
            )
            self.processes[job.name] = process
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        del self.processes[job.name]
        took = {
            "seconds": round(spent.get("seconds", 0) + time.perf_counter() - begun, 1),
            "cpu_seconds": round(spent.get("cpu_seconds", 0) + used.ru_utime + used.ru_stime, 1),
            "peak_mib": max(spent.get("peak_mib", 0), used.ru_maxrss // 1024),
            "starts": spent.get("starts", 0) + 1,
            "load": round(os.getloadavg()[0], 1),
        }
        if process.returncode:
            _write(earlier, took)
            words = (logs / f"{job.name}.log").read_text(errors="replace")[-1500:]
            raise RuntimeError(f"{job.name} ended with {process.returncode}: {words}")
        _write(self._file(job, "done"), {**took, "command": [job.program, *job.words]})
        earlier.unlink(missing_ok=True)
        return took


def _write(path: Path, values: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".part").write_text(json.dumps(values))
    path.with_suffix(".part").replace(path)


def cores() -> int:
    """Return the cores that this process may use."""
    return int(machine.describe(())["cores"])
