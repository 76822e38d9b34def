"""What stands above all: one score of each run at each site, with its interval, and sites at which it falls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from shardkit.report import SERIES, Plot, colour, svg
from shardkit.terminal.words import counted
from trainer.evaluate.falls import Fall, both_score
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
from trainer.evaluate.results import Entry, Evaluation
from trainer.evaluate.statistics import LESS_IS_BETTER

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


def chance(entry: Entry) -> float | None:
    """Return what guessing is worth; None where that depends on the data."""
    score = entry.headline.patients.score
    if score == "auc":
        return 0.5
    there = sum(one.value is not None for one in entry.headline.patients.of)
    return 1 / there if score == "balanced_accuracy" and there else None


def cells(of: Evaluation) -> list[tuple[str, list[Cell | None]]]:
    """Return a row for each run and a cell for each site, None where the run was not asked about it."""
    fallen, several_labels = {(fall.entry.run, fall.entry.site) for fall in falls(of)}, len(of.labels) > 1
    asked = {run: [of.of(run, site) for site in of.sites] for run in of.runs}
    return [
        (run, [None if one is None else _cell(one, fallen, several_labels) for one in entries])
        for run, entries in asked.items()
    ]


def _cell(entry: Entry, fallen: set[tuple[str, str]], several_labels: bool) -> Cell:
    found = overall(entry.headline)
    about = entry.first.about
    lines = [f"split {about.split}", images(entry.first), positives(entry.first)]
    if several_labels:
        lines.insert(0, f"labels {about.labels}")
    if entry.headline.deviation is not None:
        lines.append(f"{len(entry.seeds)} seeds, deviation {shown(entry.headline.deviation)}")
    if words := scored(entry, entry.headline):
        lines.append(words)
    alert = (entry.run, entry.site) in fallen or _by_chance(entry, found)
    return Cell(shown(found.value), interval(found), tuple(lines), alert)


def falls(of: Evaluation) -> list[Fall]:
    """Return where a run is worse than at its best site by more than the intervals explain."""
    return [fall for fall in of.falls if fall.low > 0]


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
    if of.falls and not said:
        said.append(("good", "Between sites no score falls by more than the intervals explain."))
    return said + [("", sentence) for run in of.runs if (sentence := _other_classes(of, run))]


def _other_classes(of: Evaluation, run: str) -> str:
    """Say that a run's means at some sites are over other classes than at its first one."""
    first, *others = [entry for site in of.sites if (entry := of.of(run, site)) is not None and entry.scored]
    apart = [entry.site for entry in others if entry.scored != first.scored]
    if not apart:
        return ""
    places = f"{first.site} and at {', '.join(apart)}"
    return f"{run}: the means at {places} are over different classes: sites are compared by those that both score."


def _told(fall: Fall) -> str:
    score = fall.entry.headline.patients.score
    name = mean_name(fall.entry)
    there, here = shown(fall.there.value), shown(fall.here.value)
    more = "more" if score in LESS_IS_BETTER else "less"
    verb = "rises" if score in LESS_IS_BETTER else "falls"
    told = (
        f"{fall.entry.run}: the {name} {verb} from {here} at {fall.best.site} to {there} at {fall.entry.site},"
        f" {shown(fall.by)} {more} ({shown(fall.low)} to {shown(fall.high)})"
    )
    if not fall.classes == fall.best.scored == fall.entry.scored:
        what = "that both score" if fall.classes == both_score(fall.best, fall.entry) else "with an interval at both"
        told += f", over the {counted(len(fall.classes), 'class', 'classes')} {what}"
    return f"{told}. {_against_chance(fall.entry, f'the {in_sentence(score)} there')}".strip()


def _against_chance(entry: Entry, what: str) -> str:
    guess, found = chance(entry), overall(entry.headline)
    if guess is None or found.low is None or found.high is None or found.low > guess:
        return ""
    if found.high < guess:
        ranked = entry.headline.patients.score == "auc"
        worse = "ranks more images the wrong way round" if ranked else "is wrong more often than guessing would be"
        return f"{_capital(what)} is below chance ({shown(guess)}): the run {worse}."
    return f"{_capital(what)} cannot be told from chance ({shown(guess)})."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def forest(of: Evaluation) -> Markup:
    """Draw each run at each site as a point with its interval; nothing where there is one."""
    rows = [(entry, overall(entry.headline)) for run in of.runs for site in of.sites if (entry := of.of(run, site))]
    if len(rows) == 1:
        return Markup("")
    guesses = [chance(entry) for entry, _ in rows]
    told = "; ".join(f"{entry.run} at {entry.site} {shown(found.value)}, {interval(found)}" for entry, found in rows)
    if len(set(guesses)) > 1:
        told += f"; chance {', '.join(map(shown, guesses))}"

    def draw(axes: Axes) -> None:
        for at, guess in enumerate(guesses):  # of categories it depends on how many a site has
            if guess is None:
                continue
            axes.plot([guess, guess], [at - 0.5, at + 0.5], color=colour("red"), lw=1.2, ls=(0, (5, 4)))
            if at == 0:
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
