"""A place for named byte objects: a local directory or a bucket (S3, GCS, Azure, HTTP, memory) behind one small class.

An object appears whole or not at all: locally by fsync and rename, remotely because a put is atomic. Credentials come
from the environment, as each cloud's own tools read them, and never appear in a message, nor do those in a url.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, cast

import obstore

from shardkit.errors import IntegrityError, StorageError
from shardkit.storage import regular, remote
from shardkit.storage.failures import translate_errors
from shardkit.storage.remote import is_remote, shown

NO_RETRIES: dict[str, Any] = {"retry_config": {"max_retries": 0}}
"""Options of a client whose failures are told at once, for callers who wait themselves."""
_SMALL = 16 << 20  # bytes of an object up to which memory may hold it while it waits


def local_path(url: str) -> Path:
    """Return the path that a local url names.

    Parameters
    ----------
    url : str
        A path, or a url that begins with file://.

    Returns
    -------
    Path
        The path.
    """
    return Path(url.removeprefix("file://"))


class Store:
    """Named objects under one root, a local folder or a bucket. Names are relative posix paths.

    All that it does raises StorageError where a store refuses, fails or is away. Names that lead out of the root, and
    what is no regular file, raise IntegrityError.

    Parameters
    ----------
    url : str
        The root, maybe with credentials, which messages never show.
    **options
        Options of obstore's client of a bucket, such as `NO_RETRIES`.

    Attributes
    ----------
    url : str
        The root, for messages and records, without credentials.
    root : Path or None
        The local folder; None for a bucket.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._given = url.rstrip("/") if is_remote(url) else str(local_path(url).absolute())
        self.root = None if is_remote(url) else Path(self._given)
        self.url = shown(self._given).rstrip("/") if self.root is None else self._given
        self._store: Any = None
        self._options = options

    @property
    def remote(self) -> Any:
        """The obstore client of a bucket, opened on first use; a process never takes it over from another."""
        remote.check_process()
        if self._store is None:
            self._store = self.opened(**self._options)
        return self._store

    def opened(self, **options: Any) -> Any:
        """Open another obstore client of the bucket, with options of its own."""
        with translate_errors(self.url):
            return remote.opened(self._given, **options)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the client out, which belongs to one process."""
        return {**self.__dict__, "_store": None}

    def get(self, name: str, most: int | None = None) -> bytes:
        """Return a whole object.

        Parameters
        ----------
        name : str
            Name of the object.
        most : int, optional
            Bytes that it may have.

        Returns
        -------
        bytes
            Its content.

        Raises
        ------
        StorageError
            It cannot be read; `MissingObject` where it is not there.
        IntegrityError
            It is larger than `most`, or is no file of the store.
        """
        with translate_errors(f"{self.url}/{name}"):
            regular.check_name(self.url, name)
            if self.root is not None:
                with regular.opened(self.root, name) as file:
                    self._check_size(name, os.fstat(file.fileno()).st_size, most)
                    return file.read()
            found = obstore.get(self.remote, name)
            self._check_size(name, int(found.meta["size"]), most)
            return bytes(found.bytes())

    def open(self, name: str) -> BinaryIO:
        """Open a whole object to read; what is large and comes from a bucket waits in a file without a name.

        Raises
        ------
        StorageError
            It cannot be read; `MissingObject` where it is not there.
        IntegrityError
            It is no file of the store.
        """
        with translate_errors(f"{self.url}/{name}"):
            if self.root is not None:
                return regular.opened(self.root, name)
            regular.check_name(self.url, name)
            file = _waiting()
            for piece in obstore.get(self.remote, name).stream():
                with translate_errors(tempfile.gettempdir(), writing=True):
                    file.write(piece)
            file.seek(0)
            return file

    def _check_size(self, name: str, size: int, most: int | None) -> None:
        if most is not None and size > most:
            raise IntegrityError(f"{self.url}/{name} has {size:,} bytes, more than it can have: {regular.ANEW}")

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return exactly `length` bytes from `start` on.

        Raises
        ------
        StorageError
            The object cannot be read, or is shorter.
        """
        with translate_errors(f"{self.url}/{name}"):
            regular.check_name(self.url, name)
            if self.root is not None:
                with regular.opened(self.root, name) as file:
                    file.seek(start)
                    data = file.read(max(0, min(length, os.fstat(file.fileno()).st_size - start)))
            else:
                data = bytes(obstore.get_range(self.remote, name, start=start, length=length))
        if len(data) != length:
            raise StorageError(f"{self.url}/{name} ends before byte {start + length:,}: it is cut short; run verify")
        return data

    def size(self, name: str) -> int:
        """Return how many bytes an object has."""
        with translate_errors(f"{self.url}/{name}"):
            regular.check_name(self.url, name)
            if self.root is not None:
                return regular.size(self.root, name)
            return int(obstore.head(self.remote, name)["size"])

    def put(self, name: str, data: bytes) -> None:
        """Write an object, which appears whole or not at all."""
        if self.root is not None:
            with self.writing(name) as file:
                file.write(data)
            return
        with translate_errors(f"{self.url}/{name}", writing=True):
            obstore.put(self.remote, name, data)

    @contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Write an object of any size piece by piece: it appears, whole, once the block has ended without an error.

        Parameters
        ----------
        name : str
            Name of the object.

        Yields
        ------
        file
            Takes its bytes. What is large and goes to a bucket waits in a file without a name on this machine.
        """
        if self.root is None:
            with translate_errors(tempfile.gettempdir(), writing=True), _waiting() as waiting:
                yield waiting
                waiting.seek(0)
                with translate_errors(f"{self.url}/{name}", writing=True):
                    obstore.put(self.remote, name, waiting)
            return
        with translate_errors(f"{self.url}/{name}", writing=True):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            try:
                with temporary.open("wb") as file:
                    yield file
                publish(temporary, target)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise

    def put_file(self, name: str, path: Path) -> None:
        """Move a local file in as an object. It must lie on the same filesystem as a local store."""
        with translate_errors(f"{self.url}/{name}", writing=True):
            if self.root is None:
                obstore.put(self.remote, name, path)
                path.unlink()
                return
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            publish(path, target)

    def sweep(self, names: Sequence[str], folders: Sequence[str]) -> None:
        """Remove what interrupted puts have left in a local store, and nothing else.

        Parameters
        ----------
        names : sequence of str
            Objects at the root.
        folders : sequence of str
            Patterns of folders at the root in which every object is the caller's.
        """
        if self.root is not None:
            left = [self.root.glob(f".{name}.*.tmp") for name in names]
            left += [folder.rglob(".*.tmp") for pattern in folders for folder in self.root.glob(pattern)]
            for path in chain.from_iterable(left):
                path.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove an object. One that is not there is no error."""
        with translate_errors(f"{self.url}/{name}", writing=True):
            if self.root is not None:
                (self.root / name).unlink(missing_ok=True)
                return
            try:
                obstore.delete(self.remote, name)
            except FileNotFoundError:
                pass

    def exists(self, name: str) -> bool:
        """Return whether an object is there."""
        with translate_errors(f"{self.url}/{name}"):
            if self.root is not None:
                return (self.root / name).is_file()
            try:
                obstore.head(self.remote, name)
            except FileNotFoundError:
                return False
            return True

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List the objects below a folder, sorted by name; temporary files are left out.

        Parameters
        ----------
        prefix : str
            Name of the folder; all objects for an empty text.

        Yields
        ------
        tuple of (str, int)
            Name and bytes of an object.
        """
        with translate_errors(f"{self.url}/{prefix}".rstrip("/")):
            if self.root is not None:
                yield from sorted((p.relative_to(self.root).as_posix(), size) for p, size in _files(self.root / prefix))
                return
            for batch in obstore.list(self.remote, prefix=prefix):
                for item in batch:
                    yield item["path"], item["size"]


def _waiting() -> BinaryIO:
    """Return a file that no killed program leaves behind; what is small stays in memory."""
    return cast(BinaryIO, tempfile.SpooledTemporaryFile(_SMALL))


def _files(base: Path) -> Iterator[tuple[Path, int]]:
    """Give (path, bytes) of every file below a folder, without what vanishes meanwhile, as in a build that runs."""
    for folder, _, names in os.walk(base):
        for path in (Path(folder, name) for name in names if not name.endswith(".tmp")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if S_ISREG(stat.st_mode):
                yield path, stat.st_size


def publish(temporary: Path, target: Path) -> None:
    """Make a written file durable, then visible under its name."""
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
