"""What a new version of labels does to the one that it takes the place of: whose it is, and what is lost."""

from collections.abc import Sequence

from shardkit.errors import ArgumentError
from shardkit.labels.base import SPLIT, LabelTable
from shardkit.terminal.words import counted

_NAMED = 10  # labels that are named


def require_replaceable(before: LabelTable | None, collection: str | None) -> None:
    """Refuse to put a table of anyone's in the place of labels that a build writes.

    Parameters
    ----------
    before : LabelTable or None
        The version there.
    collection : str or None
        The collection that the new rows belong to.

    Raises
    ------
    ArgumentError
        The version there belongs to a collection, and the rows to none.
    """
    if before is not None and before.description.collection is not None and collection is None:
        name, owner = before.description.name, before.description.collection
        raise ArgumentError(
            f"labels {name} are written by the build of the collection {owner}: take another --name, or remove them"
            " first with shardkit unlabel"
        )


def losses(before: LabelTable, after: LabelTable) -> str:
    """Say what a version has that the next one has not, and which labels change their kind.

    Parameters
    ----------
    before, after : LabelTable
        The two versions.

    Returns
    -------
    str
        The end of a sentence; empty where nothing is lost.
    """
    was, now = before.description.kinds, after.description.kinds
    gone = []
    if _has_split(before) and not _has_split(after):
        gone.append("the official split")
    if before.boxes is not None and before.boxes.num_rows and not (after.boxes is not None and after.boxes.num_rows):
        gone.append(counted(before.boxes.num_rows, "box", "boxes"))
    if columns := [name for name in was if name not in now]:
        more = " …" * (len(columns) > _NAMED)
        gone.append(f"{counted(len(columns), 'label')} ({', '.join(columns[:_NAMED])}{more})")
    changed = [f"{name} was {was[name]}, is {now[name]}" for name in was if now.get(name, was[name]) != was[name]]
    return "; ".join([*([f"loses {_listed(gone)}"] if gone else []), *changed])


def _has_split(labels: LabelTable) -> bool:
    return bool(labels.table[SPLIT].null_count < labels.table.num_rows)


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
