"""Pictures of samples: small, windowed, with the box of what is neither border nor padding."""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import repeat
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.sample_row import SampleRow
from shardkit.errors import ShardkitError
from shardkit.looking import pictures
from shardkit.report.numbers import number
from shardkit.storage import Store
from shardkit.storage.spill import Spill

PICTURES = 120
"""Pictures in the gallery of bins, at most."""
A_BIN, A_FLAG, GROUPS, A_GROUP = 6, 24, 12, 4
_READ, _SHOWN = 160, 224  # pixels of the longer side: read at least, shown at most
_PICTURE_BYTES = 12_000
_DRAWERS = 4  # pictures at a time
_COLUMNS = (
    *contents.IMAGE_COLUMNS, "box_top", "box_left", "box_height", "box_width", "p0_5", "p99_5", "body_part", "view",
)  # fmt: skip

_EDGE, _RIGHT = 9, 50  # percent of a picture: above a frame there is room for a name; from here on it ends at the frame

Rows = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Labelled:
    """What a labels table says of a picture of a class.

    Parameters
    ----------
    label
        The class's label.
    boxes
        Boxes of the sample, of any label.
    also
        Other labels that it has, in words.
    """

    label: str
    boxes: Sequence[pictures.LabelBox]
    also: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A frame over a picture: its label, its CSS, and words that say how it and its name are drawn."""

    label: str
    style: str
    kind: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A sample's picture with its words.

    Parameters
    ----------
    key
        The sample's.
    source
        A data URI; None where the sample cannot be read.
    caption, kind, about
        Its size and depth, what is seen, and both in words for who does not see it.
    shape, box
        CSS of the picture and of the content box over it; no box where boxes of labels are drawn.
    marks
        The boxes of labels over it.
    marked, also
        Their labels, and the other labels that the sample has.
    """

    key: str
    source: str | None
    caption: str
    kind: str
    about: str
    shape: str
    box: str
    marks: tuple[Mark, ...] = ()
    marked: str = ""
    also: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Pictures side by side, below a title and a few words."""

    pictures: list[Picture]
    title: str = ""
    about: str = ""


@dataclass(frozen=True, slots=True)
class Album:
    """Reads samples' pictures, one at a time.

    Parameters
    ----------
    store, samples, description
        A dataset, its manifest, and the content of dataset.json.
    """

    store: Store
    samples: pa.Table | Spill
    description: DatasetDescription

    def pictures(self, rows: Iterable[int], labelled: Iterable[Labelled] | None = None) -> list[Picture]:
        """Return the pictures of rows of the manifest: with their content boxes, or with what labels say of each."""
        said = repeat(None) if labelled is None else labelled
        return self.drawn(rows, _COLUMNS, self._picture, said)

    def drawn(
        self, rows: Iterable[int], columns: Iterable[str], draw: Callable[..., T], *others: Iterable[Any]
    ) -> list[T]:
        """Return what a function makes of each of some rows of the manifest, read at once and drawn side by side.

        Parameters
        ----------
        rows : iterable of int
            Their numbers.
        columns : iterable of str
            What the function needs of them.
        draw : callable
            Takes a row as a dict, and one of each of the others.
        *others : iterable
            What else it takes for each row.
        """
        found = self.samples.select(list(columns)).take(np.fromiter(rows, np.int64)).to_pylist()
        with ThreadPoolExecutor(_DRAWERS) as threads:  # codecs let other threads run, and buckets answer several
            return list(threads.map(draw, found, *others))

    def flagged(self, flag: str) -> Rows:
        """Return rows with `flag`, sorted by key."""
        flags = column(self.samples, "flags")
        rows = pc.list_parent_indices(flags).filter(pc.equal(flags.flatten(), pa.scalar(flag)))
        order = pc.sort_indices(self.samples["key"].take(rows)).to_numpy()
        return np.asarray(rows.to_numpy()[order], np.int64)

    def _picture(self, row: SampleRow, of: Labelled | None) -> Picture:
        try:
            pixels = pictures.small(self.store, row, self.description, _READ)
            source = data_uri(pixels, row["p0_5"], row["p99_5"])
        except ShardkitError:  # the page helps to find trouble: one sample's must not cost the page
            source = None
        height, width = row["height"], row["width"]
        kind = " · ".join(filter(None, (row["body_part"], row["view"]))) or "part not stated"
        size = f"{height:,} × {width:,} px"
        marks = tuple(_marks(of, height, width)) if of and source else ()
        names, also = ", ".join(sorted({mark.label for mark in marks})), of.also if of else ""
        return Picture(
            row["key"],
            source,
            f"{size} · {row['bits']} bit",
            kind,
            f"{row['key']}: radiograph, {kind}, {size}"
            + (names and f", marked: {names}")
            + (also and f", also: {also}"),
            f"{'width' if width >= height else 'height'}:100%;aspect-ratio:{width}/{height}",
            _box(row) if source and of is None else "",
            marks,
            names,
            also,
        )


def _marks(of: Labelled, height: int, width: int) -> Iterator[Mark]:
    """Yield the frames of a picture, those of its class last, over the others.

    The class's are named above, if there is room, and others below, so that the names of two that lie on each other can
    be read.
    """
    for box in sorted(of.boxes, key=lambda box: box.label == of.label):
        own, low = box.label == of.label, box.top + box.height > (1 - _EDGE / 100) * height
        outside = box.top > _EDGE / 100 * height if own else not low
        kind = f"{'own' if own else 'other'}{' inside' * (not outside)}{' right' * (box.left > _RIGHT / 100 * width)}"
        yield Mark(box.label, css(box.top, box.left, box.height, box.width, height, width), kind)


def _box(row: SampleRow) -> str:
    """Return the content box as CSS."""
    box = (row["box_top"], row["box_left"], row["box_height"], row["box_width"])
    return css(*box, row["height"], row["width"])


def css(top: float, left: float, high: float, wide: float, height: int, width: int) -> str:
    """Return a rectangle as CSS, in percent of the picture of an image of `height` x `width` pixels."""
    left, wide = (100 * side / width for side in (left, wide))
    top, high = (100 * side / height for side in (top, high))
    return f"left:{left:.2f}%;top:{top:.2f}%;width:{wide:.2f}%;height:{high:.2f}%;"


def column(samples: pa.Table | Spill, name: str) -> Any:
    """Return one column as a single array (a table without rows may have no chunk)."""
    found = samples[name]
    return found.combine_chunks() if found.num_chunks != 1 else found.chunk(0)


def by_bin(album: Album, bins: dict[tuple[int, int], Rows]) -> tuple[str, list[Group]]:
    """Return what is shown of each bin, in words and pictures.

    Parameters
    ----------
    album : Album
        What reads the pictures.
    bins : dict
        (height, width) -> rows of the samples, sorted by key.

    Returns
    -------
    about : str
        What the pictures are.
    groups : list of Group
        Pictures of each bin.
    """
    filled = sorted((-len(rows), size) for size, rows in bins.items() if len(rows))
    a_bin = max(1, min(A_BIN, PICTURES // max(1, len(filled))))
    groups = []
    for height, width in sorted(size for _, size in filled[:PICTURES]):
        rows = bins[height, width]
        pictures = album.pictures(spread(rows, a_bin))
        groups.append(Group(pictures, f"{height:,} × {width:,} px", f"{number(len(rows))} samples"))
    shown, left = sum(len(group.pictures) for group in groups), len(filled) - len(groups)
    about = (
        f"{number(shown)} of {number(album.samples.num_rows)} samples: up to {a_bin} a bin and {PICTURES} in all,"
        " evenly spaced by key." + (f" The {number(left)} least filled bins are left out." if left else "")
    )
    return about, groups


def suspects(album: Album, flag: str) -> tuple[str, list[Group]]:
    """Return how many samples have a flag, in words, and pictures of some."""
    rows = album.flagged(flag)
    chosen = spread(rows, A_FLAG)
    about = f"Shown: {number(len(chosen))} of {number(len(rows))}."
    return about, [Group(album.pictures(chosen))] if len(rows) else []


def near_duplicates(album: Album) -> tuple[str, list[Group]]:
    """Return how many groups of near-duplicates there are, in words, and pictures of the largest."""
    encoded = column(album.samples, "group").dictionary_encode()
    names = encoded.dictionary.to_pylist()
    label = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    counts = np.bincount(label[label >= 0], minlength=len(names))
    largest = sorted(range(len(names)), key=lambda i: (-counts[i], names[i]))[:GROUPS]
    keys, groups = column(album.samples, "key"), []
    for i in largest:
        rows = np.flatnonzero(label == i)
        rows = rows[pc.sort_indices(keys.take(pa.array(rows))).to_numpy()]
        about = f"{A_GROUP} shown" if len(rows) > A_GROUP else ""
        groups.append(Group(album.pictures(spread(rows, A_GROUP)), f"{number(len(rows))} alike", about))
    return f"Shown: the {number(len(groups))} largest of {number(len(names))} groups.", groups


def spread(rows: Rows, most: int) -> Rows:
    """Return at most `most` rows, evenly spaced, first and last among them."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def data_uri(pixels: npt.NDArray[np.uint16], low: int, high: int) -> str:
    """Return grey levels low to high as a small JPEG, in a URI."""
    picture = pictures.fitted(pictures.window(pixels, low, high), _SHOWN)
    for quality in (82, 65, 45, 25, 10):
        buffer = BytesIO()
        picture.save(buffer, "JPEG", quality=quality, optimize=True)
        if buffer.tell() <= _PICTURE_BYTES:
            break
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
