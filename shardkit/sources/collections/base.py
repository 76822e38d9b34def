"""What is known of a public collection: `Collection`, and `Tree`, a copy of one as it lies on a disk or in a bucket."""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError, Quarantined
from shardkit.labels.rows import LabelRows
from shardkit.sources import tables
from shardkit.sources.entries import Entry
from shardkit.sources.facts_table import FactsTable, made
from shardkit.sources.files import FileTree
from shardkit.storage import shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A table of a collection.

    Attributes
    ----------
    name : str
        As it is published.
    pattern : str
        Regular expression of the names that it has in one release or another; packed by gzip or not.
    about : str
        What it says.
    also : tuple of str
        Other names that it has, to be shown: some of those that the pattern finds.
    lost : str
        What there is not, or not all of, without it.
    needed : bool
        Whether the collection cannot be built without it.
    filled, columns : tuple of str
        Columns that it must have; of the first, no cell may be blank.
    others : bool
        Whether other columns are read, too.
    header : tuple of str
        What to call the columns of a table without a header.
    """

    name: str
    pattern: str
    about: str
    also: tuple[str, ...] = ()
    lost: str = ""
    needed: bool = True
    filled: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    others: bool = False
    header: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """Its name, and others that it has."""
        return f"{self.name} (or {', '.join(self.also)})" if self.also else self.name


class Tree:
    """A copy of a collection: the paths of its files, and its tables.

    Parameters
    ----------
    files : FileTree
        Where it lies.
    entries : iterable of Entry
        What lies there, archives' members among them.

    Attributes
    ----------
    digests : list of str
        SHA-256 of the tables that were read.
    """

    def __init__(self, files: FileTree, entries: Iterable[Entry]) -> None:
        found = [(one.path, one.name) for one in entries if one.kind == "file"]
        self._files = files
        self._stored = pa.array([path for path, _ in found], pa.binary())
        self.paths = pa.array([name for _, name in found], pa.binary())
        self.digests: list[str] = []
        self._kept: dict[str, pa.Table | None] = {}

    @property
    def place(self) -> str:
        """The place, as it may be shown."""
        return shown(self._files.url)

    def images(self, pattern: str) -> list[str]:
        """Return the paths, unpacked, that a regular expression finds."""
        return [path.decode("utf-8", "surrogateescape") for path in self._matching(pattern, self.paths)]

    def count(self, pattern: str) -> int:
        """Return how many paths a regular expression finds."""
        return len(self._matching(pattern, self.paths))

    def table(self, published: Published) -> pa.Table | None:
        """Read a table of the collection; None where it is not there, and not needed.

        Raises
        ------
        ArgumentError
            Where it is needed and not there, is there twice, cannot be read, lacks a column, or has a blank cell where
            none may be.
        """
        if published.pattern not in self._kept:
            data = self.data(published)
            self._kept[published.pattern] = None if data is None else _checked(published, data)
        return self._kept[published.pattern]

    def needed(self, published: Published) -> pa.Table:
        """Read a table without which nothing can be built, as `table` does."""
        table = self.table(replace(published, needed=True))
        assert table is not None  # or it was refused
        return table

    def rows(self, reference: list[str], values: pa.Table, **about: Any) -> LabelRows:
        """Return a table of labels by path, or by what `about` says (see `LabelRows`)."""
        return LabelRows(reference=reference, values=values, sources=tuple(self.digests), **({"by": "path"} | about))

    def lines(self, published: Published) -> list[str]:
        """Return the lines of a list of the collection that hold text; none where it is not there, and not needed."""
        text = (self.data(published) or b"").decode("utf-8", "replace")
        return [line.strip() for line in text.splitlines() if line.strip()]

    def data(self, published: Published) -> bytes | None:
        """Return the bytes of a file of the collection, as `table` does."""
        found = self._named(published)
        found.sort(key=lambda path: (path.count(b"/"), path))
        if not found:
            if published.needed:
                named = f", under that name or {' or '.join(published.also)}" * bool(published.also)
                raise ArgumentError(
                    f"--source {self.place} has no {published.name} ({published.about}): put it beside the images"
                    + named
                )
            return None
        if len(found) > 1 and found[0].count(b"/") == found[1].count(b"/"):
            raise ArgumentError(
                f"--source {self.place} has {len(found)} tables that may be {published.name}: leave the one that counts"
            )
        try:
            data = self._files.read(found[0])
        except Quarantined as error:
            raise ArgumentError(f"{published.name} in --source {self.place}: {error.message}") from None
        if (digest := hashlib.sha256(data).hexdigest()) not in self.digests:
            self.digests.append(digest)
        return data

    def has(self, published: Published) -> bool:
        """Return whether a table, or list, of the collection is there."""
        return bool(self._named(published))

    def _named(self, published: Published) -> list[bytes]:
        return self._matching(rf"(?i)(^|/)({published.pattern})(\.gz)?$", self._stored)

    @staticmethod
    def _matching(pattern: str, paths: pa.Array) -> list[bytes]:
        return list(paths.filter(pc.match_substring_regex(paths, pattern=pattern.encode())).to_pylist())


def _checked(published: Published, data: bytes) -> pa.Table:
    """Read a table that has what it should."""
    wanted = (*published.filled, *published.columns)
    table = tables.read(data, published.name, published.header or None, None if published.others else wanted)
    if missing := [name for name in wanted if name not in table.column_names]:
        raise ArgumentError(f"{published.name} has no column {', '.join(missing)}: is it the table that was published?")
    for name in published.filled:
        if table[name].null_count:
            row = int(pc.index(table[name].is_null(), value=True).as_py())
            row += 1 if published.header else tables.FIRST_ROW
            raise ArgumentError(f"{published.name}, row {row:,}, column {name} is empty: fetch the table again")
    return table


Columns = Mapping[str, pa.Array | pa.ChunkedArray | list[str | None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A public collection, as data.

    Attributes
    ----------
    name, title : str
        What it is called on the command line, and by those who made it.
    layout : tuple of str
        Examples of its paths, as published.
    images : str
        Regular expression that finds the paths of its images, wherever its folders lie. All else in the tree is
        `not_in_collection`.
    tables : tuple of Published
        Its tables.
    facts : callable
        Takes a `Tree` and returns columns of text: `path`, and facts of `shardkit.sources.facts_table.FIELDS`.
    labels : callable
        Takes a `Tree` and returns tables of labels by name.
    always : mapping of str to str
        Facts that hold for each image.
    modalities : tuple of str
        What made its images, as DICOM codes: a build takes them. None where that is not published.
    image_files : bool
        Whether its images are PNG, JPEG or NIfTI files, not DICOM.
    expected : mapping of str to int
        Published counts.
    traps : tuple of str
        What is known to go wrong with it, and what is done about it here.
    terms : str
        A hint at its licence: who builds it has agreed to the terms that it is given out under.
    citation : str
        Whom to name.
    """

    name: str
    title: str
    layout: tuple[str, ...]
    images: str
    tables: tuple[Published, ...]
    facts: Callable[[Tree], Columns]
    labels: Callable[[Tree], dict[str, LabelRows]]
    always: Mapping[str, str] = field(default_factory=dict)
    modalities: tuple[str, ...] = ()
    image_files: bool = True
    expected: Mapping[str, int]
    traps: tuple[str, ...]
    terms: str
    citation: str

    def told(self, tree: Tree) -> FactsTable:
        """Return the facts of a copy of the collection, by path.

        Raises
        ------
        ArgumentError
            For a tree that is not this collection, or lacks a table, or has one that cannot be read.
        """
        if not tree.count(self.images):
            raise ArgumentError(
                f"--source {tree.place} holds no image of {self.name} (such as {self.layout[0]}):"
                f" `shardkit collections {self.name}` says what is expected"
            )
        columns = {name: _column(values) for name, values in self.facts(tree).items()}
        return made(self.name, columns, tuple(tree.digests))

    def here(self, tree: Tree) -> list[str]:
        """Say what a copy holds, once its facts and labels were read: tables, those that it lacks, images."""
        said, read = [], len(tree.digests)
        if read:
            said.append(f"{read} table{'s' * (read > 1)} of {self.name} {'were' if read > 1 else 'was'} read")
        if lacking := self._lacking(tree):
            said.append(lacking)
        images, published = tree.count(self.images), self.expected["images"]
        if images < published:
            said.append(f"{images:,} of the {published:,} images of {self.name} are here")
        return said

    def _lacking(self, tree: Tree) -> str:
        """Say which tables that need not be there are not, and what is lost; a part where others have the rest."""
        there = {one.lost for one in self.tables if tree.has(one)}
        gone = [one for one in self.tables if not one.needed and one.lost and not tree.has(one)]
        if not gone:
            return ""
        *first, last = (one.name for one in gone)
        names = f"{', '.join(first)} and {last}" if first else last
        lost = dict.fromkeys(f"{'only a part of the' if one.lost in there else 'no'} {one.lost}" for one in gone)
        return f"{names} {'are' if first else 'is'} not there: {', '.join(lost)}"


def _column(values: pa.Array | pa.ChunkedArray | list[str | None]) -> pa.Array:
    if isinstance(values, list):
        return pa.array(values, pa.string())
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def part(pattern: str, paths: list[str]) -> list[re.Match[str]]:
    """Return what a regular expression finds in each path; paths that it does not find are left out."""
    return [match for path in paths if (match := re.search(pattern, path))]
