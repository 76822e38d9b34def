"""What labels say of a dataset, for its page: counts, what goes together, by split and view, and pictures by class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from shardkit import labels
from shardkit.errors import ShardkitError
from shardkit.labels import LabelTable
from shardkit.labels.summary import Summary, summarise
from shardkit.looking.pictures import LabelBox
from shardkit.report.gallery import Album, Group, Labelled, spread
from shardkit.report.numbers import number, percent
from shardkit.report.page import Card
from shardkit.report.plots import Plot, svg
from shardkit.report.theme import colour
from shardkit.terminal.words import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLASSES, A_CLASS = 16, 3
"""Classes with pictures, at most, and pictures of each."""
_ALSO = 5  # other labels in a caption, at most
_LINES, _TOGETHER, _VIEWS, _NUMBERS, _CATEGORIES = 40, 20, 4, 6, 20  # shown at most
_SPLITS = {"train": 0, "val": 1, "test": 2}  # in the order of a reader; others behind
TONES = ((0.3, "tone2"), (0.1, "tone1"), (0.0, "tone0"))  # of shares above

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Class:
    """What samples may have: a label that is 1, or a category.

    Parameters
    ----------
    name
        "Effusion", or "projection: ap".
    label
        The label's name.
    has, known
        Which samples of the table are of it, and of which that is known.
    """

    name: str
    label: str
    has: Mask
    known: Mask

    @property
    def count(self) -> int:
        """Samples of it."""
        return int(self.has.sum())


@dataclass(frozen=True, slots=True)
class Section:
    """The section of one labels table."""

    id: str
    title: str
    about: str = ""
    warnings: Sequence[str] = ()
    values: Sequence[tuple[str, float, Sequence[str]]] = ()  # label, share that is 1, cells
    categories: Sequence[Card] = ()
    numbers: Sequence[tuple[str, str, Markup]] = ()  # title, words, plot
    heads: Sequence[str] = ()
    groups: Sequence[Sequence[str]] = ()  # class, and how many of it are in each group
    together: Sequence[str] = ()
    heat: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()  # class, (count, tone) beside each other
    pictures: Sequence[Group] = ()
    left: Sequence[str] = ()  # what is not shown


def sections(album: Album) -> list[Section]:
    """Return a section for each labels table of a dataset.

    Parameters
    ----------
    album : Album
        The dataset.

    Returns
    -------
    list of Section
        By name. One that cannot be read has only a warning.
    """
    found = []
    for name in labels.names(album.store):
        place, title = f"labels-{name}", f"Labels: {name}"
        try:
            table = labels.read(album.store, name)
        except ShardkitError:  # the page tells of the others all the same
            found.append(Section(place, title, warnings=("It cannot be read: run shardkit label again.",)))
            continue
        found.append(_section(place, title, table, album))
    return found


def _section(place: str, title: str, table: LabelTable, album: Album) -> Section:
    summary = summarise(table, album.samples, album.description.digest)
    keys = table.table["key"].combine_chunks()
    at = pc.index_in(album.samples["key"].combine_chunks(), keys)
    rows = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    here = table.table.take(at.drop_null()).combine_chunks()
    classes = list(_classes(table, here))
    groups = list(_groups(album.samples.select(["split", "view"]).take(pa.array(rows)), here))
    shown = sorted(classes, key=lambda one: (one.name != one.label, -one.count, one.name))  # categories behind
    binary = [one for one in shown if one.name == one.label and one.count][:_TOGETHER]
    return Section(
        place,
        title,
        _about(summary),
        tuple(_warnings(summary)),
        tuple(_values(summary)),
        tuple(_category_cards(summary)),
        tuple(_histograms(table, here)),
        [name for name, _ in groups],
        [_by_group(one, groups) for one in shown[:_LINES]],
        [one.name for one in binary] if len(binary) > 1 else (),
        _heat(binary) if len(binary) > 1 else (),
        _by_class(album, table, [one for one in shown if one.count], rows),
        tuple(_left(table, shown, binary)),
    )


# ---------------------------------------------------------------------------------------------------- counts


def _about(summary: Summary) -> str:
    described = summary.table.description
    rows = ", ".join(f"{number(count)} {name}" for name, count in described.rows.items())
    said = [f"Samples with a row: {number(summary.samples)}; without: {number(summary.unlabelled)}."]
    said.append(f"Labels are of the {described.level}; rows of the table, by their samples: {rows}.")
    if described.vote:
        said.append(f"Several rows for one image became one by the vote {described.vote}.")
    if summary.by_official:
        parts = ", ".join(f"{name} {number(count)}" for name, count in summary.by_official.items())
        said.append(f"Official split: {parts}.")
    if (boxes := summary.table.boxes) is not None:
        said.append(f"{counted(boxes.num_rows, 'box', 'boxes')} in {counted(len(pc.unique(boxes['key'])), 'sample')}.")
    return " ".join([*said, f"Digest {summary.table.digest[:12]}."])


def _warnings(summary: Summary) -> Iterator[str]:
    for leak in summary.leaks:
        yield f"The official split {leak.words}."
    if summary.stale:
        yield "The dataset has changed since these labels were joined: run shardkit label again."
    if summary.gone:
        yield f"Rows of samples that the dataset has no more: {number(summary.gone)}; run shardkit label again."


def _values(summary: Summary) -> Iterator[tuple[str, float, Sequence[str]]]:
    binary = [column for column in summary.columns if column.kind == "binary"]
    binary.sort(key=lambda column: (-column.counts["1"], column.name))
    for column in binary[:_LINES]:
        one, zero, unsure = (column.counts[value] for value in ("1", "0", "-1"))
        known = one + zero + unsure
        cells = [*(number(count) for count in (one, zero, unsure, column.blank)), percent(one, known)]
        yield column.name, one / max(1, known), cells


def _category_cards(summary: Summary) -> Iterator[Card]:
    for column in summary.columns:
        if column.kind == "category":
            rows = list(column.counts.items())
            more = len(rows) - _CATEGORIES
            note = (f"{number(more)} more values; " if more > 0 else "") + f"{number(column.blank)} blank"
            yield Card(column.name, rows[:_CATEGORIES], sum(column.counts.values()), note)


def _histograms(table: LabelTable, here: pa.Table) -> Iterator[tuple[str, str, Markup]]:
    names = [name for name, kind in table.description.kinds.items() if kind == "number"]
    for name in names[:_NUMBERS]:
        values = here[name].drop_null().to_numpy()
        blank = here.num_rows - len(values)
        if len(values):
            plot, words = _histogram(f"{table.description.name}, {name}", values)
            yield name, f"{words} {number(blank)} blank.", svg(plot)


def _histogram(name: str, values: npt.NDArray[np.float64]) -> tuple[Plot, str]:
    counts, edges = np.histogram(values, bins=min(24, max(1, len(np.unique(values)))))
    low, quarter, middle, three, high = (f"{value:g}" for value in np.percentile(values, (0, 25, 50, 75, 100)))
    words = f"{number(len(values))} values from {low} to {high}; quartiles {quarter}, {middle} and {three}."

    def draw(axes: "Axes") -> None:
        axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=colour("blue"), lw=0)
        axes.grid(axis="x", visible=False)
        axes.set(xlabel=name.partition(", ")[2], ylabel="samples", ylim=(0, None))

    return Plot(draw, f"Histogram of {name}: {words}"), words


# --------------------------------------------------------------------------------------------------- classes


def _classes(table: LabelTable, here: pa.Table) -> Iterator[Class]:
    for name, kind in table.description.kinds.items():
        column = here[name].combine_chunks()
        known = column.is_valid().to_numpy(zero_copy_only=False)
        if kind == "binary":
            yield Class(name, name, pc.equal(column, 1).fill_null(False).to_numpy(zero_copy_only=False), known)
        elif kind == "category":
            for value in sorted(pc.unique(column.drop_null()).to_pylist()):
                has = pc.equal(column, value).fill_null(False).to_numpy(zero_copy_only=False)
                yield Class(f"{name}: {value}", name, has, known)


def _groups(samples: pa.Table, here: pa.Table) -> Iterator[tuple[str, Mask]]:
    """Name and samples of each split, official split and view; the commonest views alone."""
    for title, column, most in (
        ("Split", samples["split"], None), ("Official", here["split"], None), ("View", samples["view"], _VIEWS),
    ):  # fmt: skip
        found = {row["values"]: row["counts"] for row in pc.value_counts(column.drop_null()).to_pylist()}
        order = sorted(found, key=lambda value: (-found[value], value))
        if most is None:
            order.sort(key=lambda value: _SPLITS.get(value, len(_SPLITS)))
        for value in order[:most]:
            mask = pc.equal(column, value).fill_null(False).combine_chunks()
            yield f"{title} {value}", np.asarray(mask.to_numpy(zero_copy_only=False), np.bool_)


def _by_group(one: Class, groups: Sequence[tuple[str, Mask]]) -> list[str]:
    cells = [one.name, number(one.count)]
    for _, inside in groups:
        count = int((one.has & inside).sum())
        cells.append(f"{number(count)} · {percent(count, int((one.known & inside).sum()))}")
    return cells


def _heat(classes: Sequence[Class]) -> list[tuple[str, list[tuple[str, str]]]]:
    has = np.stack([one.has for one in classes]).astype(np.int64)
    both = has @ has.T
    rows = []
    for at, one in enumerate(classes):
        cells = [(number(int(n)), "" if at == i else _tone(int(n), one.count)) for i, n in enumerate(both[at])]
        rows.append((one.name, cells))
    return rows


def _tone(count: int, whole: int) -> str:
    return next((tone for share, tone in TONES if count > share * whole), "")


def _by_class(album: Album, table: LabelTable, classes: Sequence[Class], rows: npt.NDArray[np.int64]) -> list[Group]:
    """Pictures of the first classes, chosen by the keys, which are hashes; those with a box of it first."""
    boxes, binary = _boxes(table), [one for one in classes if one.name == one.label]
    keys = album.samples["key"].take(pa.array(rows)).to_pylist()
    order = np.argsort(np.array(keys, np.str_))
    groups = []
    for one in classes[:CLASSES]:
        members = [int(i) for i in order if one.has[i]]
        marked = [i for i in members if any(box.label == one.label for box in boxes.get(keys[i], ()))]
        first = spread(np.array(marked, np.int64), A_CLASS)
        others = np.array([i for i in members if i not in {*first.tolist()}], np.int64)
        chosen = np.concatenate([first, spread(others, A_CLASS - len(first))])
        said = [Labelled(one.label, boxes.get(keys[i], ()), _also(one, binary, i)) for i in chosen.tolist()]
        groups.append(Group(album.pictures(rows[chosen], said), one.name, counted(one.count, "sample")))
    return groups


def _also(of: Class, binary: Sequence[Class], row: int) -> str:
    """Name the other labels that are 1 for a row of the table."""
    names = [one.name for one in binary if one.has[row] and one is not of]
    return ", ".join(names[:_ALSO]) + (f" and {number(len(names) - _ALSO)} more" if len(names) > _ALSO else "")


def _boxes(table: LabelTable) -> dict[str, list[LabelBox]]:
    found: dict[str, list[LabelBox]] = {}
    for row in [] if table.boxes is None else table.boxes.to_pylist():
        place = (row[side] for side in ("top", "left", "height", "width"))
        found.setdefault(row["key"], []).append(LabelBox(table.description.name, row["label"], *place))
    return found


def _left(table: LabelTable, shown: Sequence[Class], binary: Sequence[Class]) -> Iterator[str]:
    """Say what is not shown."""
    numbers = sum(kind == "number" for kind in table.description.kinds.values()) - _NUMBERS
    if (rest := len(shown) - _LINES) > 0:
        yield f"Of {number(len(shown))} classes the {number(rest)} rarest are left out of the tables."
    if len(binary) == _TOGETHER:
        yield f"Only the {_TOGETHER} commonest labels are shown beside each other."
    if numbers > 0:
        yield f"{number(numbers)} columns of numbers are left out."
