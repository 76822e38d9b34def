"""How much worse a run is at one site than at another, on the classes that both of them score."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from trainer.evaluate.intervals import Estimate
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.statistics import LESS_IS_BETTER

if TYPE_CHECKING:
    from trainer.evaluate.results import Entry


@dataclass(frozen=True, slots=True)
class Fall:
    """How much worse a run is at a site than at its best other one: MOVER's interval, from those of the two scores.

    Attributes
    ----------
    best, entry : Entry
        The run at the other site, and at this one.
    classes : tuple of str
        What both scores are means of: the classes that both sites score; if one of these has no interval at a site,
        and so neither has their mean, those that have one at both.
    here, there : Estimate
        The score at `best`, and at `entry`.
    by, low, high : float
        How much worse, and its interval.
    """

    best: Entry
    entry: Entry
    classes: tuple[str, ...]
    here: Estimate
    there: Estimate
    by: float
    low: float
    high: float


def worst_fall(entry: Entry, others: Collection[Entry]) -> Fall | None:
    """Hold a run at a site against itself at the others: return where it is best; None where nothing can be compared.

    Parameters
    ----------
    entry, others
        The same run, at sites.
    """
    found = [fall for other in others if other is not entry and (fall := _fall(other, entry)) is not None]
    return max(found, key=lambda fall: fall.by, default=None)


def only(of: Predictions, classes: Collection[str]) -> Predictions:
    """Return predictions in which nothing but some classes can be scored.

    Parameters
    ----------
    of
        Predictions. Samples of other categories are left out; of other tasks the other targets become unknown.
    classes
        Some of its classes.
    """
    if of.about.kind == "multiclass":
        return of.take((of.targets[:, [name in classes for name in of.classes]] == 1).any(axis=1))
    table = of.table
    for at, column in enumerate(table.column_names):
        kind, _, name = column.partition(".")
        if kind == "target" and name not in classes:
            table = table.set_column(at, column, pa.nulls(len(of), pa.float64()))
    return Predictions(of.about, table)


def _fall(best: Entry, entry: Entry) -> Fall | None:
    scored = both_score(best, entry)
    certain = tuple(name for name in scored if name in _certain(best) & _certain(entry))
    for classes in (scored, certain):
        estimates = [of.on(classes).overall.mean for of in (best, entry)] if classes else []
        if estimates and all(one.low is not None for one in estimates):
            return _between(best, entry, classes, *estimates)
    return None


def _between(best: Entry, entry: Entry, classes: tuple[str, ...], here: Estimate, there: Estimate) -> Fall:
    less = entry.headline.patients.score in LESS_IS_BETTER
    (one, a, b), (two, c, d) = (_turned(of, less) for of in (here, there))
    by = one - two
    low, high = by - math.hypot(one - a, d - two), by + math.hypot(b - one, two - c)
    return Fall(best, entry, classes, here, there, by, low, high)


def both_score(best: Entry, entry: Entry) -> tuple[str, ...]:
    """Return the classes that a run has a score of at two sites, in their order."""
    return tuple(name for name in best.scored if name in entry.scored)


def _certain(entry: Entry) -> set[str]:
    """Return the classes whose score has an interval."""
    return {one.name for one in entry.headline.overall.of if one.low is not None}


def _turned(of: Estimate, less: bool) -> tuple[float, float, float]:
    """Return a score and its interval, more being better."""
    value, low, high = (float(one or 0.0) for one in (of.value, of.low, of.high))
    return (-value, -high, -low) if less else (value, low, high)
