"""Opens an object of a local dataset: a regular file that lies in it, whatever a dataset made by others names or links.

A FIFO would hold up who opens it, a device gives bytes without end, and a link may lead to files that are not the
dataset's. The dataset's own folder may be a link, or lie below one: who typed its name knows where it leads.
"""

import errno
import os
import stat
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from shardkit.errors import IntegrityError

ANEW = "copy the dataset again, or build it anew elsewhere"
_NO_FILE = {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ENXIO, errno.ENODEV}  # which no waiting changes


def check_name(where: str, name: str) -> None:
    """Raises IntegrityError for the name of an object that would lie outside of the store at `where`."""
    if name.startswith("/") or "\0" in name or ".." in PurePosixPath(name).parts:
        raise IntegrityError(f"{where}: {name[:200]!r} names an object outside the dataset; {ANEW}")


def descriptor(root: Path, name: str) -> int:
    """A file descriptor to read the object from. Raises IntegrityError for all but a file in `root`, OSError."""
    check_name(str(root), name)
    try:
        found = os.open(root / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise IntegrityError(f"{root / name} is no regular file; {ANEW}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise IntegrityError(f"{root / name} is no regular file; {ANEW}")
        _check_inside(root, name, found)
    except BaseException:
        os.close(found)
        raise
    return found


def opened(root: Path, name: str) -> BinaryIO:
    """The object as a file to read. Raises as `descriptor`."""
    return os.fdopen(descriptor(root, name), "rb")


def size(root: Path, name: str) -> int:
    """Bytes of the object. Raises as `descriptor`."""
    with opened(root, name) as file:
        return os.fstat(file.fileno()).st_size


def _check_inside(root: Path, name: str, found: int) -> None:
    """By where the file is that was opened, which no later change of a link alters."""
    there = str(Path(f"/proc/self/fd/{found}").readlink())
    if not there.startswith(f"{root}/") and not there.startswith(os.path.realpath(root) + "/"):
        raise IntegrityError(f"{root / name} is a link out of the dataset: put the file in its place, or {ANEW}")
