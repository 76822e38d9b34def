"""Which samples a split has: as patients' hashes draw it ("train"), or as a labels table says ("nih14:train")."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import labels
from shardkit.dataset.schema import SPLITS
from shardkit.errors import ArgumentError
from shardkit.labels.split_names import PARTS, Choice, Split, equals
from shardkit.labels.store import object_name
from shardkit.plan.base import Batching
from shardkit.plan.samples import Samples
from shardkit.plan.spec import PlanSpec
from shardkit.terminal.words import no_such_split

if TYPE_CHECKING:
    from shardkit.loader.index import Member

Mask = npt.NDArray[np.bool_]


def spec_of(samples: Samples, split: Split | None, filtered: bool, window: int, batching: Batching) -> PlanSpec:
    """Say what decides a plan: where labels or a filter chose the samples, a digest says which."""
    chosen = samples.digest[:12]
    return PlanSpec(
        split=None if split is None else str(split),
        rows=chosen if filtered else "",
        window=window,
        batching=batching,
        labels=chosen if split is not None and split.official else "",
    )


def in_split(members: Sequence["Member"], split: Split, url: str) -> Mask:
    """Tell of each row whether it is in a split.

    Parameters
    ----------
    members : sequence of Member
        The datasets.
    split : Split
        The split.
    url : str
        Where they lie, for messages.

    Raises
    ------
    ArgumentError
        There is no such table or split.
    """
    there = [_tables(member, split) for member in members]
    for choice in split.choices:
        if choice.table and not any(choice.table in tables for tables in there):
            names = {name for member in members for name in labels.names(member.index.store)}
            known = ", ".join(sorted(names)) or "none; shardkit label makes some"
            raise ArgumentError(f"split={split}: {url} has no labels named {choice.table}: there are {known}")
    for choice in split.choices:
        if choice.table and choice.word not in SPLITS:  # a member without the table may have these
            _refuse_unknown(members, there, split, choice)
    masks, unknown = [], {choice.word for choice in split.choices if choice.table}
    for member, tables in zip(members, there, strict=True):
        found = split.of(tables) or split.elsewhere
        if found is None:
            raise ArgumentError(
                f"split={split}: {member.name} has none of these labels, and its own splits are {', '.join(SPLITS)}:"
                f" name one of its labels tables as well, or one of these, as split='{split},train'"
            )
        official = equals(_column(member, found.table), found.word)
        masks.append(official & found.of_part(_column(member, "")))
        if official.any():
            unknown.discard(found.word)
    for choice in split.choices:
        if choice.word in unknown:
            _refuse_unknown(members, there, split, choice)
    return np.concatenate(masks)


def _refuse_unknown(members: Sequence["Member"], there: Sequence[Sequence[str]], split: Split, choice: Choice) -> None:
    """Refuse a split that a labels table does not have, with those it has; `there`: tables of each member."""
    named = [member for member, tables in zip(members, there, strict=True) if choice.table in tables]
    words = {word for member in named for word in _column(member, choice.table).unique().to_pylist() if word}
    if choice.word not in words:
        raise ArgumentError(f"split={split}: {no_such_split(choice.table, choice.word, sorted(words))}")


def counts(members: Sequence["Member"], split: Split) -> dict[str, int]:
    """Count the samples by the official splits of the tables that a split names, as "nih14:train", and its parts."""
    found: dict[str, int] = {}
    parts = [choice.called(part) for choice in split.choices if choice.part for part in PARTS]
    for table in split.tables:
        for member in (member for member in members if table in _tables(member, split)):
            column = _column(member, table)
            rows = {Choice(table, row["values"]): row["counts"] for row in column.value_counts().to_pylist()}
            for part in (part for part in parts if part.table == table):
                rows[part] = int((equals(column, part.word) & part.of_part(_column(member, ""))).sum())
            for name, count in rows.items():
                if name.word is not None:
                    found[str(name)] = found.get(str(name), 0) + count
    return dict(sorted(found.items()))


def _tables(member: "Member", split: Split) -> list[str]:
    """Names of those of a split's labels tables that a dataset has."""
    return [choice.table for choice in split.choices if choice.table and has_table(member, choice.table)]


def has_table(member: "Member", name: str) -> bool:
    """Tell whether a dataset has a labels table; ArgumentError for what is no name of one."""
    return member.index.store.exists(object_name(name))


def _column(member: "Member", table: str) -> pa.ChunkedArray:
    """Return the split of each of a dataset's rows."""
    if not table:
        return pa.chunked_array([member.index.own_splits()])
    found = labels.read(member.index.store, table).table
    keys = member.index.columns("key")["key"].combine_chunks()
    return found["split"].take(pc.index_in(keys, found["key"].combine_chunks()))
