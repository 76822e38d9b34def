"""Local files: ranges of those kept open, and files being written that vanish unless they are finished."""

import errno
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from io import FileIO
from pathlib import Path
from typing import Any, TypeVar

from cachetools import LRUCache

from shardkit.errors import IntegrityError, StorageError
from shardkit.storage.regular import descriptor

_OPEN = 128  # on a network mount an open costs as much as reading a megabyte
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


T = TypeVar("T")


class Threads:
    """Runs functions on a few daemon threads, made as they are needed.

    Not a ThreadPoolExecutor: an interpreter waits for that one's threads when it ends, and a read from a hung network
    mount never returns.
    """

    def __init__(self, count: int, name: str) -> None:
        self._count, self._name = count, name
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None] = (
            queue.SimpleQueue()
        )
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[..., T], *arguments: Any) -> "Future[T]":
        """Run a function; the future has its result."""
        future: Future[T] = Future()
        self._jobs.put((future, function, arguments))
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._count:
            thread = threading.Thread(target=self._work, name=f"{self._name}_{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def share(self, function: Callable[[int], object], count: int) -> "list[Future[None]]":
        """Call a function with 0 to `count` - 1, whichever thread is free with the next number.

        Returns
        -------
        list of Future
            One for each thread that takes part; when all are done, all calls are. What a call raises ends its thread's
            part, and its future has it.
        """
        left = deque(range(count))

        def take() -> None:
            while left:
                try:
                    number = left.popleft()
                except IndexError:  # another thread was quicker
                    return
                function(number)

        return [self.submit(take) for _ in range(min(count, self._count))]

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            future, function, arguments = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(function(*arguments))
                except BaseException as error:  # it is the caller's
                    future.set_exception(error)
            del job, future
            self._idle.release()

    def close(self, wait: float = 0.0) -> None:
        """End the threads, those that hang excepted; wait for them for so many seconds at most."""
        for _ in self._threads:
            self._jobs.put(None)
        until = time.monotonic() + wait
        for thread in self._threads if wait else ():
            thread.join(max(0.0, until - time.monotonic()))


class Files:
    """Reads ranges of a folder's files, from any thread. One that is replaced or deleted stays readable while open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files: LRUCache[str, FileIO] = LRUCache(_OPEN)
        self._lock = threading.Lock()

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read a range.

        After an error the file is opened anew: it may have been replaced, and a handle on a network mount go stale.

        Parameters
        ----------
        name : str
            Path below the folder.
        start, length : int
            First byte, and bytes.

        Raises
        ------
        OSError
            Where it cannot be read.
        IntegrityError
            Where the file ends before.
        """
        try:
            return _read(self._open(name), self._root / name, start, length)
        except (OSError, IntegrityError):
            self.forget(name)
            raise

    def _open(self, name: str) -> FileIO:
        with self._lock:
            if name in self._files:
                return self._files[name]
        file = _Shared(descriptor(self._root, name))
        with self._lock:
            self._files[name] = file
        return file

    def forget(self, name: str) -> None:
        """Open the file anew next time."""
        with self._lock:
            self._files.pop(name, None)

    def close(self) -> None:
        """Close all of them."""
        with self._lock:
            self._files.clear()


class _Shared(FileIO):
    """Is closed when nobody holds it any more: a thread may still read what `Files` has let go."""

    def __del__(self) -> None:
        self.close()  # here, lest Python warns that nobody did


class AnonymousFile:
    """A file being written in a folder. It has no name, and vanishes even if its process is killed, until `publish`.

    Calls exclude each other, so that it may be closed while threads still write: what they write then is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self._lock = threading.Lock()
        self._open = True
        try:
            self._file = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o644)
        except OSError as error:
            if error.errno not in _UNSUPPORTED or not folder.is_dir():
                raise
            raise StorageError(f"{folder}: this filesystem has no unnamed files; use a folder on another") from None

    def write(self, data: bytes, start: int) -> None:
        """Write bytes from `start` on; OSError where the disk does not take them."""
        view = memoryview(data)
        with self._lock:
            while view and self._open:
                done = os.pwrite(self._file, view, start)
                view, start = view[done:], start + done

    def read(self, start: int, length: int) -> bytes:
        """Read at most `length` bytes from `start`; none once closed."""
        with self._lock:
            return os.pread(self._file, length, start) if self._open else b""

    def publish(self, path: Path) -> None:
        """Give it a name, which must be free."""
        with self._lock:
            # Only with some src_dir_fd does Python follow the link in /proc to the file (gh-81793).
            os.link(f"/proc/self/fd/{self._file}", path, src_dir_fd=self._file, follow_symlinks=True)

    def close(self) -> None:
        """Without `publish`, the end of it."""
        with self._lock:
            if self._open:
                os.close(self._file)
            self._open = False


def read_once(path: Path, start: int, length: int) -> bytes:
    """Read a range as `Files.read` does, of a file that others may delete: an open file would keep its space."""
    with FileIO(path) as file:
        return _read(file, path, start, length)


def cut_short(where: str, end: int) -> IntegrityError:
    """Make the error for an object that ends before byte `end`."""
    return IntegrityError(f"{where} ends before byte {end:,}: it is cut short; run verify")


def _read(file: FileIO, path: Path, start: int, length: int) -> bytes:
    data = os.pread(file.fileno(), length, start)
    if len(data) == length:  # nearly always: no copy
        return data
    parts, got = [data], len(data)
    while got < length and parts[-1]:
        parts.append(os.pread(file.fileno(), length - got, start + got))
        got += len(parts[-1])
    if got < length:
        raise cut_short(str(path), start + length)
    return b"".join(parts)
