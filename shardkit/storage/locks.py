"""The kernel's lock on a folder: one process at a time, and who holds it is told to the others.

The lock is on a small file that says who its holder is. It ends with the process, however that ends, so nothing is ever
unlocked by hand; the file goes when the holder lets go, and means nothing by itself.
"""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shardkit.storage.failures import translate_errors

NAME = ".running.json"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}

Refusal = Callable[[str, str], Exception]
"""The error for a place that another holds: the place, and in brackets who that is."""


@contextmanager
def held(folder: Path, refused: Refusal, mode: int = 0o777) -> Iterator[int | None]:
    """Hold a folder on a disk against other processes.

    Parameters
    ----------
    folder : Path
        The folder, which is made where it is missing.
    refused : callable
        Makes the error for a folder that another process holds.
    mode : int
        Rights of a folder that is made.

    Yields
    ------
    int or None
        A descriptor of the locked file; None on a filesystem without locks.

    Raises
    ------
    StorageError
        The folder cannot be made.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with translate_errors(str(folder)):
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
            descriptor = _lock(folder / NAME, refused)
        try:
            yield descriptor
        finally:
            _unlock(descriptor, folder / NAME)
    finally:
        for path in missing:  # one that was refused leaves nothing
            with suppress(OSError):
                path.rmdir()


def who() -> dict[str, Any]:
    """Describe the process that runs: host, number and time."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def known(holder: dict[str, Any]) -> str:
    """Name a holder in brackets, for a sentence."""
    return f" ({holder['host']}, since {holder['since']})" if holder else ""


def _lock(path: Path, refused: Refusal) -> int | None:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):  # else its holder removed it meanwhile
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, json.dumps(who()).encode(), 0)
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise refused(str(path.parent), known(holder)) from None
        except OSError as error:
            os.close(descriptor)
            if error.errno not in _NO_LOCKS:
                raise
            return None
        os.close(descriptor)


def _holder(descriptor: int) -> dict[str, Any]:
    for _ in range(5):  # it may just be writing
        try:
            return dict(json.loads(os.pread(descriptor, 4096, 0)))
        except ValueError:
            time.sleep(0.05)
    return {}


def _unlock(descriptor: int | None, path: Path) -> None:
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - while it is held, so that nobody's else goes
    if descriptor is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing alone would not, had a child been forked meanwhile
        os.close(descriptor)
