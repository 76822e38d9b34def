"""Locks on folders, which vanish with the process that holds them."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def lock(folder: Path) -> int | None:
    """Lock a folder without waiting.

    Returns
    -------
    int or None
        Descriptor to `unlock`; None if another process holds the folder or removes it.

    Raises
    ------
    OSError
        Where the folder cannot be locked.
    """
    held = False
    try:
        found = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(found, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.path.samestat(os.fstat(found), folder.stat())  # else it was removed, and maybe made anew, between
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        if not held:
            unlock(found)
    return found if held else None


def unlock(held: int) -> None:
    """Give a lock back."""
    with suppress(OSError):  # a filesystem without locks
        fcntl.flock(held, fcntl.LOCK_UN)  # closing alone would not, had a child been forked meanwhile
    os.close(held)


def release(folder: Path, held: int) -> None:
    """Unlock a folder, removing it first if it is empty."""
    with suppress(OSError):
        folder.rmdir()
    unlock(held)
