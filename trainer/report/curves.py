"""Line charts as SVG, by hand: a page needs no plotting library, no script, no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardkit.report.charts import text

Points = Sequence[tuple[float, float | None]]
Floats = npt.NDArray[np.float64]

COLOURS = (
    "#0e3f70", "#2f6fad", "#4aa3c7", "#2c7d66", "#62ab68", "#9aa83a",
    "#c9a227", "#dd8435", "#bf4f1d", "#b5434d", "#93407f", "#5b4a9c",
)  # fmt: skip
"""In the order of the rainbow, so that neighbours in a legend are neighbours in hue."""
BLUE = COLOURS[1]
WINDOW = 0.03  # share of a curve's points that a smoothed one is a mean of
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 14.0, 14.0, 40.0
_BUCKETS = 600  # a path has at most two points in each: its size does not grow with the run

STYLE = """
.curve{display:block;width:100%;height:auto;font-size:11px;fill:var(--soft)}.curve path{fill:none;stroke-linejoin:round;
stroke-linecap:round}.curve .end{text-anchor:end}.curve .mid{text-anchor:middle}.curve .grid{stroke:var(--line)}
.curve .axis{stroke:var(--soft)}.curve .thin{stroke-width:1;stroke-opacity:.4}.curve .thick{stroke-width:2}
.curve .level{stroke:var(--quarantined);stroke-width:1.4;stroke-dasharray:6 5}
.curve .name{fill:var(--quarantined);text-anchor:end;paint-order:stroke;stroke:#fff;stroke-width:4px;font-size:12px}
.key{margin-right:20px;white-space:nowrap;font-size:12.5px;color:var(--soft)}
.key i{display:inline-block;width:20px;margin-right:7px;vertical-align:middle}
"""


@dataclass(frozen=True, slots=True)
class Line:
    """points: (x, y), x rising; where y is None or not finite the line has a gap. thin: a faint line behind others."""

    name: str
    points: Points
    colour: str = BLUE
    thin: bool = False


def chart(
    lines: Sequence[Line],
    *,
    size: tuple[float, float] = (1180, 380),
    level: tuple[str, float] | None = None,
    floor: float | None = None,
    unit: str = "",
    about: str = "",
) -> str:
    """An SVG of lines over the step.

    level: a name and a height to draw a dashed line at. floor: where a linear y axis begins; without one it fits the
    values, and is logarithmic where they are positive and span more than a factor of ten. unit: after a number at the
    y axis. about: what a screen reader says. A sentence in place of the drawing where no value is finite.
    """
    ends = [(x, y) for line in lines for x, y in zip(*_arrays(line.points), strict=True) if math.isfinite(y)]
    if not ends:
        return '<p class="soft">No finite value yet.</p>'
    across, heights = zip(*ends, strict=True)
    drawn = _Frame.around(across, [*heights, *([level[1]] if level else [])], size, floor)
    marks = [drawn.grid(unit), *(drawn.path(line) for line in lines), drawn.level(*level) if level else ""]
    return (
        f'<svg class="curve" viewBox="0 0 {size[0]:.0f} {size[1]:.0f}" role="img" aria-label="{text(about)}">'
        f"{''.join(marks)}</svg>"
    )


def smoothed(points: Points, share: float = WINDOW) -> Points:
    """Means over a centred window of this share of the points; a gap stays one.

    At the start the window grows with the curve on both sides: a steep fall there is not flattened.
    """
    x, y = _arrays(points)
    finite, at, half = np.isfinite(y), np.arange(len(y)), max(1, round(len(y) * share / 2))
    right = np.minimum(np.minimum(at, half), len(y) - 1 - at) + at + 1
    left = at - np.minimum(at, half)
    total, count = (np.append(0.0, np.cumsum(v)) for v in (np.where(finite, y, 0.0), finite))
    means = (total[right] - total[left]) / np.maximum(count[right] - count[left], 1)
    return [(a, b if there else None) for a, b, there in zip(x.tolist(), means.tolist(), finite, strict=True)]


def legend(lines: Sequence[Line]) -> str:
    """Names beside their lines, as HTML."""
    return "".join(
        f'<span class="key"><i style="border-top:{1 if line.thin else 2}px solid {line.colour}"></i>'
        f"{text(line.name)}</span>"
        for line in lines
    )


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


@dataclass(frozen=True, slots=True)
class _Frame:
    """Where values lie on a drawing."""

    left: float
    right: float
    low: float
    high: float
    log: bool
    size: tuple[float, float]

    @classmethod
    def around(
        cls, across: Sequence[float], heights: Sequence[float], size: tuple[float, float], floor: float | None
    ) -> "_Frame":
        low, high = min(heights), max(heights)
        log = floor is None and low > 0 and high > 10 * low
        if log:
            low, high = low / 1.1, high * 1.1
        else:
            low = low if floor is None else min(low, floor)
            room = 0.05 * (high - low) or abs(high) or 1.0
            low, high = low - room if floor is None else low, high + room
        return cls(min(across), max(max(across), min(across) + 1), low, high, log, size)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (self.size[0] - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high, at = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.size[1] - _BOTTOM - (at - low) / (high - low) * (self.size[1] - _TOP - _BOTTOM)

    def grid(self, unit: str) -> str:
        width, height = self.size
        bottom, end, parts = height - _BOTTOM, width - _RIGHT, []
        rows = round((height - _TOP - _BOTTOM) / 38)
        for value in log_ticks(self.low, self.high, rows) if self.log else ticks(self.low, self.high, rows):
            y = self.y(value)
            parts.append(f'<path class="grid" d="M{_LEFT:.0f} {y:.1f}H{end:.0f}"/>')
            parts.append(f'<text class="end" x="{_LEFT - 7:.0f}" y="{y + 4:.1f}">{_short(value)}{text(unit)}</text>')
        parts.append(f'<path class="axis" d="M{_LEFT:.0f} {bottom:.0f}H{end:.0f}"/>')
        for value in ticks(self.left, self.right, max(3, round(width / 150))):
            if value == round(value):  # there is no step between two
                x = self.x(value)
                parts.append(f'<path class="axis" d="M{x:.1f} {bottom:.0f}v4"/>')
                parts.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 17:.0f}">{_short(value)}</text>')
        parts.append(f'<text class="mid" x="{(_LEFT + end) / 2:.0f}" y="{bottom + 34:.0f}">step</text>')
        return "".join(parts)

    def path(self, line: Line) -> str:
        runs: list[list[str]] = [[]]
        for x, y in zip(*_thinned(*_arrays(line.points)), strict=True):
            if math.isfinite(y):
                runs[-1].append(f"{self.x(x):.1f} {self.y(y):.1f}")
            elif runs[-1]:
                runs.append([])
        drawn = "".join(f"M{'L'.join(run if len(run) > 1 else run * 2)}" for run in runs if run)
        return (
            f'<path class="{"thin" if line.thin else "thick"}" stroke="{line.colour}" d="{drawn}">'
            f"<title>{text(line.name)}</title></path>"
        )

    def level(self, name: str, value: float) -> str:
        y, end = self.y(value), self.size[0] - _RIGHT
        below = 16 if y < _TOP + 16 else -6
        return (
            f'<path class="level" d="M{_LEFT:.0f} {y:.1f}H{end:.0f}"/>'
            f'<text class="name" x="{end:.0f}" y="{y + below:.1f}">{text(name)}</text>'
        )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values from `low` to `high`, at most about + 1 of them."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next(step * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (step * factor) <= about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [at * step for at in range(first, last + 1)]


def log_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """1, 2, 5 times powers of ten from `low` to `high` (both positive), or as many of the powers as there is room."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [m * 10.0**power for power in range(first, last + 1) for m in steps if low <= m * 10.0**power <= high]
        if len(found) <= about + 2:
            return found
    return found[:: -(-len(found) // about)]


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if value == 0 or abs(value) >= 0.001:
        return f"{value:.4g}"
    power = math.floor(math.log10(abs(value)) + 1e-9)
    return f"{value / 10.0**power:.3g}e{power}"
