"""What a plan knows of a dataset: where samples lie and how large they are, as flat arrays."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bins import Bins

_CHUNK = 1 << 20  # samples looked at together

Ints = npt.NDArray[np.int64]
Sizes = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Weighted:
    """Samples of one weight: those from `start` up to `end`."""

    start: int
    end: int
    weight: float


@dataclass(frozen=True)
class Samples:
    """The n samples to plan for, in manifest order. Sides may be of any integer type: 10**8 rows fit as uint16.

    Attributes
    ----------
    digest : str
        Names the dataset, and whatever else decides which samples these are.
    starts : ndarray of int64, (shards + 1,)
        First sample of each shard, and the end; every shard has a sample.
    height, width : ndarray, (n,)
        Pixels of the images.
    bins : Bins
        Those of the dataset.
    levels : int
        How many times images can be halved when they are streamed.
    box : ndarray, (n, 4), optional
        Content boxes as top, left, height, width; None where they are not loaded.
    rows : ndarray, (n,), optional
        Manifest rows, ascending; None where sample i is row i.
    weights : tuple of float
        How often an epoch shows a sample, for each member of a mixture. Anything else has one member, of weight 1.
    members : ndarray of int64, (members + 1,), optional
        First sample of each member, and the end; None where there is one. Members may have no sample.
    """

    digest: str
    starts: Ints
    height: Sizes
    width: Sizes
    bins: Bins
    levels: int = 5
    box: Sizes | None = None
    rows: Sizes | None = None
    weights: tuple[float, ...] = (1.0,)
    members: Ints | None = None

    def __len__(self) -> int:
        """Count the samples."""
        return int(self.starts[-1])

    def row(self, index: Ints) -> Ints:
        """Return the manifest rows of samples."""
        return index if self.rows is None else self.rows[index].astype(np.int64)

    def regions(self, index: Ints, content: bool) -> Ints:
        """Return the content boxes of samples, or their whole images: int64 (n, 4), top, left, height, width."""
        if content and self.box is not None:
            return self.box[index].astype(np.int64)
        out = np.zeros((len(index), 4), np.int64)
        out[:, 2], out[:, 3] = self.height[index], self.width[index]
        return out

    def of_members(self) -> Iterator[Weighted]:
        """Go through the members: which samples are theirs, and of which weight."""
        bounds = np.array([0, len(self)]) if self.members is None else self.members
        for start, end, weight in zip(bounds[:-1].tolist(), bounds[1:].tolist(), self.weights, strict=True):
            yield Weighted(start, end, weight)

    def select(self, keep: npt.NDArray[np.bool_], digest: str, spare: bool = False) -> "Samples":
        """Keep some samples; shards left without any vanish.

        Parameters
        ----------
        keep : ndarray of bool, (n,)
            Which of them.
        digest : str
            Names the selection.
        spare : bool
            Whether sizes are moved together where they lie, and these samples are of no use afterwards: copies of
            those of 10**8 samples take 400 MB.
        """
        index: Sizes = np.empty(np.count_nonzero(keep), np.uint32 if len(keep) < 1 << 32 else np.int64)
        sizes = (
            [self.height, self.width] if spare else [np.empty(len(index), of.dtype) for of in (self.height, self.width)]
        )
        end = 0
        for start in range(0, len(keep), _CHUNK):
            part = np.flatnonzero(keep[start : start + _CHUNK]) + start
            here = slice(end, end := end + len(part))
            index[here] = part
            for to, of in zip(sizes, (self.height, self.width), strict=True):
                to[here] = of[part]

        def before(bounds: Ints) -> Ints:
            return np.searchsorted(index, bounds.astype(index.dtype))

        starts = before(self.starts)
        return replace(
            self,
            digest=digest,
            starts=starts[np.diff(starts, prepend=-1) > 0],
            height=sizes[0][:end],
            width=sizes[1][:end],
            box=None if self.box is None else self.box[keep],
            rows=index if self.rows is None else self.rows[keep],
            members=None if self.members is None else before(self.members),
        )
