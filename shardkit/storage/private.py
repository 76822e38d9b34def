"""The private folder is its owner's alone: 0700, its files 0600, whatever the umask and whoever made it."""

import os
from pathlib import Path
from typing import BinaryIO

from shardkit.errors import BuildError
from shardkit.storage.store import publish

_KEPT = (
    "*.json",
    "*.parquet",
    "*.key",
    ".*.tmp",
    "g[0-9]*",
    "g[0-9]*/**/*",
    "archives",
    "archives/*",
)  # what builds leave in the folder


def shut(root: Path) -> None:
    """Take others' rights from a private folder and from what builds keep in it.

    Raises
    ------
    BuildError
        The rights are not this user's to change.
    """
    try:
        for path in (root, *(path for pattern in _KEPT for path in root.glob(pattern))):
            if (mode := path.lstat().st_mode) & 0o077 and not path.is_symlink():
                path.chmod(mode & 0o700)
    except PermissionError:
        raise BuildError(
            f"--private {root} can be read by others, and its rights are not yours to change: name a folder of your own"
        ) from None


def folder(path: Path) -> None:
    """Make a folder, and those above that are missing, for its owner alone; one that is there stays as it is."""
    for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
        missing.mkdir(mode=0o700, exist_ok=True)


def create(path: Path) -> BinaryIO:
    """Open a new file that only its owner may read, for writing; one that is there is replaced."""
    path.unlink(missing_ok=True)  # it may have other rights
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def write(path: Path, data: bytes) -> None:
    """Replace a file, whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with create(temporary) as file:
        file.write(data)
    publish(temporary, path)
