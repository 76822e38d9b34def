"""Resolution bins: a few (height, width) classes to which images are padded so that they form dense batches.

Sizes are pixels unless a name says otherwise. A token is one square patch of `patch` pixels a side: an image
of h x w pixels uses ceil(h / patch) * ceil(w / patch) tokens, and height * width / patch**2 once padded to
its bin. All of it is exact integer arithmetic on the histogram of patch grids, so results depend neither on
the order of the images nor on the machine. NumPy only; the one thing read is the bins file that `parse` may
be asked for.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bin_search import COARSE, FINE, FINE_SWEEPS, Candidates, descend, exchange, search
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError

Ints = npt.NDArray[np.int64]

IMAGES_PER_BIN = 8  # below this mean, bins are too rare to fill batches of their own
_CHUNK = 1 << 20  # images handled at once: bounds temporary memory to some tens of MB


@dataclass(frozen=True, slots=True, order=True)
class Bin:
    """A size class in pixels, each side at least 1 (else ArgumentError). Ordered by height, then width."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise ArgumentError(f"bin {self.height}x{self.width} is empty: give both sides at least 1 pixel.")

    @property
    def name(self) -> str:
        """`HHHHxWWWW`, e.g. `2304x1920` or `0960x0768`: also the name of the bin's folder of shards."""
        return f"{self.height:04d}x{self.width:04d}"

    @classmethod
    def from_name(cls, name: str) -> "Bin":
        """The inverse of `name`; ArgumentError for any other spelling."""
        height, _, width = name.partition("x")
        if all(side.isascii() and side.isdigit() and int(side) for side in (height, width)):
            found = cls(int(height), int(width))
            if found.name == name:
                return found
        raise ArgumentError(f"'{name}' is not the name of a bin: write HHHHxWWWW in pixels, e.g. 2304x0960.")


@dataclass(frozen=True, slots=True)
class PaddingStats:
    """What padding to bins costs: `images` counted, tokens `used` by them, tokens `padded` to (used plus
    padding), and images per bin (`counts`, in the order of `Bins.bins`)."""

    images: int
    used: int
    padded: int
    counts: tuple[int, ...]

    @property
    def overhead(self) -> float:
        """padded / used = sum of bin areas / sum of patch-grid areas; 1.0 at best and when there are no
        images.

        The ratio of the thesis's Table 4.1, where the published 6 x 6 grid has 1.19.
        """
        return self.padded / self.used if self.used else 1.0


@dataclass(frozen=True)
class Bins:
    """Distinct bins in ascending order whose sides are multiples of `patch` pixels; ArgumentError
    otherwise."""

    bins: tuple[Bin, ...]
    patch: int

    def __post_init__(self) -> None:
        _check_positive(patch=self.patch)
        if not self.bins or any(a >= b for a, b in zip(self.bins, self.bins[1:], strict=False)):
            raise ArgumentError("bins must be one or more distinct bins in ascending order: sort them first.")
        for b in self.bins:
            if b.height % self.patch or b.width % self.patch:
                near = Bin(ceil_div(b.height, self.patch) * self.patch, ceil_div(b.width, self.patch) * self.patch)
                raise ArgumentError(
                    f"bin {b.name} is not a multiple of patch {self.patch}: use {near.name} or another patch."
                )

    def assign(self, heights: npt.ArrayLike, widths: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Index into `bins` of the smallest-area bin containing each image, int32 of shape (n,).

        heights, widths: integers of shape (n,). Among bins of equal area the first in order wins. It is one
        table lookup an image, however many bins there are. ArgumentError names the first image that fits no
        bin.
        """
        high, wide = _sizes(heights, widths)
        out = np.empty(len(high), np.int32)
        for start, _, found in self._lookup(high, wide):
            out[start : start + len(found)] = found
        return out

    def account(self, heights: npt.ArrayLike, widths: npt.ArrayLike) -> PaddingStats:
        """The `PaddingStats` of images of these sizes (integers of shape (n,)); errors as for `assign`."""
        high, wide = _sizes(heights, widths)
        used, counts = 0, np.zeros(len(self.bins), np.int64)
        for _, tokens, found in self._lookup(high, wide):
            used += int(tokens.sum())
            counts += np.bincount(found, minlength=len(self.bins))
        areas = (b.height * b.width // self.patch**2 for b in self.bins)
        padded = sum(int(n) * area for n, area in zip(counts, areas, strict=True))
        return PaddingStats(len(high), used, padded, tuple(int(n) for n in counts))

    def to_json(self) -> list[list[int]]:
        """`[[height, width], ...]` in order; the patch is not part of it."""
        return [[b.height, b.width] for b in self.bins]

    @classmethod
    def from_json(cls, rows: object, patch: int) -> "Bins":
        """Bins from `[[height, width], ...]` in any order, repeats merged; ArgumentError names a bad
        entry."""
        if not isinstance(rows, Sequence) or isinstance(rows, str) or not rows:
            raise ArgumentError("bins must be a list of one or more [height, width] pairs, e.g. [[3072, 3072]].")
        for i, row in enumerate(rows):
            pair = isinstance(row, Sequence) and len(row) == 2
            if not pair or not all(type(side) is int and side > 0 for side in row):
                raise ArgumentError(f"entry {i} of the bins is {row!r}: write [height, width] in whole pixels.")
        return cls(tuple(sorted({Bin(*row) for row in rows})), patch)

    def _lookup(
        self, heights: npt.NDArray[Any], widths: npt.NDArray[Any]
    ) -> Iterator[tuple[int, Ints, npt.NDArray[np.int32]]]:
        """Chunk by chunk: (start, tokens used by each image, index of its bin)."""
        table = self._table()
        for start, rows, cols in _grids(heights, widths, self.patch):
            found = table[np.minimum(rows, table.shape[0] - 1), np.minimum(cols, table.shape[1] - 1)]
            if found.min() < 0:
                i = start + int(found.argmin())
                big = max(self.bins, key=lambda b: (b.height * b.width, b))
                raise ArgumentError(
                    f"image {i} of {heights[i]} x {widths[i]} pixels (height x width) fits no bin, the "
                    f"largest is {big.name}: add a bin that contains it or leave the image out."
                )
            yield start, rows * cols, found

    def _table(self) -> npt.NDArray[np.int32]:
        """Bin index by (rows, cols) of a patch grid, -1 where no bin contains it; the last line of each axis
        stands for everything larger."""
        high = [b.height // self.patch + 1 for b in self.bins]
        wide = [b.width // self.patch + 1 for b in self.bins]
        table = np.full((max(high) + 1, max(wide) + 1), -1, np.int32)
        # Painted from the largest to the smallest, so that what stays visible is the smallest containing bin.
        for _, i in sorted(((b.height * b.width, i) for i, b in enumerate(self.bins)), reverse=True):
            table[: high[i], : wide[i]] = i
        return table


_CUTOFFS = (1152, 1536, 1920, 2304, 2688, 3072)
# Printed in "Smart Binning Strategy.ipynb" of github.com/niklasbuehler/radiograph-pretraining @ af7937d.
THESIS: tuple[Bin, ...] = tuple(Bin(height, width) for height in _CUTOFFS for width in _CUTOFFS)


def optimise(heights: npt.ArrayLike, widths: npt.ArrayLike, k: int, patch: int, max_side: int) -> Bins:
    """At most `k` free rectangles that keep the tokens which images of these sizes are padded to low.

    heights, widths: integers of shape (n,), at most `max_side` pixels, else ArgumentError. So that bins hold
    8 images on average, k is first lowered to max(1, min(k, n // 8)). One of the k is always the square of
    ceil(max_side / patch) patches: nothing smaller holds an image of max_side x max_side. No other bin is
    empty.

    Greedy selection, then exchange until no bin can be replaced with a gain, then escapes from that optimum:
    half as many bins again, or twice as many, are added and the least useful removed. The result is a local
    optimum, never worse than its greedy start; on the published sizes (k = 16, 36, 64) longer searches gain
    under 0.05 points.

    Only occupied rows and columns of the patch grid can be useful edges. Above 96 of either, the search runs
    on 96 evenly spaced ones and a short last exchange on up to 192, which are all there are for 3072 pixels
    at patch 16.
    """
    _check_positive(k=k, patch=patch, max_side=max_side)
    high, wide = _sizes(heights, widths)
    histogram = _histogram(high, wide, patch, max_side)
    grid = Candidates.of(histogram, COARSE)
    chosen = search(grid, max(1, min(k, len(high) // IMAGES_PER_BIN)))
    if COARSE in grid.area.shape:
        fine = Candidates.of(histogram, FINE)
        rows = np.searchsorted(fine.rows, grid.rows).tolist()
        cols = np.searchsorted(fine.cols, grid.cols).tolist()
        grid, chosen = fine, exchange(fine, [(rows[r], cols[c]) for r, c in chosen], FINE_SWEEPS)
    found = sorted({Bin(int(grid.rows[r]) * patch, int(grid.cols[c]) * patch) for r, c in chosen})
    # Once nothing is left to save, the search may carry bins that later ones have emptied.
    counts = Bins(tuple(found), patch).account(high, wide).counts
    return Bins(tuple(b for b, n in zip(found, counts, strict=True) if n or b == found[-1]), patch)


def separable(heights: npt.ArrayLike, widths: npt.ArrayLike, rows: int, cols: int, patch: int) -> Bins:
    """All pairs of at most `rows` heights and `cols` widths, chosen for few padded tokens: the best grid of
    the thesis's kind, to compare `optimise` with.

    heights, widths: integers of shape (n,), n >= 1; the largest of each is covered and no more. Coordinate
    descent: given one axis, dynamic programming finds the other's cutoffs exactly; started from either axis.
    """
    _check_positive(rows=rows, cols=cols, patch=patch)
    high, wide = _sizes(heights, widths)
    if not len(high):
        raise ArgumentError("a separable grid is fitted to images and got none: give at least one size.")
    tallest, widest = int(high.max()), int(wide.max())
    histogram = _histogram(high, wide, patch, max(tallest, widest))
    grid = Candidates.of(histogram[: ceil_div(tallest, patch), : ceil_div(widest, patch)], None)
    total, down, across = descend(grid.images, grid.rows, grid.cols, rows, cols)
    other, across_too, down_too = descend(grid.images.T, grid.cols, grid.rows, cols, rows)
    if other < total:
        down, across = down_too, across_too
    return Bins(tuple(Bin(h * patch, w * patch) for h in down for w in across), patch)


def parse(text: str, heights: npt.ArrayLike, widths: npt.ArrayLike, patch: int, max_side: int) -> Bins:
    """The bins that a command-line argument asks for.

    `auto:K` optimises K bins for these sizes, `auto` means `auto:36` (as many as the thesis has), `thesis` is
    the published grid, and a path ending in `.json` names a file with a list of [height, width].
    ArgumentError, one sentence with the remedy, for anything else, for a file that cannot be used, and for
    bins that would leave an admissible size (up to max_side both ways) without a bin.
    """
    _check_positive(patch=patch, max_side=max_side)
    word, _, count = ("auto:36" if text == "auto" else text).partition(":")
    if word == "auto":
        if not (count.isascii() and count.isdigit() and int(count)):
            raise ArgumentError(f"bins '{text}' name no number of bins above 0: write for example auto:36.")
        return optimise(heights, widths, int(count), patch, max_side)
    if text != "thesis" and not text.endswith(".json"):
        raise ArgumentError(f"bins '{text}' are unknown: use auto, auto:K, thesis or the path of a .json file.")
    try:
        bins = Bins(THESIS, patch) if text == "thesis" else Bins.from_json(read_json(Path(text)), patch)
    except ArgumentError as error:
        raise ArgumentError(f"bins '{text}' cannot be used: {error}") from error
    if not any(min(b.height, b.width) >= max_side for b in bins.bins):
        needed = ceil_div(max_side, patch) * patch
        raise ArgumentError(
            f"bins '{text}' have no bin for an image of {max_side} x {max_side} pixels: add "
            f"{needed} x {needed} or lower the largest side admitted."
        )
    return bins


def _check_positive(**arguments: int) -> None:
    for name, value in arguments.items():
        if value < 1:
            raise ArgumentError(f"{name} is {value}: give a whole number of at least 1.")


def _sizes(heights: npt.ArrayLike, widths: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Both as integer arrays of one shape (n,) with values of at least 1, else ArgumentError."""
    high, wide = np.asarray(heights), np.asarray(widths)
    if high.ndim != 1 or high.shape != wide.shape:
        raise ArgumentError(f"heights {high.shape} and widths {wide.shape} differ: give flat arrays of one length.")
    for name, sides in (("height", high), ("width", wide)):
        if len(sides) and sides.dtype.kind not in "iu":
            raise ArgumentError(f"{name}s are of type {sides.dtype}: give whole pixels as integers.")
        if len(sides) and sides.min() < 1:
            i = int(sides.argmin())
            raise ArgumentError(f"image {i} has the {name} {sides[i]}: leave out images without pixels.")
    return high, wide


def _grids(heights: npt.NDArray[Any], widths: npt.NDArray[Any], patch: int) -> Iterator[tuple[int, Ints, Ints]]:
    """Chunk by chunk: (start, rows, cols) of the images' patch grids."""
    for start in range(0, len(heights), _CHUNK):
        # int64 first: exact ceiling division negates, and an unsigned height would wrap around.
        rows, cols = (a[start : start + _CHUNK].astype(np.int64) for a in (heights, widths))
        yield start, ceil_div(rows, patch), ceil_div(cols, patch)


def _histogram(heights: npt.NDArray[Any], widths: npt.NDArray[Any], patch: int, max_side: int) -> Ints:
    """Images by patch grid at [rows - 1, cols - 1], square; ArgumentError for a side above max_side."""
    for name, sides in (("height", heights), ("width", widths)):
        if len(sides) and sides.max() > max_side:
            i = int(sides.argmax())
            raise ArgumentError(
                f"image {i} has the {name} {sides[i]}, above the largest side admitted, {max_side}: "
                "leave it out or raise the limit."
            )
    side = ceil_div(max_side, patch)
    counts = np.zeros(side * side, np.int64)
    for _, rows, cols in _grids(heights, widths, patch):
        counts += np.bincount((rows - 1) * side + cols - 1, minlength=side * side)
    return counts.reshape(side, side)


def read_json(path: Path) -> object:
    try:
        parsed: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"the file cannot be read ({error.strerror}), check the path.") from error
    except ValueError as error:
        raise ArgumentError(f"the file is not JSON ({error}), write [[height, width], ...].") from error
    return parsed
