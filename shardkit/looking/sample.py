"""One sample: pixels at any level, facts, labels, boxes, and a picture of it."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from shardkit.codecs.base import Pixels
from shardkit.dataset import contents
from shardkit.dataset.sample_row import DatasetColumns, SampleFacts, SampleRow
from shardkit.looking import pictures
from shardkit.looking.pictures import Grey, LabelBox, Sheet, Tile
from shardkit.looking.source import Source
from shardkit.terminal import reprs

_FACTS = (*SampleFacts.__annotations__, *DatasetColumns.__annotations__)
_SHOWN = ("modality", "body_part", "view", "laterality", "sex", "age", "split")  # of facts, in a sample's repr
_LARGE, _SMALL = 768, 224  # pixels of the longer side, of one picture and of many
Window = tuple[int, int]


class Sample:
    """A sample of a dataset. Nothing is read before it is asked for.

    Parameters
    ----------
    source : Source
        The dataset.
    row : int
        Row of the manifest.

    Attributes
    ----------
    row : int
        The same, as batches of a loader have it in `rows`.
    """

    def __init__(self, source: Source, row: int) -> None:
        self._source = source
        self.row = row
        self._record: SampleRow = source.manifest.slice(row, 1).to_pylist()[0]

    @property
    def key(self) -> str:
        """The sample's name."""
        return self._record["key"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the whole image."""
        return self._record["height"], self._record["width"]

    @property
    def bits(self) -> int:
        """Grey levels lie in [0, 2**bits - 1]."""
        return self._record["bits"]

    @property
    def split(self) -> str | None:
        """The split by the patient's hash: train, val or test."""
        return self._record["split"]

    @property
    def level_bytes(self) -> tuple[int, ...]:
        """Bytes that are read for each level of `pixels`: of the whole image, of its half, and so on."""
        return tuple(self._record["level_bytes"])

    @property
    def window(self) -> Window:
        """Grey levels that pictures show as black and white: 0.5th and 99.5th percentile of the content."""
        return self._record["p0_5"], self._record["p99_5"]

    @property
    def facts(self) -> dict[str, Any]:
        """What the manifest says of the image, its file and its origin, without where it lies; hashes in hex."""
        record: dict[str, Any] = {**self._record}
        return {name: _text(record[name]) for name in _FACTS}

    @property
    def labels(self) -> dict[str, dict[str, Any]]:
        """What each labels table says: 1, 0, -1 (uncertain) or None (blank), a number or a category; and its split."""
        return self._source.row_labels(self.row)

    @property
    def boxes(self) -> list[LabelBox]:
        """What is marked in the image, in pixels of level 0."""
        return self._source.row_boxes(self.key)

    def pixels(self, level: int = 0) -> Pixels:
        """Return the image at 1/2**level, reading only the bytes that this level needs.

        Parameters
        ----------
        level : int
            How many times the image is halved.

        Returns
        -------
        ndarray of uint16, (ceil(height / 2**level), ceil(width / 2**level))
            The stored grey levels, exact.

        Raises
        ------
        ArgumentError
            The image has no such level.
        IntegrityError
            The stored bytes are not the image's.
        StorageError
            They cannot be read.
        """
        return contents.image(self._source.store, self._record, self._source.description, level)

    def thumbnail(self, side: int = _SMALL, window: Window | None = None) -> Grey:
        """Return a small picture, from the smallest level that is large enough.

        Parameters
        ----------
        side : int
            Pixels of the longer side, at most.
        window : tuple of int, optional
            Grey levels that become black and white; default: `window`.

        Returns
        -------
        ndarray of uint8, (rows, columns)
            The picture.
        """
        pixels = pictures.small(self._source.store, self._record, self._source.description, side)
        return np.asarray(pictures.fitted(pictures.window(pixels, *(window or self.window)), side))

    def sheet(self, side: int = _LARGE, window: Window | None = None, boxes: bool = True) -> Sheet:
        """Return a picture of the sample with boxes and words: a notebook shows it.

        Parameters
        ----------
        side, window
            As for `thumbnail`.
        boxes : bool
            Draw the boxes of labels tables.

        Returns
        -------
        Sheet
            The picture; `png` gives its bytes.
        """
        return Sheet([self.tile(side, window, boxes)])

    def tile(self, side: int = _SMALL, window: Window | None = None, boxes: bool = True) -> Tile:
        """Return the same as a part of a larger sheet."""
        low, high = window or self.window
        picture = pictures.fitted(self.thumbnail(side, (low, high)), side)
        marked = pictures.with_boxes(picture, self.boxes if boxes else (), *self.shape)
        size = f"{self.shape[0]:,} x {self.shape[1]:,} px, {self.bits} bit"
        kind = ", ".join([*filter(None, (self.facts["body_part"], self.facts["view"])), f"split {self.split}"])
        lines = (self.key[:12], size, kind, f"levels {low:,} to {high:,}", *self._positive())
        return Tile(marked, tuple(filter(None, lines)))

    def _positive(self) -> Iterable[str]:
        """Yield what each table says: labels that are 1, categories, numbers, and its split."""
        for table, values in self.labels.items():
            split = values.pop("split", None)
            said = [name for name, value in values.items() if isinstance(value, int) and value == 1]
            said += [f"{name} {value}" for name, value in values.items() if isinstance(value, str)]
            said += [f"{name} {value:g}" for name, value in values.items() if isinstance(value, float)]
            said += [f"official split {split}"] if split else []
            yield f"{table}: {', '.join(said)}" if said else ""

    def _repr_png_(self) -> bytes:
        return self.sheet().png()

    def _repr_html_(self) -> str:
        facts = {name: value for name, value in self.facts.items() if value not in (None, [])}
        return self.sheet()._repr_html_() + reprs.table(f"Sample {self.key}", facts)

    def __repr__(self) -> str:
        """Return one line of facts."""
        stated = {name: self.facts[name] for name in _SHOWN if self.facts[name]}
        size = {"rows": self.shape[0], "columns": self.shape[1], "bits": self.bits}
        return reprs.line("Sample", {"key": self.key, "row": self.row, **size, **stated})


def _text(value: Any) -> Any:
    return value.hex() if isinstance(value, bytes) else value
