"""How `shardkit.dataset.bin_choice.optimise` and `separable` find their bins: searches on a histogram of patch grids.

Everything here is in patches and candidate edges; nothing knows of pixels or images. NumPy only, exact integers.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
COARSE, FINE = 96, 192
"""Candidate edges an axis in the two passes of `optimise`."""
# Effort of the search: on the published sizes 36 bins settle within 6 sweeps and 2 escapes of either kind.
SWEEPS, FINE_SWEEPS, ESCAPES = 8, 3, 2

Chosen = list[tuple[int, int]]  # bins as (row, col) into the candidate edges; the first is the catch-all


@dataclass(frozen=True)
class Candidates:
    """Possible edges of bins, and the images between them.

    Parameters
    ----------
    rows, cols : numpy.ndarray
        Edges in patches, ascending, of shapes (R,) and (C,), int64.
    images : numpy.ndarray
        Images that need edges r and c, but not the ones before, of shape (R, C), int64.
    area : numpy.ndarray
        Tokens of the bin with edges r and c, of shape (R, C), int64.
    """

    rows: Ints
    cols: Ints
    images: Ints
    area: Ints

    @classmethod
    def of(cls, histogram: Ints, limit: int | None) -> "Candidates":
        """Take the occupied lines of a histogram and its last one, at most `limit` an axis.

        Parameters
        ----------
        histogram : numpy.ndarray
            Images by patch grid, at [rows - 1, cols - 1], int64.
        limit : int or None
            Most edges an axis; None for all.

        Returns
        -------
        Candidates
            The edges, and the images between them.
        """
        rows, cols = _lines(histogram.sum(1), limit), _lines(histogram.sum(0), limit)
        images = np.add.reduceat(histogram, np.append(0, rows[:-1]), axis=0)
        images = np.add.reduceat(images, np.append(0, cols[:-1]), axis=1)
        return cls(rows, cols, images, rows[:, None] * cols[None, :])

    def cost(self, chosen: Chosen) -> Ints:
        """Return the tokens that an image at each place is padded to, of shape (R, C), int64.

        They are the smallest area of the chosen bins that contain it.
        """
        cost = np.full(self.area.shape, self.area[-1, -1])
        for r, c in chosen:
            np.minimum(cost[: r + 1, : c + 1], self.area[r, c], out=cost[: r + 1, : c + 1])
        return cost

    def total(self, cost: Ints) -> int:
        """Return the padded tokens of all images."""
        return int((self.images * cost).sum())

    def change(self, before: Ints, after: Ints) -> Ints:
        """Return by how much the saving of adding each possible bin changes as costs change, of shape (R, C), int64.

        A bin of area a saves max(0, cost - a) on each image inside it. Costs take few values, and the images
        of one cost inside every possible bin are a two-dimensional cumulative sum: so all R * C bins are
        evaluated exactly in one pass a value, and values whose images did not move need no pass.
        """
        moved = np.where(before != after, self.images, 0)
        change = np.zeros(self.area.shape, np.int64)
        for cost, sign in ((before, -1), (after, 1)):
            for level in np.unique(cost[moved > 0]):
                inside = np.where(cost == level, moved, 0).cumsum(0).cumsum(1)
                change += sign * np.maximum(level - self.area, 0) * inside
        return change


def search(grid: Candidates, k: int) -> Chosen:
    """Return the catch-all and up to k - 1 more bins, locally optimal unless the caps on the search are reached."""
    chosen = _grow(grid, [(len(grid.rows) - 1, len(grid.cols) - 1)], k)
    chosen = exchange(grid, chosen, SWEEPS)
    for extra in (k // 2 + 2, k + 2) * ESCAPES:
        crowded = _grow(grid, chosen, k + extra)
        other = exchange(grid, _shrink(grid, crowded, k), SWEEPS)
        chosen = min(chosen, other, key=lambda bins: grid.total(grid.cost(bins)))  # the first of equals
    return chosen


def _grow(grid: Candidates, chosen: Chosen, k: int) -> Chosen:
    """Add the most useful bin until there are k or none saves anything."""
    chosen, cost = list(chosen), grid.cost(chosen)
    saved = grid.change(np.zeros_like(cost), cost)
    while len(chosen) < k and saved.max() > 0:
        chosen.append(_corner(saved))
        previous, cost = cost, grid.cost(chosen)
        saved += grid.change(previous, cost)
    return chosen


def _shrink(grid: Candidates, chosen: Chosen, k: int) -> Chosen:
    """Remove the least useful bin, never the catch-all, until there are k."""
    chosen = list(chosen)
    while len(chosen) > k:
        owner = np.zeros(grid.area.shape, np.int64)
        cost = np.full(grid.area.shape, grid.area[-1, -1])
        second = cost.copy()  # what an image would cost without its bin
        for i in sorted(range(1, len(chosen)), key=lambda i: -int(grid.area[chosen[i]])):
            inside = slice(chosen[i][0] + 1), slice(chosen[i][1] + 1)
            second[inside], cost[inside], owner[inside] = cost[inside], grid.area[chosen[i]], i
        losses = np.bincount(owner.ravel(), (grid.images * (second - cost)).ravel(), len(chosen))
        del chosen[1 + int(losses[1:].argmin())]
    return chosen


def exchange(grid: Candidates, chosen: Chosen, sweeps: int) -> Chosen:
    """Replace each bin but the catch-all by the best one given the others, until a whole sweep gains nothing.

    The old bin is among the candidates, so no step is a loss; moving one edge of a bin is a special case of it.
    """
    chosen, cost = list(chosen), grid.cost(chosen)
    saved = grid.change(np.zeros_like(cost), cost)
    for _ in range(sweeps):
        start = grid.total(cost)
        for i in range(1, len(chosen)):
            without = grid.cost(chosen[:i] + chosen[i + 1 :])
            saved += grid.change(cost, without)
            chosen[i] = _corner(saved)
            cost = grid.cost(chosen)
            saved += grid.change(without, cost)
        if grid.total(cost) == start:
            break
    return chosen


def _corner(saved: Ints) -> tuple[int, int]:
    """Return (row, col) of the largest saving, the first of equals."""
    row, col = divmod(int(saved.argmax()), saved.shape[1])
    return row, col


def descend(images: Ints, heights: Ints, widths: Ints, rows: int, cols: int) -> tuple[int, list[int], list[int]]:
    """Find cutoffs of both axes in turn, from evenly spread cutoffs of the columns.

    Parameters
    ----------
    images : numpy.ndarray
        Images by possible edges, of shape (R, C), int64.
    heights, widths : numpy.ndarray
        The possible edges in patches, ascending, of shapes (R,) and (C,), int64.
    rows, cols : int
        Most cutoffs of each axis.

    Returns
    -------
    padded : int
        Padded tokens of all images.
    down, across : list of int
        Cutoffs in patches along the heights and the widths.
    """
    spread = np.linspace(-1, len(widths) - 1, min(cols, len(widths)) + 1).round().astype(np.int64)
    across, total = widths[spread[1:]], -1
    while True:
        down = _cut(heights, images @ across[np.searchsorted(across, widths)], rows)
        rounded = down[np.searchsorted(down, heights)] @ images
        across = _cut(widths, rounded, cols)
        padded = int(rounded @ across[np.searchsorted(across, widths)])
        if padded == total:  # it never rises, each half-step being optimal
            return total, down.tolist(), across.tolist()
        total = padded


def _cut(lines: Ints, weights: Ints, count: int) -> Ints:
    """Return at most `count` of `lines` (n,), ascending and with the last, to which lines are rounded up.

    Of all choices it is one for which sum(weights * rounded line) is least, found by dynamic programming over the start
    of the last group, n**2 a cutoff.
    """
    n = len(lines)
    sums = np.append(0, np.cumsum(weights))
    group = lines * (sums[1:] - sums[:-1, None])  # [i, j]: lines i to j, all rounded up to line j
    group[np.tril_indices(n, -1)] = 1 << 61  # above any total, and the sum of two does not overflow
    best, starts = group[0], []
    for _ in range(1, min(count, n)):
        split = best[:-1, None] + group[1:]
        starts.append(split.argmin(0) + 1)
        best = split.min(0)
    cutoffs = [n - 1]
    for start in reversed(starts):
        cutoffs.append(int(start[cutoffs[-1]]) - 1)
    return lines[cutoffs[::-1]]


def _lines(counts: Ints, limit: int | None) -> Ints:
    """Return lengths in patches of the lines with images and of the last one, thinned evenly to `limit`."""
    lines = np.union1d(np.flatnonzero(counts) + 1, len(counts)).astype(np.int64)
    if limit is not None and len(lines) > limit:
        lines = lines[np.linspace(0, len(lines) - 1, limit).round().astype(np.int64)]
    return lines
