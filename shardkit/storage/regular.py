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
    """Check the name of an object.

    Parameters
    ----------
    where : str
        The store, in messages.
    name : str
        The name.

    Raises
    ------
    IntegrityError
        It would lead out of the store.
    """
    if name.startswith("/") or "\0" in name or ".." in PurePosixPath(name).parts:
        raise IntegrityError(f"{where}: {name[:200]!r} names an object outside the dataset; {ANEW}")


def descriptor(root: Path, name: str) -> int:
    """Open an object for reading.

    Parameters
    ----------
    root : Path
        Folder of the store.
    name : str
        Name of the object.

    Returns
    -------
    int
        A file descriptor.

    Raises
    ------
    IntegrityError
        It is anything but a regular file in `root`.
    OSError
        It cannot be opened.
    """
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
    """Return an object as a file to read. It raises what `descriptor` raises."""
    return os.fdopen(descriptor(root, name), "rb")


def size(root: Path, name: str) -> int:
    """Return how many bytes an object has. It raises what `descriptor` raises."""
    with opened(root, name) as file:
        return os.fstat(file.fileno()).st_size


def _check_inside(root: Path, name: str, found: int) -> None:
    """Check where the file lies that was opened, which no later change of a link alters."""
    there = str(Path(f"/proc/self/fd/{found}").readlink())
    if not there.startswith(f"{root}/") and not there.startswith(os.path.realpath(root) + "/"):
        raise IntegrityError(f"{root / name} is a link out of the dataset: put the file in its place, or {ANEW}")
