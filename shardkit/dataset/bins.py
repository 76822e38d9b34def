"""Resolution bins: a few (height, width) classes to which images are padded so that they form dense batches.

Sizes are pixels unless a name says otherwise. A token is one square patch of `patch` pixels a side: an image
of h x w pixels uses ceil(h / patch) * ceil(w / patch) tokens, and height * width / patch**2 once padded to
its bin. NumPy only; `shardkit.dataset.bin_choice` chooses bins for images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.dataset.patch_grids import Ints, check_positive, check_sizes, grids
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError


@dataclass(frozen=True, slots=True, order=True)
class Bin:
    """A size class, ordered by height, then width.

    Parameters
    ----------
    height, width : int
        Sides in pixels.

    Raises
    ------
    ArgumentError
        A side is below 1.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        """Check the sides."""
        if min(self.height, self.width) < 1:
            raise ArgumentError(f"bin {self.height}x{self.width} is empty: give both sides at least 1 pixel.")

    @property
    def name(self) -> str:
        """The name `HHHHxWWWW`, e.g. `2304x1920` or `0960x0768`, also of the bin's folder of shards."""
        return f"{self.height:04d}x{self.width:04d}"

    @classmethod
    def from_name(cls, name: str) -> "Bin":
        """Return the bin of a name.

        Raises
        ------
        ArgumentError
            It is spelt otherwise than `name` would.
        """
        height, _, width = name.partition("x")
        if all(side.isascii() and side.isdigit() and int(side) for side in (height, width)):
            found = cls(int(height), int(width))
            if found.name == name:
                return found
        raise ArgumentError(f"'{name}' is not the name of a bin: write HHHHxWWWW in pixels, e.g. 2304x0960.")


@dataclass(frozen=True, slots=True)
class PaddingStats:
    """What padding to bins costs.

    Parameters
    ----------
    images : int
        Images counted.
    used : int
        Tokens of the images.
    padded : int
        Tokens of the images once padded, `used` plus padding.
    counts : tuple of int
        Images of each bin, in the order of `Bins.bins`.
    """

    images: int
    used: int
    padded: int
    counts: tuple[int, ...]

    @property
    def overhead(self) -> float:
        """The ratio padded / used: 1.0 at best, and when there are no images.

        It is the sum of bin areas over the sum of patch-grid areas, as in the thesis's Table 4.1, where the published
        6 x 6 grid has 1.19.
        """
        return self.padded / self.used if self.used else 1.0


@dataclass(frozen=True)
class Bins:
    """Distinct bins in ascending order.

    Parameters
    ----------
    bins : tuple of Bin
        The bins, whose sides are multiples of `patch`.
    patch : int
        Side of a patch in pixels.

    Raises
    ------
    ArgumentError
        Bins are not in order, or no multiples of the patch.
    """

    bins: tuple[Bin, ...]
    patch: int

    def __post_init__(self) -> None:
        """Check order and sides."""
        check_positive(patch=self.patch)
        if not self.bins or any(a >= b for a, b in zip(self.bins, self.bins[1:], strict=False)):
            raise ArgumentError("bins must be one or more distinct bins in ascending order: sort them first.")
        for b in self.bins:
            if b.height % self.patch or b.width % self.patch:
                near = Bin(ceil_div(b.height, self.patch) * self.patch, ceil_div(b.width, self.patch) * self.patch)
                raise ArgumentError(
                    f"bin {b.name} is not a multiple of patch {self.patch}: use {near.name} or another patch."
                )

    def assign(self, heights: npt.ArrayLike, widths: npt.ArrayLike) -> npt.NDArray[np.int32]:
        """Return the smallest-area bin that contains each image.

        Among bins of equal area the first in order wins. It is one table lookup an image, however many bins there are.

        Parameters
        ----------
        heights, widths : array_like of int
            Sides of the images in pixels, of shape (n,).

        Returns
        -------
        numpy.ndarray
            Indices into `bins`, of shape (n,), int32.

        Raises
        ------
        ArgumentError
            An image fits no bin; the message names the first one.
        """
        height, width = check_sizes(heights, widths)
        out = np.empty(len(height), np.int32)
        for start, _, found in self._lookup(height, width):
            out[start : start + len(found)] = found
        return out

    def account(self, heights: npt.ArrayLike, widths: npt.ArrayLike) -> PaddingStats:
        """Count what padding images to their bins costs. Parameters and errors are those of `assign`."""
        height, width = check_sizes(heights, widths)
        used, counts = 0, np.zeros(len(self.bins), np.int64)
        for _, tokens, found in self._lookup(height, width):
            used += int(tokens.sum())
            counts += np.bincount(found, minlength=len(self.bins))
        areas = (b.height * b.width // self.patch**2 for b in self.bins)
        padded = sum(int(n) * area for n, area in zip(counts, areas, strict=True))
        return PaddingStats(len(height), used, padded, tuple(int(n) for n in counts))

    def to_json(self) -> list[list[int]]:
        """Return `[[height, width], ...]` in order; the patch is not part of it."""
        return [[b.height, b.width] for b in self.bins]

    @classmethod
    def from_json(cls, rows: object, patch: int) -> "Bins":
        """Make bins of `[[height, width], ...]` in any order, repeats merged.

        Raises
        ------
        ArgumentError
            An entry is no pair of sides; the message names it.
        """
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
        """Give, chunk by chunk: (start, tokens used by each image, index of its bin)."""
        table = self._table()
        for start, rows, cols in grids(heights, widths, self.patch):
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
        """Return the bin index by (rows, cols) of a patch grid, -1 where no bin contains it.

        The last line of each axis stands for everything larger.
        """
        rows = [b.height // self.patch + 1 for b in self.bins]
        cols = [b.width // self.patch + 1 for b in self.bins]
        table = np.full((max(rows) + 1, max(cols) + 1), -1, np.int32)
        # Painted from the largest to the smallest, so that what stays visible is the smallest containing bin.
        for _, i in sorted(((b.height * b.width, i) for i, b in enumerate(self.bins)), reverse=True):
            table[: rows[i], : cols[i]] = i
        return table


_CUTOFFS = (1152, 1536, 1920, 2304, 2688, 3072)
# Printed in "Smart Binning Strategy.ipynb" of github.com/niklasbuehler/radiograph-pretraining @ af7937d.
THESIS: tuple[Bin, ...] = tuple(Bin(height, width) for height in _CUTOFFS for width in _CUTOFFS)
