"""A file to read and seek in whose bytes come from elsewhere."""

from abc import ABC, abstractmethod
from io import BytesIO


class Opened(BytesIO, ABC):
    """A file to seek in whose bytes come from elsewhere; `part` gives them.

    Parameters
    ----------
    size : int
        Its bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size, self._at = size, 0

    @abstractmethod
    def part(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`, which are there unless the file has shrunk since."""

    def read(self, count: int | None = -1, /) -> bytes:
        """Return up to `count` bytes, as files do."""
        end = self._size if count is None or count < 0 else min(self._size, self._at + count)
        if end <= self._at:
            return b""
        data = self.part(self._at, end)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, as files do."""
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        """Return the place, as files do."""
        return self._at
