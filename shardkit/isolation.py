"""Work that may crash, hang or eat memory, in child processes that are replaced when it does.

Native decoders do all three. A child has an address-space limit and a time limit per task; it dies with its parent.
"""

import atexit
import ctypes
import logging
import multiprocessing
import os
import resource
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future, InvalidStateError, TimeoutError
from pathlib import Path
from typing import Any, TypeVar

from pebble import ProcessExpired, ProcessPool

from shardkit.errors import Quarantined

R = TypeVar("R")

TIME_LIMIT = 30.0
"""Seconds a file may take to decode and encode."""
MEMORY_LIMIT = 4 << 30
"""Bytes of address space a child may take beyond what its libraries need."""
_READ_RATE = 1 << 20  # bytes a second the slowest storage is trusted with, on top of the time limit


def allowance(size: int, limit: float = TIME_LIMIT) -> float:
    """Seconds for a file of `size` bytes: the limit, and time to read it from slow storage."""
    return limit + size / _READ_RATE


class Stopped(BrokenExecutor):
    """The children were closed while work was under way: no verdict on any file."""


class Children:
    """A pool of isolated processes. `submit` returns a future; `result` turns a child's death into a verdict."""

    def __init__(self, workers: int, memory_limit: int = MEMORY_LIMIT) -> None:
        _allow_grandchildren()
        self._lock, self._closed, self._open = threading.Lock(), False, set[Future[Any]]()
        self._pool = ProcessPool(
            max_workers=workers,
            initializer=_enter,
            initargs=(memory_limit, os.getpid()),
            context=multiprocessing.get_context("spawn"),  # a fork would copy threads' locks
        )

    def submit(self, function: Callable[..., R], *args: Any, timeout: float) -> "Future[R]":
        """Schedule `function(*args)`, picklable, killed after `timeout` seconds of running. Raises Stopped."""
        with self._lock:
            if self._closed:
                raise Stopped("the children are closed")
            future: Future[R] = self._pool.schedule(function, args=list(args), timeout=timeout)
            self._open.add(future)
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: "Future[Any]") -> None:
        with self._lock:
            self._open.discard(future)

    def close(self) -> None:
        """Kill the children and end every future: one that nobody ends would keep its reader waiting for ever."""
        with self._lock:
            self._closed = True
            waiting = list(self._open)
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()
        for future in waiting:
            if not future.done():
                try:
                    future.set_exception(Stopped("the children are closed"))
                except InvalidStateError:  # ended by the pool after all
                    pass


def result(future: "Future[R]", timeout: float) -> R:
    """The future's value. Raises Quarantined for what the task did to its child, Stopped where the pool was closed."""
    try:
        return future.result()
    except TimeoutError:
        raise Quarantined("decode_timeout", f"not done after {timeout:.0f} s") from None
    except ProcessExpired as death:
        code = getattr(death, "exitcode", None)
        name = signal.Signals(-code).name if code and code < 0 else f"exit code {code}"
        raise Quarantined("decoder_crash", f"the decoder killed its process ({name})") from None
    except MemoryError:
        raise Quarantined("memory_limit", "decoding wanted more memory than the limit") from None
    except (CancelledError, BrokenExecutor):
        raise Stopped("the children are closed") from None
    except Exception as error:  # the tasks raise nothing themselves: this is how an unpicklable error arrives
        raise Quarantined("internal_error", f"{type(error).__name__} in a child process") from None


_shared: dict[tuple[int, int], Children] = {}
_lock = threading.Lock()
_refuse = False  # a build is ending: its last tasks must not start new children


def children(workers: int, memory_limit: int = MEMORY_LIMIT) -> Children:
    """This process's pool of these limits, made on first use and kept: a child's imports take about a second."""
    with _lock:
        if _refuse:
            raise Stopped("the children are closed")
        if not _shared:
            atexit.register(close_children)
        if (workers, memory_limit) not in _shared:
            _shared[workers, memory_limit] = Children(workers, memory_limit)
        return _shared[workers, memory_limit]


def close_children(refuse: bool = False) -> None:
    """End this process's pools; with `refuse`, none is made until `allow_children` is called."""
    global _refuse
    with _lock:
        _refuse, ending = refuse, list(_shared.values())
        _shared.clear()
    for pool in ending:
        pool.close()


def allow_children() -> None:
    """New pools may be made."""
    close_children(refuse=False)


def _allow_grandchildren() -> None:
    """Dask runs its workers as daemons, which multiprocessing forbids to have children; ours die with their parent."""
    if multiprocessing.current_process().daemon:
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def _enter(memory_limit: int, parent: int) -> None:
    """Set up a child: quiet, limited, and gone when its parent is."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warnings.simplefilter("ignore")  # pydicom's quote header values
    logging.disable(logging.CRITICAL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # native libraries print what they read
        os.dup2(quiet, descriptor)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return
    limit = pages * resource.getpagesize() + memory_limit
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
