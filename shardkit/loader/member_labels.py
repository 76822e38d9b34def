"""A labels table of a mixture: those of the members that have one, put together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shardkit import labels
from shardkit.errors import ArgumentError
from shardkit.labels import Kind, Labels
from shardkit.loader.splits import has_table

if TYPE_CHECKING:
    from shardkit.loader.index import Member


def joined(members: Sequence["Member"], name: str, url: str) -> Labels:
    """Put the labels of members together, a row per row of the mixture.

    Parameters
    ----------
    members : sequence of Member
        The members. Nothing is known of the samples of those without such a table.
    name : str
        The table's name.
    url : str
        The mixture, for messages.

    Raises
    ------
    ArgumentError
        No member has such a table, or a label is of several kinds.
    """
    found = {member.name: member.index.labels(name) for member in members if has_table(member, name)}
    if not found:
        there = [f"{name} of {member.name}" for member in members for name in labels.names(member.index.store)]
        known = ", ".join(there) or "none; shardkit label makes some"
        raise ArgumentError(f"no member of {url} has labels named {name}: there are {known}")
    kinds = _kinds(found, name)
    columns, rows = tuple(kinds), members[-1].rows.stop
    values, known_ = np.zeros((rows, len(columns)), np.float32), np.zeros((rows, len(columns)), np.bool_)
    split, has_row = np.full(rows, None, object), np.zeros(rows, np.bool_)
    categories = {
        column: tuple(sorted({word for of in found.values() for word in of.categories.get(column, ())}))
        for column, kind in kinds.items()
        if kind == "category"
    }
    for member in members:
        if (of := found.get(member.name)) is not None:
            here = slice(member.rows.start, member.rows.stop)
            split[here], has_row[here] = of.split, of.has_row
            for at, column in enumerate(of.columns):
                to = columns.index(column)
                known_[here, to] = of.known[:, at]
                values[here, to] = _renumbered(of, at, categories.get(column))
    return Labels(columns, values, known_, split, kinds, categories, has_row)


def _kinds(found: Mapping[str, Labels], name: str) -> dict[str, Kind]:
    """Return the kind of each label, in the order of the members; ArgumentError where they contradict one another."""
    kinds: dict[str, Kind] = {}
    for member, of in found.items():
        for column, kind in of.kinds.items():
            if kinds.setdefault(column, kind) != kind:
                other = next(m for m, one in found.items() if column in one.kinds)
                raise ArgumentError(
                    f"{column} of the labels {name} is a {kinds[column]} in {other} and a {kind} in {member}: read the"
                    " labels of one dataset at a time, or give one of the tables another name"
                )
    return kinds


def _renumbered(of: Labels, at: int, categories: tuple[str, ...] | None) -> npt.NDArray[np.float32]:
    """Return a label's values, with the numbers that its categories have here."""
    values, own = of.values[:, at], of.categories.get(of.columns[at], ())
    if categories is None or not own:
        return values
    number = np.array([categories.index(word) for word in own], np.float32)
    return np.where(of.known[:, at], number[values.astype(np.int64)], np.float32(0))
