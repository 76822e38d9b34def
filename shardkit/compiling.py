"""Compiling of loops over pixels by Numba.

Import what uses it where it is used: Numba takes a fifth of a second to load. What was compiled is kept beside the
module or, where that cannot be written, in the user's cache folder; where neither can, each process compiles anew.
"""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def compiled(*arguments: Any) -> Callable[[F], F]:
    """Return a decorator that compiles a function, which then runs without Python's lock.

    Parameters
    ----------
    arguments : Numba types
        Of the function's arguments: it is compiled for these before the first call, when a process may be short of
        memory. Without any it is compiled by its calls.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    compile_: Any = njit
    signatures = [[arguments]] if arguments else []

    def decorate(function: F) -> F:
        try:
            return cast(F, compile_(*signatures, cache=True, **options)(function))
        except RuntimeError:  # there is no folder for it
            return cast(F, compile_(*signatures, **options)(function))

    return decorate
