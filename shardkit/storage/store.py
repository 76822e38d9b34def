"""A place for named byte objects: a local directory or a bucket (S3, GCS, Azure, HTTP, memory) behind one small class.

An object appears whole or not at all: locally by fsync and rename, remotely because a put is atomic. Credentials come
from the environment, as each cloud's own tools read them, and never appear in a message, nor do those in a url.
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import Any

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError

from shardkit.errors import IntegrityError, StorageError
from shardkit.storage import regular, remote
from shardkit.storage.remote import is_remote as is_remote
from shardkit.storage.remote import shown as shown

NO_RETRIES: dict[str, Any] = {"retry_config": {"max_retries": 0}}
"""Options of a client whose failures are told at once, for callers who wait themselves."""
AWAY = (
    errno.ENOTCONN, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETUNREACH,
    errno.ENETDOWN, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED, errno.EREMOTEIO,
)  # fmt: skip
"""Errors of a mounted share that is away; a disk's own, as of a bad sector, are others."""


def local_path(url: str) -> Path:
    """The path of a local url, file:// stripped."""
    return Path(url.removeprefix("file://"))


class Store:
    """Named objects under one root. Names are relative posix paths.

    url: of messages and records, without any credentials that it was given with. options: of the client of a bucket.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self._given = url.rstrip("/") if is_remote(url) else str(local_path(url).absolute())
        self.root = None if is_remote(url) else Path(self._given)
        self.url = shown(self._given).rstrip("/") if self.root is None else self._given
        self._store: Any = None
        self._options = options

    @property
    def remote(self) -> Any:
        """The obstore store behind a remote url, opened on first use (never carried across processes)."""
        remote.check_process()
        if self._store is None:
            self._store = self.opened(**self._options)
        return self._store

    def opened(self, **options: Any) -> Any:
        """The obstore store, opened anew with options of its own. Raises ArgumentError, StorageError."""
        with translate_errors(self.url):
            return remote.opened(self._given, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    def get(self, name: str, most: int | None = None) -> bytes:
        """The whole object. Raises StorageError, and IntegrityError for no file of the store, or above `most`."""
        with translate_errors(f"{self.url}/{name}"):
            regular.check_name(self.url, name)
            if self.root is not None:
                with regular.opened(self.root, name) as file:
                    self._check_size(name, os.fstat(file.fileno()).st_size, most)
                    return file.read()
            found = obstore.get(self.remote, name)
            self._check_size(name, int(found.meta["size"]), most)
            return bytes(found.bytes())

    def _check_size(self, name: str, size: int, most: int | None) -> None:
        if most is not None and size > most:
            raise IntegrityError(f"{self.url}/{name} has {size:,} bytes, more than it can have: {regular.ANEW}")

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Exactly `length` bytes from `start`. Raises StorageError when the object is shorter."""
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
        """Bytes of an object. Raises StorageError."""
        with translate_errors(f"{self.url}/{name}"):
            regular.check_name(self.url, name)
            if self.root is not None:
                return regular.size(self.root, name)
            return int(obstore.head(self.remote, name)["size"])

    def put(self, name: str, data: bytes) -> None:
        """Write an object whole. Raises StorageError."""
        with translate_errors(f"{self.url}/{name}", writing=True):
            if self.root is None:
                obstore.put(self.remote, name, data)
                return
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
            with temporary.open("wb") as file:
                file.write(data)
            publish(temporary, target)

    def put_file(self, name: str, path: Path) -> None:
        """Move the local file `path` in as an object; it must lie on the same filesystem as a local store."""
        with translate_errors(f"{self.url}/{name}", writing=True):
            if self.root is None:
                obstore.put(self.remote, name, path)
                path.unlink()
                return
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            publish(path, target)

    def sweep(self) -> None:
        """Remove what interrupted puts left in a local store."""
        if self.root is not None:
            ours = [self.root.glob(f".{name}.*.tmp") for name in ("dataset.json", "manifest.parquet", "zarr.json")]
            folders = [self.root / "shards", self.root / "report", *self.root.glob("[0-9]*x[0-9]*")]
            ours += [folder.rglob(".*.tmp") for folder in folders]
            for path in chain.from_iterable(ours):
                path.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        with translate_errors(f"{self.url}/{name}", writing=True):
            if self.root is not None:
                (self.root / name).unlink(missing_ok=True)
                return
            try:
                obstore.delete(self.remote, name)
            except FileNotFoundError:
                pass

    def exists(self, name: str) -> bool:
        """Whether an object is there. Raises StorageError when the store does not answer."""
        with translate_errors(f"{self.url}/{name}"):
            if self.root is not None:
                return (self.root / name).is_file()
            try:
                obstore.head(self.remote, name)
            except FileNotFoundError:
                return False
            return True

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """(name, bytes) of every object below the folder `prefix`, sorted by name; temporary files are left out."""
        with translate_errors(f"{self.url}/{prefix}".rstrip("/")):
            if self.root is not None:
                yield from sorted((p.relative_to(self.root).as_posix(), size) for p, size in _files(self.root / prefix))
                return
            for batch in obstore.list(self.remote, prefix=prefix):
                for item in batch:
                    yield item["path"], item["size"]


def _files(base: Path) -> Iterator[tuple[Path, int]]:
    """(path, bytes) of every file below a folder, but for what vanishes meanwhile, as files of a running build do."""
    for folder, _, names in os.walk(base):
        for path in (Path(folder, name) for name in names if not name.endswith(".tmp")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            if S_ISREG(stat.st_mode):
                yield path, stat.st_size


def publish(temporary: Path, target: Path) -> None:
    """Make a written file durable, then visible."""
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


def no_folder(path: Path) -> str:
    """What to say of a folder that is not there, naming one beside it with nearly its name; empty if it is there."""
    if path.is_dir():
        return ""
    if path.exists():
        return f"{path} is a file, not a folder"
    try:
        beside = [p.name for p in path.parent.iterdir() if p.is_dir()]
    except OSError:
        beside = []
    near = get_close_matches(path.name, beside, 1)
    return f"the folder {path} does not exist" + (f"; there is {path.parent / near[0]}" if near else "")


def _may_mend(error: BaseException) -> bool:
    """Whether it is worth asking again: no answer, or one of a server's own faults (5xx), or that it is busy."""
    if isinstance(error, OSError):  # of a mounted share; a disk's own errors stay
        return error.errno in AWAY
    said = str(error)
    return not re.search(r"\b(3\d\d|4(?!08|25|29)\d\d) [A-Z]|redirect|certificate|builder error", said)


@contextmanager
def translate_errors(where: str, writing: bool = False) -> Iterator[None]:
    """Turn what stores raise into one StorageError sentence, without debug dumps, passwords or signed urls.

    Parameters
    ----------
    where : str
        The file, folder or url that the sentence names.
    writing : bool
        Whether it is written to, which the sentence about missing rights says.

    Raises
    ------
    StorageError
        In place of a store's own error or an OSError; other errors pass.
    """
    try:
        yield
    except StorageError:
        raise
    except (BaseError, OSError) as error:
        raise _sentence(shown(where), "write" if writing else "read or write", error) from None


def _sentence(where: str, doing: str, error: BaseException) -> StorageError:
    said = str(error)
    if isinstance(error, PermissionError):
        return AccessRefused(f"cannot {doing} {where} as this user: change its rights, or name another place")
    if isinstance(error, NotSupportedError) or remote.advice(said):
        return Unusable(f"{where}: {reason(error)}")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or re.search(
        r"40[13] (Forbidden|Unauthorized)|AccessDenied", said
    ):
        return AccessRefused(f"{where}: access refused; check the credentials and the rights on it")
    if re.search("NoSuchBucket|NoSuchContainer|ContainerNotFound|bucket does not exist", said):
        return MissingObject(f"{where}: the bucket does not exist; check its name and the endpoint")
    if isinstance(error, FileNotFoundError):
        return MissingObject(f"{where} does not exist")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"{where}: no space left; free some and run the same command again")
    kind = Unanswered if _may_mend(error) else StorageError
    return kind(f"{where}: {reason(error)}")


class Unanswered(StorageError):
    """The store is away, or failed: the same may go well soon."""


class AccessRefused(StorageError):
    """Wrong credentials, or no right to the object."""


class MissingObject(StorageError, FileNotFoundError):
    """The object is not there."""


class Unusable(StorageError):
    """This store, as it is set up, will never do what is asked."""


def reason(error: BaseException) -> str:
    """The telling part of a store's error: its innermost message, in one line, without secrets of urls."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if advice := remote.advice(str(error)):
        return advice
    if "404 Not Found" in str(error):
        return "there is no such bucket; check its name and the endpoint"
    first = str(error).split("\n\nDebug source")[0].replace("\n", " ").strip()
    return shown(first)[:300] or type(error).__name__
