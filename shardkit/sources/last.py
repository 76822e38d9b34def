"""The last thing made of a large object, for the next that asks for it: a file's frames and slices come one by one."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Last(Generic[T]):
    """Keeps one value: of the last object asked for, known by its identity, so that no file is compared.

    Parameters
    ----------
    size : callable
        Bytes that a value takes.
    most : int
        Bytes above which it is not kept.
    """

    def __init__(self, size: Callable[[T], int], most: int) -> None:
        self._size, self._most = size, most
        self._kept: tuple[object, Hashable, T] | None = None

    def of(self, owner: object, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value for an object, made unless it is the one that is kept.

        Parameters
        ----------
        owner : object
            What it is made of.
        key : hashable
            How.
        make : callable
            Makes it.
        """
        if self._kept is not None and self._kept[0] is owner and self._kept[1] == key:
            return self._kept[2]
        self._kept = None  # two would not fit
        value = make()
        if self._size(value) <= self._most:
            self._kept = owner, key, value
        return value

    def taken(self, owner: object, key: Callable[[], Hashable]) -> T | None:
        """Return the value that is kept for an object, and keep it no longer; None where another one is, or none."""
        if self._kept is None or self._kept[0] is not owner or self._kept[1] != key():
            return None
        value, self._kept = self._kept[2], None
        return value

    def forget(self) -> None:
        """Keep nothing."""
        self._kept = None
