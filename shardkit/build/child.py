"""One child process and the talk with it: a task goes in, what became of it comes out.

Every child has a pipe of its own. A lock or a queue shared by several would be lost with the one that dies holding it.
"""

import ctypes
import gc
import logging
import multiprocessing
import os
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

from shardkit.build import messages

_START = 120.0  # seconds a child may take to load its libraries
_END = 5.0  # and to be gone
_READY, _BEGUN, _DONE, _MEMORY, _RAISED = range(5)
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MAPPED, _KEPT = 128 << 20, 256 << 20  # bytes: of a piece that goes back at once, and of what is free and stays


class NotBegun(Exception):
    """The child was gone before it took the task up: no fault of the task."""


class Killed(Exception):
    """The child died at its task. `code` is its exit code, negative for a signal's number."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Overdue(Exception):
    """The task was not done in time."""


class Raised(Exception):
    """The task raised, or what it returned cannot be sent. `name` is the error's class: its text may quote a header."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Child:
    """A process that runs one task at a time. Belongs to the thread that makes it, and dies with it or when killed.

    Parameters
    ----------
    memory_limit : int
        Bytes of address space that it may take beyond what its libraries need.
    modules : sequence of str
        What it imports at once: its first task need not wait, and libraries count before memory is limited.

    Attributes
    ----------
    worn : bool
        Whether it has grown so much that the next task deserves another.

    Raises
    ------
    OSError
        Where no process can be started.
    """

    def __init__(self, memory_limit: int, modules: Sequence[str] = ()) -> None:
        _allow_grandchildren()
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self._pipe, theirs = context.Pipe()
        self._ready = self.worn = False
        self._said = messages.Receiver(self._pipe)
        self._process = context.Process(target=_live, args=(theirs, memory_limit, os.getpid(), modules), daemon=True)
        try:
            self._process.start()
        except OSError:
            self._pipe.close()
            raise
        finally:
            theirs.close()

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], timeout: float) -> Any:
        """Return the value of `function(*args)`.

        Parameters
        ----------
        function : callable
            Can be pickled, as `args` can.
        args : tuple
            Its arguments.
        timeout : float
            Seconds that it may run.

        Raises
        ------
        NotBegun, Killed, Overdue, MemoryError
            The child is of no more use.
        Raised
            The task raised; the child stays.
        """
        try:
            task = ForkingPickler.dumps((function, args))
        except Exception as error:
            raise Raised(type(error).__name__) from None
        try:
            if not self._ready:
                self._hear(_START)
            self._ready = True
            self._pipe.send_bytes(task)
            self._hear(_START)  # it has read the task, which loads the libraries
        except (EOFError, OSError, Overdue):
            raise NotBegun from None
        try:
            kind, value, self.worn = self._hear(timeout)
        except (EOFError, OSError):
            raise Killed(self._exit_code()) from None
        if kind == _MEMORY:
            raise MemoryError
        if kind == _RAISED:
            raise Raised(value)
        return value

    def _hear(self, timeout: float) -> Any:
        """Return what the child says next. Raises EOFError or OSError when it is gone, Overdue."""
        if not wait([self._pipe, self._process.sentinel], timeout):
            raise Overdue
        return self._said.next()  # of a child that died: what it said before, or the end

    def _exit_code(self) -> int:
        self._process.join(_END)
        self.kill()
        for _ in range(100):  # another thread may just be collecting it
            if (code := self._process.exitcode) is not None:
                return code
            time.sleep(_END / 100)
        return -signal.SIGKILL

    def kill(self) -> None:
        """End the process, whatever it does. May be called by any thread, and again."""
        self._process.kill()

    def close(self) -> None:
        """End the process and forget it; by the thread that runs its tasks."""
        self.kill()
        self._process.join(_END)  # not for ever: one that waits for a dead server cannot be killed
        self._pipe.close()


def _allow_grandchildren() -> None:
    """Dask runs its workers as daemons, which multiprocessing forbids to have children; ours die with their parent."""
    if multiprocessing.current_process().daemon:
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]


def _live(pipe: "Connection[Any, Any]", memory_limit: int, parent: int, modules: Sequence[str]) -> None:
    """Live as a child: run what comes, say what became of it."""
    _enter(parent)
    messages.send(pipe, messages.pickled((_READY, None, False)))
    gc.disable()  # what loads is to stay: a sixth of the time went into looking for what could go
    for name in modules:
        import_module(name)
    gc.enable()
    most = 0
    while True:
        try:
            task = pipe.recv_bytes()
        except EOFError:
            return
        try:
            function, args = ForkingPickler.loads(task)
            if not most:  # the libraries are loaded: what comes on top of them counts
                most = _address_space() + memory_limit // 2
                _limit(memory_limit)
                gc.freeze()  # the libraries' objects stay: a collection need not look at them
            messages.send(pipe, messages.pickled((_BEGUN, None, False)))
            answer = (_DONE, function(*args))
        except MemoryError:
            answer = (_MEMORY, None)
        except BaseException as error:  # a panic in a Rust library is no Exception
            answer = (_RAISED, type(error).__name__)
        _answer(pipe, *answer, worn=_address_space() > most)
        del answer, task


def _answer(pipe: "Connection[Any, Any]", kind: int, value: Any, worn: bool) -> None:
    try:
        message = messages.pickled((kind, value, worn))
    except MemoryError:
        message = messages.pickled((_MEMORY, None, True))
    except Exception as error:
        message = messages.pickled((_RAISED, type(error).__name__, worn))
    messages.send(pipe, message)


def _enter(parent: int) -> None:
    """Set up a child: quiet, and gone without a trace when its parent is."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's image
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE: a dump that is piped to a program heeds no limit
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    warnings.simplefilter("ignore")  # pydicom's quote header values
    logging.disable(logging.CRITICAL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):  # native libraries print what they read
        os.dup2(quiet, descriptor)
    _keep_memory()


def _keep_memory() -> None:
    """Let glibc keep what an image took for the next one: else the kernel clears every page of it anew."""
    with suppress(AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _MAPPED)
        mallopt(_TRIM_THRESHOLD, _KEPT)


def _address_space() -> int:
    """Bytes of address space in use; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, MemoryError):
        return 0


def _limit(memory_limit: int) -> None:
    if size := _address_space():
        with suppress(ValueError):  # a lower limit holds already
            resource.setrlimit(resource.RLIMIT_AS, (size + memory_limit, size + memory_limit))
