"""Builds without child processes, for tests of what a build makes: of a small one, most of the work is to start those.

Children are the subject of `tests/build/test_isolation.py`; builds by two of them, of crashes and of kills, that of
others beside it, as are those of the command line. Real files are decoded in children always, as some may crash.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.reduction import ForkingPickler
from typing import Any
from unittest import mock

from shardkit.build import isolation, run
from shardkit.build.child import Raised
from shardkit.build.outcome import Outcome


class _Here:
    """Does what a `Child` does, in this process; what goes in and out is pickled as for one."""

    worn = False

    def __init__(self, memory_limit: int, modules: Sequence[str] = ()) -> None: ...

    def run(self, function: Callable[..., Any], args: tuple[Any, ...], timeout: float) -> Any:
        task, given = ForkingPickler.loads(ForkingPickler.dumps((function, args)))
        try:
            return ForkingPickler.loads(ForkingPickler.dumps(task(*given)))
        except MemoryError:
            raise
        except Exception as error:
            raise Raised(type(error).__name__) from None

    def kill(self) -> None: ...
    def close(self) -> None: ...


@contextmanager
def one_process() -> Iterator[None]:
    """Let builds inside of the block do without children."""
    with mock.patch.object(isolation, "Child", _Here), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as a child does: pydicom's
        yield


def build(*args: Any, **options: Any) -> Outcome:
    """Build as `shardkit.build.run.build` does, without children."""
    with one_process():
        return run.build(*args, **options)
