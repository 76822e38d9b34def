"""The commands of `shardkit`, by what they are about. Heavy modules are imported where they are used: help is quick."""

from pathlib import Path

from shardkit.config import cores as cores
from shardkit.errors import ArgumentError
from shardkit.terminal.output import Terminal

console = Terminal()
errors = Terminal(stderr=True)


def private_folder(out: str, private: Path | None) -> Path:
    """Return the folder of a dataset's ledger and key.

    Parameters
    ----------
    out : str
        Folder or bucket url of the dataset.
    private : Path or None
        The folder, if it was named.

    Returns
    -------
    Path
        The named folder, else `<out>.private`.

    Raises
    ------
    ArgumentError
        The dataset lies in a bucket, and no folder was named.
    """
    from shardkit.storage import is_remote, local_path

    if private is not None:
        return private
    if is_remote(out):
        raise ArgumentError(
            "--private DIR is required when --out is a bucket: keys and source paths must stay with you"
        )
    place = local_path(out)
    place = place if place.name else place.absolute()
    return place.with_name(f"{place.name}.private")
