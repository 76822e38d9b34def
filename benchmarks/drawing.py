"""Plots that several benchmarks have, in the colours of all pages; whiskers are the spread over the repeats."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shardkit.report import Plot, colour
from shardkit.report.theme import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Spread = Mapping[str, float]
Series = Mapping[str, Sequence[Spread | None]]

_BAR = 13.0  # points that a bar takes
_LABEL = 26  # letters of a line


def bars(
    title: str,
    labels: Sequence[str],
    series: Series,
    *,
    unit: str,
    log: bool = False,
    level: float | None = None,
    most: float | None = None,
    words: Sequence[Sequence[str]] = (),
) -> Plot:
    """Return horizontal bars with their numbers, in groups.

    Parameters
    ----------
    title
        Above the plot.
    labels
        Names of the groups, from above.
    series
        Name -> median, min and max of each group; None where nothing was measured.
    unit
        What the axis shows.
    log
        Whether the axis is logarithmic.
    level
        Where a line across all bars is drawn.
    most
        Where longer bars end, with an arrow after their number.
    words
        In place of the medians: for each series, a text for each group.
    """
    texts = words or [[_short(spread, most) for spread in row] for row in series.values()]
    low, high = _ends([spread for row in series.values() for spread in row if spread], most, log)
    step = 0.84 / len(series)

    def draw(axes: Axes) -> None:
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        for at, row in enumerate(series.values()):
            for group, spread in enumerate(row):
                if spread is None:
                    continue
                place = group + (at - (len(series) - 1) / 2) * step
                end = reach = min(spread["median"], most or spread["median"])
                axes.barh(place, end - low, step * 0.88, left=low, color=colour(SERIES[at]))
                if end == spread["median"] and spread["max"] > spread["min"]:
                    axes.plot([max(low, spread["min"]), spread["max"]], [place, place], color=colour("ink"), lw=1)
                    reach = spread["max"]
                beside = (reach, place)
                axes.annotate(
                    texts[at][group], beside, (4, 0), textcoords="offset points", va="center", color=colour("soft")
                )
        if level is not None:
            axes.axvline(level, color=colour("ink"), lw=1)
        if log:
            axes.set_xscale("log")
            _plain(axes.xaxis)
        axes.set_yticks(range(len(labels)), ["\n".join(textwrap.wrap(label, _LABEL)) for label in labels])
        axes.set(xlabel=unit, ylim=(len(labels) - 0.5, -0.5), xlim=(low, high))

    told = [
        f"{label}: "
        + ", ".join(f"{name} {row[at]}".strip() for name, row in zip(series, texts, strict=True) if row[at])
        for at, label in enumerate(labels)
    ]
    height = 56.0 + _BAR * sum(max(len(series), len(textwrap.wrap(label, _LABEL)), 1.6) for label in labels)
    return Plot(draw, f"{title}, {unit}. {'; '.join(told)}.", title, (440.0, height), _keys(series))


def lines(
    title: str,
    series: Mapping[str, Sequence[tuple[float | str, Spread]]],
    *,
    unit: str,
    across: str,
    log: bool = False,
) -> Plot:
    """Return lines with a mark a measurement.

    Parameters
    ----------
    title
        Above the plot.
    series
        Name -> where along the x axis (a number, or a word a place), and median, min and max.
    unit, across
        What the axes show.
    log
        Whether both axes are logarithmic.
    """

    def draw(axes: Axes) -> None:
        for at, points in enumerate(series.values()):
            places, tone = [place for place, _ in points], colour(SERIES[at])
            axes.plot(places, [of["median"] for _, of in points], "o-", ms=4, color=tone)
            axes.vlines(places, [of["min"] for _, of in points], [of["max"] for _, of in points], tone)
        if log:
            axes.set(xscale="log", yscale="log")
            _plain(axes.xaxis)
            _plain(axes.yaxis)
        else:
            axes.set_ylim(0, None)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="x")
        axes.set(xlabel=across, ylabel=unit)

    told = [
        f"{name}: " + ", ".join(f"{_short(of)} at {at if isinstance(at, str) else number(at)}" for at, of in points)
        for name, points in series.items()
    ]
    return Plot(draw, f"{title}, {unit} by {across}. {'; '.join(told)}.", title, (440.0, 240.0), _keys(series))


def number(value: float) -> str:
    """Return three digits or more."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _keys(series: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(series, SERIES, strict=False)) if len(series) > 1 else ()


def _ends(found: Sequence[Spread], most: float | None, log: bool) -> tuple[float, float]:
    """Where the axis begins and ends: beyond the longest bar there is room for its number."""
    high = max(min(of["max"], most or of["max"]) for of in found)
    if not log:
        return 0.0, high * 1.2
    low = min(of["min"] for of in found)
    low = 10.0 ** math.floor(math.log10(low * 0.8))
    return low, high * (high / low) ** 0.25


def _plain(axis: object) -> None:
    """Numbers as they are, not as powers."""
    from matplotlib.axis import Axis
    from matplotlib.ticker import LogLocator, NullLocator

    assert isinstance(axis, Axis)
    axis.set_major_locator(LogLocator(numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _short(spread: Spread | None, most: float | None = None) -> str:
    if spread is None:
        return ""
    return number(spread["median"]) + (" →" if most is not None and spread["median"] > most else "")
