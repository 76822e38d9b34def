"""Errors that a library's C code reports and swallows, noticed here in place of the traceback that Python prints.

imagecodecs goes on when OpenJPH fails on a stream's blocks, and gives back what memory held.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_noted = threading.local()
_before = sys.unraisablehook


def _hook(unraisable: Any) -> None:
    """Note the error for the block that the thread is in; the hook that was there before gets all others."""
    noted = getattr(_noted, "errors", None)
    if noted is None:
        _before(unraisable)
    else:
        noted.append(unraisable.exc_value)


@contextmanager
def noticed() -> Iterator[list[BaseException]]:
    """Give the errors that C code has swallowed in the block so far, in this thread."""
    global _before
    if sys.unraisablehook is not _hook:
        _before, sys.unraisablehook = sys.unraisablehook, _hook
    _noted.errors = errors = list[BaseException]()
    try:
        yield errors
    finally:
        _noted.errors = None
