"""`<run>/best`: the checkpoint that a run has chosen, in the format of the others and, by links, of their files."""

import os
import shutil
from pathlib import Path
from typing import Final

from shardkit.errors import StorageError

NAME: Final = "best"


def keep(run: Path, checkpoint: Path) -> None:
    """Make a checkpoint the chosen one; it stays when those of `checkpoints` are pruned.

    All of it is there before it takes the name. A run that is killed in between makes it again when it goes on.

    Parameters
    ----------
    run
        Folder of the run.
    checkpoint
        A whole one.

    Raises
    ------
    StorageError
        Where it cannot be written.
    """
    best = run / NAME
    part = best.with_suffix(".part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(checkpoint, part, copy_function=_linked)
        if best.exists():
            shutil.rmtree(best)
        part.rename(best)
    except (OSError, shutil.Error) as error:
        raise StorageError(f"{best} cannot be written: {error}; free some space and run it again") from error


def run_of(checkpoint: Path) -> Path:
    """Return the folder of the run that a checkpoint is of."""
    return checkpoint.parent if checkpoint.name == NAME else checkpoint.parent.parent


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # of a filesystem without links
        shutil.copy2(source, target)
