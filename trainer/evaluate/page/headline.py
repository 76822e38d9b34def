"""What stands above all: one score of each run at each site, with its interval, and sites at which it falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from shardkit.report import SERIES, Plot, colour, svg
from trainer.evaluate.intervals import Estimate
from trainer.evaluate.page.words import (
    images,
    in_sentence,
    interval,
    mean_name,
    overall,
    positives,
    scored,
    shown,
)
from trainer.evaluate.results import LESS_IS_BETTER, Entry, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONG = 60  # letters of a name in a drawing
_ROW, _WIDE = 38, 640.0  # points


@dataclass(frozen=True, slots=True)
class Cell:
    """A run at a site, in a few lines.

    Parameters
    ----------
    value, interval
        The score, and its interval or why there is none.
    lines
        What stands behind it.
    alert
        Whether it falls at this site, or cannot be told from chance.
    """

    value: str
    interval: str
    lines: tuple[str, ...]
    alert: bool


@dataclass(frozen=True, slots=True)
class Fall:
    """How much worse a run is at a site than at its best one: MOVER's interval, from those of the two scores.

    Parameters
    ----------
    best, entry
        The run at its best site, and at this one.
    by, low, high
        How much worse, and its interval.
    """

    best: Entry
    entry: Entry
    by: float
    low: float
    high: float


def chance(entry: Entry) -> float | None:
    """Return what guessing is worth; None where that depends on the data."""
    score = entry.headline.patients.score
    if score == "auc":
        return 0.5
    there = sum(one.value is not None for one in entry.headline.patients.of)
    return 1 / there if score == "balanced_accuracy" and there else None


def cells(of: Evaluation) -> list[tuple[str, list[Cell | None]]]:
    """Return a row for each run and a cell for each site, None where the run was not asked about it."""
    fallen = {(fall.entry.run, fall.entry.site) for fall in falls(of)}
    return [
        (run, [None if (entry := of.of(run, site)) is None else _cell(entry, fallen) for site in of.sites])
        for run in of.runs
    ]


def _cell(entry: Entry, fallen: set[tuple[str, str]]) -> Cell:
    found = overall(entry.headline)
    about = entry.first.about
    lines = [f"split {about.split}", images(entry.first), positives(entry.first)]
    if entry.headline.deviation is not None:
        lines.append(f"{len(entry.seeds)} seeds, deviation {shown(entry.headline.deviation)}")
    if words := scored(entry, entry.headline):
        lines.append(words)
    alert = (entry.run, entry.site) in fallen or _by_chance(entry, found)
    return Cell(shown(found.value), interval(found), tuple(lines), alert)


def falls(of: Evaluation) -> list[Fall]:
    """Return where a run is worse than at its best site by more than the intervals explain."""
    found = []
    for run in of.runs:
        scored_at = [
            entry for site in of.sites if (entry := of.of(run, site)) and overall(entry.headline).low is not None
        ]
        if len(scored_at) > 1:
            best = max(scored_at, key=_goodness)
            found += [_fall(best, entry) for entry in scored_at if entry is not best]
    return [fall for fall in found if fall.low > 0]


def _goodness(entry: Entry) -> float:
    value = overall(entry.headline).value
    assert value is not None
    return -value if entry.headline.patients.score in LESS_IS_BETTER else value


def _fall(best: Entry, entry: Entry) -> Fall:
    (one, a, b), (two, c, d) = (_turned(of) for of in (best, entry))
    by = one - two
    return Fall(best, entry, by, by - math.hypot(one - a, d - two), by + math.hypot(b - one, two - c))


def _turned(entry: Entry) -> tuple[float, float, float]:
    """Return a score and its interval, more being better."""
    found = overall(entry.headline)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    if entry.headline.patients.score in LESS_IS_BETTER:
        return -found.value, -found.high, -found.low
    return found.value, found.low, found.high


def _by_chance(entry: Entry, found: Estimate) -> bool:
    guess = chance(entry)
    return guess is not None and found.low is not None and found.low <= guess


def sentences(of: Evaluation) -> list[tuple[str, str]]:
    """Return (kind, sentence): sites at which a score falls, and scores that guessing would reach."""
    said = [("alert", _told(fall)) for fall in falls(of)]
    named = {(fall.entry.run, fall.entry.site) for fall in falls(of)}
    for entry in of.entries:
        found = overall(entry.headline)
        if (entry.run, entry.site) not in named and _by_chance(entry, found):
            name = mean_name(entry)
            said.append(("alert", f"{entry.run} at {entry.site}: {_against_chance(entry, name)}"))
    if len(of.sites) > 1 and not said:
        said.append(("good", "Between sites no score falls by more than the intervals explain."))
    return said


def _told(fall: Fall) -> str:
    score = fall.entry.headline.patients.score
    name = mean_name(fall.entry)
    (there, here) = (shown(overall(of.headline).value) for of in (fall.entry, fall.best))
    more = "more" if score in LESS_IS_BETTER else "less"
    verb = "rises" if score in LESS_IS_BETTER else "falls"
    told = (
        f"{fall.entry.run}: the {name} {verb} from {here} at {fall.best.site} to {there} at {fall.entry.site},"
        f" {shown(fall.by)} {more} ({shown(fall.low)} to {shown(fall.high)})."
    )
    return f"{told} {_against_chance(fall.entry, f'the {in_sentence(score)} there')}".strip()


def _against_chance(entry: Entry, what: str) -> str:
    guess, found = chance(entry), overall(entry.headline)
    if guess is None or found.low is None or found.high is None or found.low > guess:
        return ""
    if found.high < guess:
        return f"{_capital(what)} is below chance ({shown(guess)}): the run ranks more images the wrong way round."
    return f"{_capital(what)} cannot be told from chance ({shown(guess)})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def forest(of: Evaluation) -> Markup:
    """Draw each run at each site as a point with its interval; nothing where there is one."""
    rows = [(entry, overall(entry.headline)) for run in of.runs for site in of.sites if (entry := of.of(run, site))]
    if len(rows) == 1:
        return Markup("")
    told = "; ".join(f"{entry.run} at {entry.site} {shown(found.value)}, {interval(found)}" for entry, found in rows)
    guess = chance(rows[0][0])

    def draw(axes: Axes) -> None:
        if guess is not None:
            axes.axvline(guess, color=colour("red"), lw=1.2, ls=(0, (5, 4)))
            axes.annotate("chance", (guess, -0.85), xytext=(4, 0), textcoords="offset points", color=colour("red"))
        for at, (entry, found) in enumerate(rows):
            tone = colour(SERIES[of.sites.index(entry.site) % len(SERIES)])
            if found.low is not None and found.high is not None:
                axes.plot([found.low, found.high], [at, at], color=tone, lw=3)
            if found.value is not None:
                axes.plot([found.value], [at], marker="o", ms=7, color=tone)
            above: Any = {"xycoords": axes.get_yaxis_transform(), "xytext": (2, 7), "textcoords": "offset points"}
            axes.annotate(_short(entry, of), (0, at), color=colour("ink"), gid="class:halo", **above)
        axes.set_yticks([])
        axes.set_ylim(len(rows) - 0.4, -1.2)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)

    name = mean_name(rows[0][0])
    return svg(Plot(draw, f"{name}: {told}", extent=(_WIDE, 66.0 + _ROW * len(rows))))


def _short(entry: Entry, of: Evaluation) -> str:
    parts: Sequence[str] = [entry.run] * (len(of.runs) > 1) + [entry.site] * (len(of.sites) > 1 or len(of.runs) == 1)
    text = " at ".join(parts)
    return text if len(text) <= _LONG else f"{text[: _LONG // 2]}…{text[-_LONG // 2 :]}"
