"""What `shardkit overlap` prints: counts for each two datasets, or every pair of samples."""

from collections.abc import Iterator

from rich.table import Table

from shardkit.dataset.overlap import Overlap
from shardkit.terminal.output import Terminal
from shardkit.terminal.words import counted

_KINDS = {"equal": "equal pixels", "near": "near-duplicates", "negative": "negatives"}
_HEAD = ("dataset", "key", "split", "other_dataset", "other_key", "other_split", "kind")
_NONE = "no split"


def rows(found: list[Overlap]) -> Iterator[tuple[str, ...]]:
    """Yield a head, then every pair of samples, as words.

    Parameters
    ----------
    found : list of Overlap
        What datasets share.
    """
    yield _HEAD
    for one in found:
        for pair in one.pairs.to_pylist():
            sides = (
                one.first,
                pair["key"],
                pair["split"] or "",
                one.other,
                pair["other_key"],
                pair["other_split"] or "",
            )
            yield (*sides, pair["kind"])


def counts(one: Overlap, to: Terminal) -> None:
    """Print how many samples two datasets share, by kind and by split.

    Parameters
    ----------
    one : Overlap
        What they share.
    to : Terminal
        Where it is printed.
    """
    first, other = one.shared
    to.plain(
        f"{one.first} and {one.other}: {first:,} of {one.samples:,} samples lie in the other,"
        f" {other:,} of its {one.other_samples:,}"
    )
    if one.pairs.num_rows:
        to.plain("  " + ", ".join(f"{_KINDS[kind]} {count:,}" for kind, count in one.kinds().items() if count))
        to.plain(f"  splits: rows of {one.first}, columns of {one.other}")
        to.print(_by_split(one))
    if one.leaks:
        to.plain(f"  leak: {counted(one.leaks, 'pair')} in the train split of one and in another split of the other")
    if one.patients:
        patients = counted(one.patients, "patient")
        to.plain(f"  leak: {patients} with samples in the train split of one and in another split of the other")
    elif one.pairs.num_rows:
        to.plain("  no pair and no patient lies in the train split of one and in another split of the other")


def _by_split(one: Overlap) -> Table:
    found = one.counts()
    across, down = (sorted({splits[side] for splits in found}) for side in (1, 0))
    table = Table("", *(name or _NONE for name in across), box=None, pad_edge=False)
    for name in down:
        table.add_row(f"  {name or _NONE}", *(f"{found[name, beside]:,}" for beside in across))
    return table
