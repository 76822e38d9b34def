"""Who does a build's tasks: threads that each feed isolated child processes, or an executor such as Dask's."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from shardkit.build import isolation

T = TypeVar("T")


class Workers:
    """Runs tasks inside a with block; what it started is gone afterwards, whatever happened.

    Parameters
    ----------
    count : int
        Tasks at a time.
    executor : Executor or None
        Runs them, and stays open; None for threads of this process.
    check : callable
        Called before results are handed on; raises where the build may not go on.
    """

    def __init__(self, count: int, executor: Executor | None, check: Callable[[], None]) -> None:
        self.count, self._executor, self._check = count, executor, check
        self._threads: ThreadPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        """Start threads, if there is no executor."""
        if self._executor is None:
            isolation.allow_children()
            self._threads = ThreadPoolExecutor(self.count, thread_name_prefix="shard")
        return self

    def __exit__(self, *error: object) -> None:
        """End what was started."""
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
            isolation.close_children(refuse=True)  # ends what threads wait for, if anything failed
            self._threads.shutdown(wait=True)
            isolation.allow_children()

    def map(self, function: Callable[..., T], jobs: Iterable[tuple[Any, tuple[Any, ...]]]) -> Iterator[tuple[Any, T]]:
        """Run jobs with a bounded number in flight.

        Parameters
        ----------
        function : callable
            What to run.
        jobs : iterable
            Pairs of a label and the arguments.

        Yields
        ------
        tuple
            (label, result), as they finish.
        """
        executor = self._executor or self._threads
        assert executor is not None
        waiting: dict[Future[T], Any] = {}
        todo = iter(jobs)
        try:
            while True:
                for label, arguments in islice(todo, 2 * self.count - len(waiting)):
                    waiting[executor.submit(function, *arguments)] = label
                if not waiting:
                    return
                finished = wait(waiting, return_when=FIRST_COMPLETED).done
                self._check()
                for future in finished:
                    yield waiting.pop(future), future.result()
        finally:
            for future in waiting:
                future.cancel()
