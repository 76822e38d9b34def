"""Where image sizes lie and which bin takes them: a density, never a mark a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div
from shardkit.report.numbers import number
from shardkit.report.plots import Plot
from shardkit.report.theme import TONES, colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Ints = npt.NDArray[np.int64]

_SQUARE = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])  # x and y of a cell's corners, in cells
_CELLS = 64  # along the longer axis
_SIDE = 560.0  # points that the longer axis takes, about
_LETTER, _LINE, _MARGIN = 6.6, 12.5, 3.0  # points: room that labels take


@dataclass(frozen=True, slots=True)
class SizeMap:
    """The sizes of a dataset's images.

    Parameters
    ----------
    heights, widths
        Pixels, shape (n,).
    bins
        (height, width, samples) of each bin, in pixels.
    patch
        Pixels a side.
    """

    heights: npt.NDArray[Any]
    widths: npt.NDArray[Any]
    bins: Sequence[tuple[int, int, int]]
    patch: int

    @property
    def extent(self) -> tuple[int, int]:
        """The largest height and width of an image or a bin, in pixels."""
        tallest = max([b[0] for b in self.bins] + [int(self.heights.max(initial=1))])
        widest = max([b[1] for b in self.bins] + [int(self.widths.max(initial=1))])
        return tallest, widest

    @property
    def cell(self) -> int:
        """Pixels a side of a cell of the density: whole patches."""
        return self.patch * max(1, ceil_div(max(self.extent), self.patch * _CELLS))

    def plot(self) -> Plot:
        """Return the drawing: cells, then edges of bins, then counts."""
        rows, cols = self.extent
        scale = _SIDE / max(rows, cols)
        return Plot(self._draw, self.about(), extent=(max(cols * scale, 260) + 60, rows * scale + 50))

    def about(self) -> str:
        """Return what the drawing shows in a sentence."""
        if not len(self.heights):
            return f"No image; bins: {len(self.bins)}."
        sides = [f"{int(f(axis)):,}" for axis in (self.heights, self.widths) for f in (np.min, np.max)]
        height, width, count = max(self.bins, key=lambda b: (b[2], b))
        return (
            f"Density of the sizes of {number(len(self.heights))} images, {sides[0]} to {sides[1]} pixels high and "
            f"{sides[2]} to {sides[3]} wide, with {len(self.bins)} bins drawn over; the fullest, "
            f"{height:,} × {width:,} (height × width), holds {number(count)}."
        )

    def density(self) -> list[tuple[str, int, int, Ints]]:
        """Return (tone, least, most, cells (k, 2) as row and column) of each step of the scale, from few to many.

        A cell is closed above, as bins are: an image of a bin's very size lies inside.
        """
        cell = self.cell
        cols = ceil_div(self.extent[1], cell)
        flat = (self.heights.astype(np.int64) - 1) // cell * cols + (self.widths.astype(np.int64) - 1) // cell
        counts = np.bincount(flat)
        used = np.flatnonzero(counts)
        if not len(used):
            return []
        steps = np.geomspace(1, max(2, counts.max()), len(TONES) + 1)[:-1]
        floors = np.unique(np.ceil(steps - 1e-9)).astype(int)
        tones = np.linspace(0, len(TONES) - 1, len(floors)).round().astype(int)
        classes = np.searchsorted(floors, counts[used], side="right") - 1
        ends = [*(floors[1:] - 1), counts.max()]
        found = [
            (TONES[tone], int(low), int(high), np.stack(np.divmod(used[classes == i], cols), 1))
            for i, (tone, low, high) in enumerate(zip(tones, floors, ends, strict=True))
        ]
        return [step for step in found if step[2] >= step[1]]

    def steps(self) -> list[tuple[str, str]]:
        """Return (tone, images as words) of the scale."""
        return [(tone, number(a) if a == b else f"{number(a)}–{number(b)}") for tone, a, b, _ in self.density()]

    def _draw(self, axes: Axes) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path

        rows, cols = self.extent
        axes.set(xlim=(0, cols), ylim=(0, rows), aspect="equal", xlabel="width, pixels", ylabel="height, pixels")
        axes.grid(False)
        for axis, most in ((axes.xaxis, cols), (axes.yaxis, rows)):
            axis.set_ticks(range(0, most + 1, _tick(max(rows, cols))))
            axis.set_major_formatter("{x:,.0f}")
        for tone, _, _, cells in self.density():
            corners = self.cell * (cells[:, None, ::-1] + _SQUARE)
            if len(cells):
                path = Path.make_compound_path(*(Path(square, closed=True) for square in corners))
                axes.add_patch(PathPatch(path, fc=colour(tone), lw=0))
        for xs, ys in self._edges():
            axes.plot(xs, ys, color=colour("pale"), lw=0.9, solid_capstyle="projecting")
        axes.plot([b[1] for b in self.bins], [b[0] for b in self.bins], "o", ms=4.5, color=colour("ink"), mew=0)
        scale = _SIDE / max(rows, cols)
        for height, width, count, drop in self.labels():
            at = (width - _MARGIN / scale, height - (drop + _LINE - 2) / scale)
            axes.text(*at, number(count), ha="right", va="baseline", gid="class:count halo bold")

    def owners(self) -> tuple[Ints, Ints, Ints]:
        """Return (row edges, column edges, index of the smallest bin that holds each field between them, or -1)."""
        rows = np.unique([b[0] for b in self.bins]).astype(np.int64)
        cols = np.unique([b[1] for b in self.bins]).astype(np.int64)
        owners = np.full((len(rows), len(cols)), -1, np.int64)
        # From the largest to the smallest, so that what stays visible is the smallest containing bin.
        for _, i in sorted(((b[0] * b[1], i) for i, b in enumerate(self.bins)), reverse=True):
            owners[(rows <= self.bins[i][0])[:, None] & (cols <= self.bins[i][1])] = i
        return rows, cols, owners

    def _edges(self) -> list[tuple[list[float], list[float]]]:
        """Lines between sizes that go to different bins: x and y, in one with gaps each way."""
        if not self.bins:
            return []
        rows, cols, owners = self.owners()
        down, across = np.append(0, rows), np.append(0, cols)
        framed = np.pad(owners, ((0, 1), (0, 1)), constant_values=-1)
        level, upright = ([], []), ([], [])  # type: tuple[list[float], list[float]], tuple[list[float], list[float]]
        for r, c in np.argwhere(framed[:-1, :-1] != framed[1:, :-1]):
            level[0].extend((across[c], across[c + 1], np.nan))
            level[1].extend((down[r + 1], down[r + 1], np.nan))
        for r, c in np.argwhere(framed[:-1, :-1] != framed[:-1, 1:]):
            upright[0].extend((across[c + 1], across[c + 1], np.nan))
            upright[1].extend((down[r], down[r + 1], np.nan))
        return [level, upright]

    def labels(self) -> list[tuple[int, int, int, float]]:
        """Return (height, width, samples, points below the corner) of the bins whose count has room.

        Where there is none for all, fuller bins keep theirs.
        """
        scale = _SIDE / max(self.extent)
        taken: list[tuple[float, float, float, float]] = []
        found = []
        for height, width, count in sorted(self.bins, key=lambda b: (-b[2], b)):
            x, y, room = width * scale, height * scale, _LETTER * len(number(count))
            for drop in (0.0, _LINE):
                box = (x - _MARGIN - room, y - drop - _LINE, x - _MARGIN, y - drop)
                free = all(box[2] < t[0] or t[2] < box[0] or box[3] < t[1] or t[3] < box[1] for t in taken)
                if free and box[0] >= 0 and box[1] >= 0:
                    taken.append(box)
                    found.append((height, width, count, drop))
                    break
        return found


def _tick(most: int) -> int:
    """Round pixels between two ticks, for at most 12 of them."""
    step = next((s for s in (16, 32, 64, 128, 256, 512) if most / s <= 7), 1024)
    while most / step > 12:
        step *= 2
    return step
