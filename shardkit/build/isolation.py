"""Work that may crash, hang or eat memory, in child processes that are replaced when it does.

Native decoders do all three. A child has an address-space limit and a time limit per task; it dies with its parent.
A task whose child is lost may be innocent: the kernel kills where memory is short, a stalled machine outlasts every
limit, a child that has grown refuses what a new one would give. So it runs once more in a new child before a verdict,
and with all others at rest if its child was killed from outside.
"""

import atexit
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, TypeVar

from shardkit.build.child import Child, Killed, NotBegun, Overdue, Raised
from shardkit.config import MEMORY_LIMIT, TIME_LIMIT
from shardkit.errors import Quarantined

R = TypeVar("R")

_READ_RATE = 1 << 20  # bytes a second the slowest storage is trusted with, on top of the time limit
_CLOSED = "the children are closed"
_MODULES = ("shardkit.build.conversion", "shardkit.build.scan", "shardkit.kernels", "shardkit.burned_in.marks")
"""What a build's tasks need: a child loads them while its parent is still busy with its own."""
_STARTS = 12  # children in a row that may be lost before they take a task up, in the course of about 40 s


def allowance(size: int, limit: float = TIME_LIMIT) -> float:
    """Return the seconds for a file of `size` bytes: the limit, and time to read it from slow storage."""
    return limit + size / _READ_RATE


@dataclass(frozen=True, slots=True)
class ByName:
    """A function that only the child loads, with all that it needs."""

    module: str
    name: str

    def __call__(self, *args: Any) -> Any:
        """Call it."""
        return getattr(import_module(self.module), self.name)(*args)


class Stopped(BrokenExecutor):
    """The children were closed while work was under way, or none can be started: no verdict on any file."""


@dataclass(frozen=True, slots=True)
class _Task:
    function: Callable[..., Any]
    args: tuple[Any, ...]
    timeout: float
    again: bool
    future: "Future[Any]" = field(default_factory=Future)


class IsolatedPool:
    """A pool of isolated processes. `submit` returns a future; `result` turns a child's death into a verdict.

    Parameters
    ----------
    workers : int
        Processes.
    memory_limit : int
        Bytes of address space that each may take beyond its libraries.
    modules : sequence of str
        What each imports as it starts. With any, processes start at once, without them on their first task.
    """

    def __init__(self, workers: int, memory_limit: int = MEMORY_LIMIT, modules: Sequence[str] = ()) -> None:
        self._memory_limit, self.modules = memory_limit, modules
        self._lock, self._closed, self._alive = threading.Lock(), threading.Event(), set[Child]()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        turns = _Turns()
        keepers = [_Keeper(self, turns) for _ in range(workers)]
        # Daemons: an interpreter that ends without `close` must not wait for them.
        self._threads = [threading.Thread(target=keeper.live, name="keeper", daemon=True) for keeper in keepers]
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[..., R], *args: Any, timeout: float, again: bool = True) -> "Future[R]":
        """Schedule `function(*args)`, picklable.

        Parameters
        ----------
        function, *args
            What to run.
        timeout : float
            Seconds of running, after which its process is killed.
        again : bool
            Whether a task at which its child is lost runs once more, in a new child, before that counts.

        Raises
        ------
        Stopped
            The pool is closed.
        """
        task = _Task(function, args, timeout, again)
        with self._lock:
            if self.closed:
                raise Stopped(_CLOSED)
            self._tasks.put(task)
        return task.future

    def close(self) -> None:
        """Kill the children and end every future: one that nobody ends would keep its reader waiting for ever."""
        with self._lock:
            self._closed.set()
            for child in self._alive:
                child.kill()
            for _ in self._threads:
                self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def closed(self) -> bool:
        """Whether the children are, or are being, killed."""
        return self._closed.is_set()

    def next(self) -> _Task | None:
        """Return a task, once there is one; None when there are no more. For keepers."""
        return self._tasks.get()

    def start(self, delay: float) -> Child:
        """Return a new child, in `delay` seconds. For keepers.

        Raises
        ------
        Stopped
            The pool is closed.
        OSError
            No process can be started.
        """
        if self._closed.wait(delay):
            raise Stopped(_CLOSED)
        child = Child(self._memory_limit, self.modules)
        with self._lock:
            self._alive.add(child)
            if self.closed:
                child.kill()
        return child

    def end(self, child: Child) -> None:
        """Kill a child, and forget it. For keepers."""
        with self._lock:
            self._alive.discard(child)
        child.close()


class _Turns:
    """Who may run: any number side by side, or one alone, which waits for the others and holds them back."""

    def __init__(self) -> None:
        self._changed, self._running, self._alone = threading.Condition(), 0, False

    @contextmanager
    def take(self, alone: bool) -> Iterator[None]:
        """Wait for a turn."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = alone
            self._changed.wait_for(lambda: not (alone and self._running))
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._alone = self._alone and not alone
                self._changed.notify_all()


class _Keeper:
    """Feeds one child after another, on one thread: a child dies with the thread that made it."""

    def __init__(self, pool: IsolatedPool, turns: _Turns) -> None:
        self._pool, self._turns = pool, turns
        self._child: Child | None = None

    def live(self) -> None:
        """Run tasks until there are no more."""
        if self._pool.modules:
            with suppress(Stopped, OSError):  # a task will try again, and say so
                self._child = self._pool.start(0)
        while task := self._pool.next():
            if task.future.set_running_or_notify_cancel():
                try:
                    value = self._attempts(task)
                except BaseException as error:  # of a child that was killed by `close`, nothing is known
                    task.future.set_exception(Stopped(_CLOSED) if self._pool.closed else error)
                else:
                    task.future.set_result(value)
        self._drop()

    def _attempts(self, task: _Task) -> Any:
        try:
            return self._attempt(task)
        except (Killed, MemoryError, Overdue) as lost:
            if not task.again:
                raise
            # No decoder kills itself so: it was the kernel, for memory, which the other children may have taken.
            outside = isinstance(lost, Killed) and lost.code == -signal.SIGKILL
        return self._attempt(task, alone=outside)

    def _attempt(self, task: _Task, alone: bool = False) -> Any:
        """Run a task. Raises what `Child.run` raises of it, and Stopped."""
        with self._turns.take(alone):
            for lost in range(_STARTS):
                try:
                    self._child = self._child or self._pool.start(0.01 * 2**lost if lost else 0)
                    value = self._child.run(task.function, task.args, task.timeout)
                except (NotBegun, OSError):
                    self._drop()
                    continue
                except Raised:
                    raise
                except BaseException:
                    self._drop()
                    raise
                finally:
                    if self._child and self._child.worn:
                        self._drop()
                return value
        raise Stopped(f"{_STARTS} decoding processes in a row ended before they had begun")

    def _drop(self) -> None:
        if self._child is not None:
            self._pool.end(self._child)
        self._child = None


def result(future: "Future[R]", timeout: float) -> R:
    """Return a future's value.

    Parameters
    ----------
    future : Future
        Of `IsolatedPool.submit`.
    timeout : float
        Seconds that the task had, for the sentence.

    Raises
    ------
    Quarantined
        decode_timeout, decoder_crash, memory_limit or internal_error, for what the task did to its child.
    Stopped
        The pool was closed.
    """
    try:
        return future.result()
    except Overdue:
        raise Quarantined("decode_timeout", f"not done after {timeout:.0f} s") from None
    except Killed as death:
        name = signal.Signals(-death.code).name if death.code < 0 else f"exit code {death.code}"
        raise Quarantined("decoder_crash", f"the decoder killed its process ({name})") from None
    except MemoryError:
        raise Quarantined("memory_limit", "decoding wanted more memory than the limit") from None
    except CancelledError:
        raise Stopped(_CLOSED) from None
    except Raised as error:  # the tasks raise nothing themselves: this is how an unpicklable result ends
        raise Quarantined("internal_error", f"{error.name} in a child process") from None


_shared: dict[tuple[int, int], IsolatedPool] = {}
_lock = threading.Lock()
_refuse = False  # a build is ending: its last tasks must not start new children


def children(workers: int, memory_limit: int = MEMORY_LIMIT) -> IsolatedPool:
    """Return this process's pool of these limits, made on first use and kept: a child's imports take about a second."""
    with _lock:
        if _refuse:
            raise Stopped(_CLOSED)
        if not _shared:
            atexit.register(close_children)
        if (workers, memory_limit) not in _shared:
            _shared[workers, memory_limit] = IsolatedPool(workers, memory_limit, _MODULES)
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
    """Let new pools be made."""
    global _refuse
    with _lock:
        _refuse = False
