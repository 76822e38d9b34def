"""Ranges of local files, kept open: on a network mount an open costs as much as reading a megabyte."""

import os
import threading
from collections import OrderedDict
from io import FileIO
from pathlib import Path

from shardkit.errors import StorageError

_OPEN = 128


class Files:
    """Reads ranges of files by path, from any thread. A file that is replaced or deleted stays readable while open."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, FileIO] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`. Raises OSError, or StorageError when the file is shorter."""
        file = self._open(path)
        data = os.pread(file.fileno(), length, start)
        if len(data) == length:  # nearly always: no copy
            return data
        parts, got = [data], len(data)
        while got < length and parts[-1]:
            parts.append(os.pread(file.fileno(), length - got, start + got))
            got += len(parts[-1])
        if got < length:
            raise StorageError(f"{path} ends before byte {start + length:,}: it is cut short; run verify")
        return b"".join(parts)

    def _open(self, path: Path) -> FileIO:
        with self._lock:
            if path in self._files:
                self._files.move_to_end(path)
                return self._files[path]
        file = FileIO(path)
        with self._lock:
            self._files[path] = file
            while len(self._files) > _OPEN:
                self._files.popitem(last=False)  # closed once no thread reads it any more
        return file

    def forget(self, path: Path) -> None:
        """Open the file anew next time."""
        with self._lock:
            self._files.pop(path, None)

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            self._files.clear()
