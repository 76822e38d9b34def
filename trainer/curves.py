"""Line charts as SVG, by hand: a page needs no plotting library, no script, no network."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shardkit.charts import text

Points = Sequence[tuple[float, float | None]]
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 16.0, 12.0, 30.0
COLOURS = (
    "#0e3f70", "#c2571a", "#2e7d4f", "#7b3fa0", "#b08900", "#c2185b",
    "#4e90c6", "#e08a5b", "#77b58c", "#b48cc9", "#8a7a45", "#7a7a7a",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """points: (x, y); where y is None or not finite the line has a gap. thin: a faint line behind others."""

    name: str
    points: Points
    colour: str = COLOURS[0]
    thin: bool = False


def chart(
    lines: Sequence[Line], *, size: tuple[float, float] = (720, 300), level: tuple[str, float] | None = None
) -> str:
    """An SVG of lines over one axis each way; y is logarithmic where values span more than a factor of ten.

    level: a name and a height to draw a dashed line at.
    """
    values = [y for line in lines for _, y in line.points if _real(y)]
    across = [x for line in lines for x, y in line.points if _real(y)]
    if not values:
        return "<p class=soft>nothing yet</p>"
    heights = [y for y in values if y is not None] + ([level[1]] if level else [])
    frame = _Frame.around(min(across), max(across), heights, size)
    marks = [frame.grid(), *(frame.path(line) for line in lines)]
    if level is not None:
        marks.append(frame.level(*level))
    width, height = size
    return f'<svg class="curve" viewBox="0 0 {width:.0f} {height:.0f}" role="img">{"".join(marks)}</svg>'


def smoothed(points: Points, share: float = 0.05) -> Points:
    """Means over a trailing window of this share of the points."""
    length, found = max(1, round(len(points) * share)), []
    for at, (x, y) in enumerate(points):
        near = [v for _, v in points[max(0, at - length + 1) : at + 1] if v is not None and _real(v)]
        found.append((x, sum(near) / len(near) if near and _real(y) else None))
    return found


def legend(lines: Sequence[Line]) -> str:
    """Names beside their colours, as HTML."""
    return "".join(
        f'<span class="key"><i style="background:{line.colour}"></i>{text(line.name)}</span>' for line in lines
    )


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
    def around(cls, left: float, right: float, heights: Sequence[float], size: tuple[float, float]) -> "_Frame":
        low, high = min(heights), max(heights)
        log = low > 0 and high / low > 10
        if not log:
            low, high = min(low, 0.0) if low < 0.4 * high or low == high else low, high
        if low == high:
            high = low + (abs(low) or 1.0)
        return cls(left, right if right > left else left + 1, low, high, log, size)

    def x(self, value: float) -> float:
        return _LEFT + (value - self.left) / (self.right - self.left) * (self.size[0] - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (self._scale(value) - self._scale(self.low)) / (self._scale(self.high) - self._scale(self.low))
        return self.size[1] - _BOTTOM - share * (self.size[1] - _TOP - _BOTTOM)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value

    def grid(self) -> str:
        parts, (width, height) = [], self.size
        for value in _decades(self.low, self.high) if self.log else ticks(self.low, self.high):
            y = self.y(value)
            parts.append(
                f'<path class="grid" d="M{_LEFT} {y:.1f}H{width - _RIGHT:.1f}"/>'
                f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(value)}</text>'
            )
        for value in ticks(self.left, self.right):
            parts.append(
                f'<text x="{self.x(value):.1f}" y="{height - 10:.0f}" text-anchor="middle">{_short(value)}</text>'
            )
        return "".join(parts)

    def path(self, line: Line) -> str:
        runs: list[list[str]] = [[]]
        for x, y in line.points:
            if y is not None and _real(y):
                runs[-1].append(f"{self.x(x):.1f} {self.y(y):.1f}")
            elif runs[-1]:
                runs.append([])
        drawn = "".join(f"M{'L'.join(run if len(run) > 1 else run * 2)}" for run in runs if run)
        kind = "thin" if line.thin else "thick"
        return f'<path class="{kind}" stroke="{line.colour}" d="{drawn}"/>'

    def level(self, name: str, value: float) -> str:
        y, end = self.y(value), self.size[0] - _RIGHT
        return (
            f'<path class="level" d="M{_LEFT} {y:.1f}H{end:.1f}"/>'
            f'<text class="level" x="{end:.1f}" y="{y - 5:.1f}" text-anchor="end">{text(name)}</text>'
        )


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values between two."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step = next(step * factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= about)
    return [at * step for at in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [m * 10.0**power for power in range(first, last + 1) for m in (1, 2, 5)]
    return [value for value in found if low <= value <= high]


def _real(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _short(value: float) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:.4g}"
