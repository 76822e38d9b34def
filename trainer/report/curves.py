"""Curves over the steps of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from shardkit.report import Plot, colour, svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Sequence[tuple[float, float | None]]
Floats = npt.NDArray[np.float64]

WINDOW = 0.03  # share of a curve's points that a smoothed one is a mean of
WIDE, SMALL = (640.0, 300.0), (440.0, 210.0)  # points
_BUCKETS = 600  # a path has at most two points in each: its size does not grow with the run


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a plot.

    Parameters
    ----------
    name
        In the legend.
    points
        (x, y), x rising; where y is None or not finite the line has a gap.
    colour
        Name in the palette of `shardkit.report`.
    thin
        Whether it is a faint line behind others.
    kind
        Class of its SVG element, beside "thin" or "thick".
    """

    name: str
    points: Points
    colour: str = "blue"
    thin: bool = False
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Level:
    """A value that lines are held against: drawn dashed, and a line that stands above it in the colour of a warning."""

    name: str
    value: float


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    extent: tuple[float, float] = WIDE,
    level: Level | None = None,
    floor: float | None = None,
    unit: str = "",
) -> Markup:
    """Return an SVG of lines over the step; a sentence in place of it where no value is finite.

    Parameters
    ----------
    lines
        The last one is what the words for who does not see the drawing tell of.
    title
        What is drawn, in a few words.
    extent
        Width and height in points.
    level
        What the lines are held against.
    floor
        Where a linear y axis begins. Without one it fits the values, and is logarithmic where they are positive and
        span more than a factor of ten.
    unit
        Stands after a number at the y axis.
    """
    values = [y for line in lines for y in _arrays(line.points)[1] if math.isfinite(y)]
    if not values:
        return Markup('<p class="soft">No finite value yet.</p>')
    scale = _Scale.around([*values, *([level.value] if level else [])], floor)

    def draw(axes: Axes) -> None:
        for line in lines:
            _draw(axes, line)
            if level and not line.thin:
                _draw(axes, Line("", above(line.points, level.value), "red", kind="above"))
        if level:
            _draw_level(axes, level, scale)
        _axes(axes, [x for line in lines for x, _ in line.points], scale, unit)

    return svg(Plot(draw, _about(title, lines, level, unit), extent=extent))


def smoothed(points: Points, share: float = WINDOW) -> Points:
    """Return means over a centred window of this share of the points; a gap stays one.

    At the start the window grows with the curve on both sides: a steep fall there is not flattened.
    """
    x, y = _arrays(points)
    finite, at, half = np.isfinite(y), np.arange(len(y)), max(1, round(len(y) * share / 2))
    right = np.minimum(np.minimum(at, half), len(y) - 1 - at) + at + 1
    left = at - np.minimum(at, half)
    total, count = (np.append(0.0, np.cumsum(v)) for v in (np.where(finite, y, 0.0), finite))
    means = (total[right] - total[left]) / np.maximum(count[right] - count[left], 1)
    return [(a, b if there else None) for a, b, there in zip(x.tolist(), means.tolist(), finite, strict=True)]


def above(points: Points, value: float) -> Points:
    """Return the same points with gaps where they are not above a value."""
    return [(x, y if y is not None and y > value else None) for x, y in points]


def short(value: float) -> str:
    """Return a number in few letters, such as 1,500, 0.25 or 5e-4."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.4g}"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    return f"{value / 10.0**power:.3g}e{power}"


def _arrays(points: Points) -> tuple[Floats, Floats]:
    x, y = (np.array(v, np.float64) for v in (list(zip(*points, strict=True)) or [(), ()]))
    return x, np.where(np.isfinite(y), y, np.nan)


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Least and greatest of each of so many stretches: what sticks out still does."""
    if len(x) <= 2 * _BUCKETS:
        return x, y
    chosen = []
    for part in np.array_split(np.arange(len(x)), _BUCKETS):
        there = part[np.isfinite(y[part])]
        chosen += sorted({there[y[there].argmin()], there[y[there].argmax()]}) if len(there) else [part[0]]
    return x[chosen], y[chosen]


def _dotted(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Double lone points: a path of one point draws nothing, one of two a dot."""
    gap = np.concatenate([[True], ~np.isfinite(y), [True]])
    times = np.where(gap[:-2] & gap[2:] & ~gap[1:-1], 2, 1)
    return np.repeat(x, times), np.repeat(y, times)


def _about(title: str, lines: Sequence[Line], level: Level | None, unit: str) -> str:
    found = [(x, y) for x, y in lines[-1].points if y is not None and math.isfinite(y)]
    if not found:
        return f"{title}: no finite value"
    (first, a), (last, b) = found[0], found[-1]
    held = f"; {level.name}" if level else ""
    return f"{title}: {short(a)}{unit} at step {first:,.0f}, {short(b)}{unit} at step {last:,.0f}{held}"


@dataclass(frozen=True, slots=True)
class _Scale:
    """The y axis."""

    low: float
    high: float
    log: bool

    @classmethod
    def around(cls, values: Sequence[float], floor: float | None) -> _Scale:
        low, high = min(values), max(values)
        if floor is None and low > 0 and high > 10 * low:
            return cls(low / 1.1, high * 1.1, True)
        low = low if floor is None else min(low, floor)
        room = 0.05 * (high - low) or abs(high) or 1.0
        return cls(low - room if floor is None else low, high + room, False)

    def share(self, value: float) -> float:
        """How far up a value lies, from 0 to 1."""
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (at - low) / (high - low)


def _draw(axes: Axes, line: Line) -> None:
    x, y = _dotted(*_thinned(*_arrays(line.points)))
    if np.isfinite(y).any():
        width, alpha = (1.0, 0.45) if line.thin else (2.0, 1.0)
        kind = f"class:{'thin' if line.thin else 'thick'} {line.kind}".rstrip()
        axes.plot(x, y, color=colour(line.colour), lw=width, alpha=alpha, gid=kind)


def _draw_level(axes: Axes, level: Level, scale: _Scale) -> None:
    axes.axhline(level.value, color=colour("red"), lw=1.2, ls=(0, (5, 4)), gid="class:level")
    down = scale.share(level.value) > 0.9
    axes.annotate(
        level.name,
        (1, level.value),
        xycoords=("axes fraction", "data"),
        xytext=(0, -5 if down else 5),
        textcoords="offset points",
        ha="right",
        va="top" if down else "bottom",
        color=colour("red"),
        gid="class:halo",
    )


def _axes(axes: Axes, steps: Sequence[float], scale: _Scale, unit: str) -> None:
    from matplotlib import ticker

    axes.grid(True, axis="y")
    axes.grid(False, axis="x")
    axes.spines["left"].set_visible(False)
    axes.set(xlabel="step", xlim=(min(steps), max(max(steps), min(steps) + 1)))
    if scale.log:
        axes.set_yscale("log")
        decades = math.log10(scale.high / scale.low)
        subs = (1, 2, 3, 5, 7) if decades < 1.4 else (1, 2, 5) if decades < 2.2 else (1, 3) if decades < 4 else (1,)
        axes.yaxis.set_major_locator(ticker.LogLocator(subs=subs, numticks=12))
        axes.yaxis.set_minor_locator(ticker.NullLocator())
    else:
        axes.yaxis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.yaxis.set_major_formatter(lambda value, _: short(value) + unit)
    axes.set_ylim(scale.low, scale.high)
