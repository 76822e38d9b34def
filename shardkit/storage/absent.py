"""Says of what is not there what may have been meant."""

from difflib import get_close_matches
from pathlib import Path


def no_folder(path: Path) -> str:
    """Say of a folder that it is not there.

    Parameters
    ----------
    path : Path
        The folder.

    Returns
    -------
    str
        Words for a message, which name a folder beside it with nearly its name; empty where the folder is there.
    """
    if path.is_dir():
        return ""
    if path.exists():
        return f"{path} is a file, not a folder"
    near = nearest(path, folders=True)
    return f"the folder {path} does not exist" + (f"; there is {near}" if near else "")


def nearest(path: Path, folders: bool = False) -> Path | None:
    """Return what lies beside a path that is not there, under nearly its name.

    Parameters
    ----------
    path : Path
        What was asked for.
    folders : bool
        Whether to look at folders alone.

    Returns
    -------
    Path or None
        The one whose name is nearest; None where none is near.
    """
    try:
        beside = [p.name for p in path.parent.iterdir() if p.is_dir() or not folders]
    except OSError:
        return None
    near = get_close_matches(path.name, beside, 1)
    return path.parent / near[0] if near else None
