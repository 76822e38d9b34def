"""The machine a benchmark ran on, in words that name no host and no path; and what a process tree used of it."""

import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = ("shardkit", "numpy", "pydicom", "imagecodecs", "pyarrow", "scipy", "webdataset")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20
_PSS_SHARE = 0.02  # of a core that reading PSS may cost: the kernel walks every page table for it


def describe(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, Any]:
    """Describe this machine: CPU model, cores this process may use, memory, OS, versions. A load means company."""
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * _PAGE / (1 << 30), 1),
        "os": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "libraries": {name: found for name in libraries if (found := _version(name))},
        "load_before": round(os.getloadavg()[0], 2),
    }


def _first(path: str, field: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took.

    Attributes
    ----------
    wall_s, cpu_s
        Seconds; CPU seconds include its children.
    peak_pss_mib, peak_rss_mib
        Memory of its process tree: PSS counts a shared page once, RSS once per process.
    started, ended
        By `time.time()`.
    """

    wall_s: float
    cpu_s: float
    peak_pss_mib: float
    peak_rss_mib: float
    started: float  # time.time()
    ended: float


def measure(command: list[str], log: Path, environment: dict[str, str] | None = None) -> Usage:
    """Run a command and watch the memory of its process tree.

    Raises
    ------
    RuntimeError
        With its last words, if it fails.
    """
    with log.open("wb") as out:
        started, clock = time.time(), time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment)
        memory = _Memory(process.pid)
        memory.start()
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - clock
    memory.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[0]} ended with {process.returncode}: {log.read_text()[-2000:]}")
    cpu = used.ru_utime + used.ru_stime
    return Usage(wall, cpu, memory.pss / _MIB, memory.rss / _MIB, started, started + wall)


class _Memory(threading.Thread):
    """Peak memory of a process tree: RSS at 20 Hz, PSS as often as it costs little."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.rss = self.pss = 0

    def run(self) -> None:
        """Sample until stopped."""
        next_pss = 0.0
        while not self._over.wait(0.05):
            tree = list(_tree(self._pid))
            self.rss = max(self.rss, sum(map(_rss, tree)))
            if (now := time.monotonic()) >= next_pss:
                before = time.thread_time()
                self.pss = max(self.pss, sum(map(_pss, tree)))
                next_pss = now + (time.thread_time() - before) / _PSS_SHARE

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        self.join()


def _tree(pid: int) -> Iterator[int]:
    """Return a process and all that descend from it; a child hangs on the thread that started it."""
    yield pid
    try:
        threads = [entry / "children" for entry in Path(f"/proc/{pid}/task").iterdir()]
        children = [int(child) for file in threads for child in file.read_text().split()]
    except OSError:  # gone meanwhile
        return
    for child in children:
        yield from _tree(child)


def _rss(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _pss(pid: int) -> int:
    try:
        return int(_first(f"/proc/{pid}/smaps_rollup", "Pss").split()[0]) * 1024
    except IndexError:
        return 0


class Stopwatch:
    """CPU seconds of this thread by function, without what watched functions inside it took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]
        self._originals: list[tuple[Any, str, Any]] = []

    def watch(self, name: str, owner: Any, attribute: str) -> None:
        """Count the time of `owner.attribute` under `name` from now on."""
        function = getattr(owner, attribute)
        self._originals.append((owner, attribute, function))
        self.seconds.setdefault(name, 0.0)

        def timed(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            start = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent = time.thread_time() - start
                self.seconds[name] += spent - self._inner.pop()
                self._inner[-1] += spent

        setattr(owner, attribute, timed)

    def restore(self) -> None:
        """Put the functions back as they were."""
        for owner, attribute, function in reversed(self._originals):
            setattr(owner, attribute, function)


def peak_of_this_process() -> int:
    """Return the peak memory in bytes; unlike getrusage's, not inherited from the process that started this one."""
    return int(_first("/proc/self/status", "VmHWM").split()[0]) * 1024
