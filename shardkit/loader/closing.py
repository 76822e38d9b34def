"""Ends what runs behind an iteration before the interpreter ends, and never waits for threads that are gone.

By `atexit`, which comes after threads that the program itself waits for: one of them may still be iterating. Threads of
ours are daemons; one that still ran while the interpreter is taken apart would be stopped within a library, which may
abort the process, or be waited for without an end.
"""

import atexit
import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol

PREFIX = "shardkit-"
"""What names of our threads begin with."""


class Closable(Protocol):
    """Something with threads."""

    def close(self) -> None:
        """End them; bounded in time."""
        ...


_open: "weakref.WeakSet[Closable]" = weakref.WeakSet()


def watch(closable: Closable) -> None:
    """Close it when the interpreter ends, unless it is gone by then."""
    _open.add(closable)
    atexit.unregister(_close_all)
    atexit.register(_close_all)  # after DALI's, which then runs after it, and expects that nobody uses a pipeline


def may_wait(pid: int) -> bool:
    """Whether this thread may wait for threads that process `pid` started: they exist here, and it is none of them.

    A fork copies objects and not their threads; and garbage is collected in any thread, ours among them.
    """
    return os.getpid() == pid and not threading.current_thread().name.startswith(PREFIX)


def _close_all() -> None:
    for closable in list(_open):
        with suppress(Exception):  # the process ends with its own error, if it has one
            closable.close()
