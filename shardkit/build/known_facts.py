"""What a build knows of files from a table: joined when the source is listed, said at the end, kept as labels' splits.

A collection gives its own table; `--facts` names one. Only the process that lists has it: each entry carries its row.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.build.scan import parts
from shardkit.build.scan_rows import path_hash
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.labels.joining.join import NoMatch, label
from shardkit.labels.rows import LabelRows
from shardkit.sources.base import ImageSource
from shardkit.sources.collections import Collection, Tree, collection
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.sources.facts_join import Match, as_numbers, match
from shardkit.sources.facts_table import FactsTable, read_facts
from shardkit.storage import Store, is_remote, local_path
from shardkit.terminal.words import counted

SPLITS = "facts"
"""Name of the table of labels that keeps the official split of a table of facts."""
_ABSENT, _OUTSIDE, _AMBIGUOUS = -1, -2, -3
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class _Block:
    """Some files that were listed one after another: their rows and paths."""

    number: int
    rows: list[dict[str, Any]]
    paths: list[bytes]


def _listed(entries: Iterable[Entry]) -> tuple[pa.Array, pa.Array, npt.NDArray[np.uint64]]:
    """Return the paths of files, those that they have unpacked, and hashes of the first; a few at a time as objects."""
    kind = pa.binary()
    stored, names, hashes = [pa.array([], kind)], [pa.array([], kind)], [np.zeros(0, np.uint64)]
    for some in parts((one for one in entries if one.kind == "file"), 16 * _BLOCK):
        stored.append(pa.array([one.path for one in some], kind))
        names.append(pa.array([one.name for one in some], kind))
        hashes.append(np.fromiter((path_hash(one.path) for one in some), np.uint64, len(some)))
    return pa.concat_arrays(stored), pa.concat_arrays(names), np.concatenate(hashes)


class KnownFacts:
    """Facts of the files of a source.

    Parameters
    ----------
    entries : iterable of Entry
        What the source lists.
    table : FactsTable
        What is said, by path.
    root : str
        The place of the files, which paths of the table may begin with.
    known : Collection, optional
        The collection that the source is a copy of: what is no image of it is left out.
    labels : mapping of str to LabelRows
        Tables of labels that come with the facts.
    said : sequence of str
        What to say first at the end.
    own : bytes, optional
        Path of the table itself, where it lies among the files: it is no image, and needs no row.

    Attributes
    ----------
    rows, files : dict of str to int
        How many are matched, ambiguous and unmatched.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        table: FactsTable,
        root: str = "",
        known: Collection | None = None,
        labels: Mapping[str, LabelRows] | None = None,
        said: Sequence[str] = (),
        own: bytes | None = None,
    ) -> None:
        self._labels, self._said = dict(labels or {}), list(said)
        stored, names, hashes = _listed(entries)
        inside = np.ones(len(names), bool)
        if known is not None:
            inside = pc.match_substring_regex(names, pattern=known.images).to_numpy(zero_copy_only=False).astype(bool)
        if own is not None:
            inside &= pc.not_equal(stored, pa.scalar(own, pa.binary())).to_numpy(zero_copy_only=False).astype(bool)
        self._always = {} if known is None else dict(known.always)
        self._known, self._table = known is not None, table
        self._columns = [name for name in table.table.column_names if name not in ("path", "split")]
        joined = _matched(table, names, stored, inside, root)
        self._row = np.where(inside, np.where(joined.ambiguous, _AMBIGUOUS, joined.row), _OUTSIDE)
        self._stored, self._last = stored, -1
        self._place = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._place]
        self._block = _Block(-1, [], [])
        self.rows, self.files = joined.rows, joined.files

    def of(self, entry: Entry) -> Entry:
        """Return an entry with what the table says of it."""
        if entry.kind != "file":
            return entry
        place = self._placed(entry.path)
        row = _ABSENT if place is None else int(self._row[place])
        if row == _OUTSIDE:
            return replace(entry, kind="outside" if self._known else "table")
        if row == _AMBIGUOUS:
            return replace(entry, kind="ambiguous")
        if place is None or row == _ABSENT:
            return _with(entry, self._always) if self._known else entry
        return _with(entry, self._always | self._told(place))

    def _placed(self, path: bytes) -> int | None:
        """Return a file's number in the listing; None for one that came since. Mostly it is the next one."""
        number, at = divmod(self._last + 1, _BLOCK)
        if self._block.number == number and self._block.paths[at : at + 1] == [path]:
            self._last += 1
            return self._last
        value = np.uint64(path_hash(path))
        at = int(np.searchsorted(self._hashes, value))
        if at == len(self._hashes) or self._hashes[at] != value:
            return None
        self._last = int(self._place[at])
        return self._last

    def _told(self, place: int) -> dict[str, Any]:
        """Return the row of a file. Files come as they are listed: rows become Python values some at a time."""
        if not self._columns:  # Arrow has no rows without columns
            return {}
        number, at = divmod(place, _BLOCK)
        if self._block.number != number:
            some = slice(number * _BLOCK, (number + 1) * _BLOCK)
            rows = self._row[some]
            taken = self._table.table.select(self._columns).take(pa.array(rows, mask=rows < 0))
            self._block = _Block(number, taken.to_pylist(), self._stored[some].to_pylist())
        return {name: value for name, value in self._block.rows[at].items() if value is not None}

    def finish(self, store: Store, config: BuildConfig) -> tuple[str, ...]:
        """Write the labels of a build that has ended, and say what became of all rows.

        Raises
        ------
        ArgumentError, StorageError
            Where labels cannot be joined or written.
        """
        samples = contents.samples(store, ["flags"])
        said = [*self.joined(), *_unknown(samples)]
        for name, rows in self._labels.items() if samples.num_rows else ():
            try:
                found = label(config.out, name, rows, config.private)
            except NoMatch as error:
                said.append(f"labels {name} were not written: {error}")
                continue
            said.append(
                f"labels {name}: samples with a row {found.samples:,}, without {found.unlabelled:,};"
                f" {_outcome(found.outcome.rows, 'by their samples')}"
            )
            if found.outcome.lost:
                why = ", ".join(f"{reason} {count:,}" for reason, count in found.outcome.lost.items())
                said[-1] += f" ({why})"
            if found.conflicts:
                said.append(
                    f"labels {name}: left blank, as they contradict those of an equal image: {len(found.conflicts):,}"
                )
        return tuple(said)

    def joined(self) -> list[str]:
        """Say what is here, what became of all rows and files, and of cells that were not understood."""
        name, rows, files = self._table.name, self.rows, self.files
        said = [
            *self._said,
            f"{name}: {_outcome(rows, 'by the files that they name')}; files without a row: {files['unmatched']:,}",
        ]
        if files["ambiguous"]:
            said.append(
                f"files named by rows that differ, or that name others, too: {files['ambiguous']:,}, quarantined as"
                " facts_ambiguous; write paths below --source to tell them apart"
            )
        return said + list(self._table.remarks)


def _outcome(rows: Mapping[str, int], how: str) -> str:
    """Count rows by what became of them."""
    counts = ", ".join(f"{count:,} {what}" for what, count in rows.items())
    return f"{counted(sum(rows.values()), 'row')} {how}: {counts}"


def _unknown(samples: pa.Table) -> list[str]:
    count = pc.sum(pc.equal(samples["flags"].combine_chunks().flatten(), "missing_patient_id")).as_py()
    return [f"samples of unknown patients: {count:,}; images of one may lie in different splits"] if count else []


def _matched(table: FactsTable, names: pa.Array, stored: pa.Array, inside: Any, root: str) -> Match:
    """Join by the path that a file has unpacked, or in its archive; of files that unpack to one, each gets the row."""
    coded = pc.if_else(pa.array(inside), names, pa.scalar(None, pa.binary())).dictionary_encode()
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    said = table.table["path"].combine_chunks()
    if not stored.equals(names):
        unpacked = names.take(pc.index_in(said.cast(pa.binary()), value_set=stored)).cast(pa.string())
        said = pc.coalesce(unpacked, said)
    found = match(said, as_numbers(table.table.drop_columns("path")), coded.dictionary, root)
    return found.spread(codes)


def _with(entry: Entry, said: Mapping[str, Any]) -> Entry:
    values = {name: value for name, value in said.items() if not name.startswith("spacing_")}
    if "spacing_row" in said or "spacing_col" in said:
        row, col = said.get("spacing_row"), said.get("spacing_col")
        values["spacing"] = (row or col, col or row)
    return Entry(entry.path, entry.size, entry.kind, entry.part, entry.unpacked, FactsRow(**values))


def known_facts(
    source: ImageSource, url: str, name: str | None, facts: str | Path | None, columns: Mapping[str, str] | None
) -> KnownFacts | None:
    """Return what a table says of the files of a build, or of a scan; None for one without a table.

    Parameters
    ----------
    source : ImageSource
        The files.
    url : str
        Where they lie, as it was named.
    name : str or None
        The collection that they are.
    facts : str, Path or None
        A table of facts.
    columns : mapping of str to str or None
        What it calls its columns.

    Raises
    ------
    ArgumentError
        For a table or tree that cannot be used, or of which nothing fits the source.
    StorageError
        Where the source cannot be listed.
    """
    if name is not None and facts is not None:
        raise ArgumentError("--collection has facts of its own: leave out --facts, or --collection")
    if name is not None:
        return _of_collection(collection(name), source)
    if facts is None:
        if columns:
            raise ArgumentError("--facts-columns names columns of a table: name the table with --facts")
        return None
    table = read_facts(facts, columns)
    root = "" if is_remote(url) else str(local_path(url).absolute())
    known = KnownFacts(source.list(), table, root, labels=_splits(table), own=_below(str(facts), url))
    if not known.rows["matched"] and not known.rows["ambiguous"]:
        raise ArgumentError(
            f"no row of {table.name} names a file of --source: write paths below it, or unique file names, and name"
            " their column with --facts-columns path=COLUMN"
        )
    return known


def _below(facts: str, url: str) -> bytes | None:
    """Return the path of a table below the source, as its files are listed; None where it lies elsewhere."""
    if is_remote(url) or is_remote(facts):
        inside = facts.startswith(f"{url.rstrip('/')}/")
        return facts[len(url.rstrip("/")) + 1 :].encode() if inside else None
    table, root = local_path(facts).resolve(), local_path(url).resolve()
    return os.fsencode(table.relative_to(root)) if table.is_relative_to(root) else None


def _splits(table: FactsTable) -> dict[str, LabelRows]:
    if "split" not in table.table.column_names:
        return {}
    paths, split = table.table["path"].to_pylist(), table.table["split"].to_pylist()
    nothing = table.table.select([])
    return {SPLITS: LabelRows(by="path", reference=paths, values=nothing, split=split, sources=table.digests)}


def _of_collection(known: Collection, source: ImageSource) -> KnownFacts:
    entries = list(source.list())
    tree = Tree(source.files, entries)
    table = known.told(tree)
    labels = {name: replace(rows, collection=known.name) for name, rows in known.labels(tree).items()}
    return KnownFacts(entries, table, known=known, labels=labels, said=known.here(tree))
