"""Runs against each other on the same images, and the seeds of a run one by one."""

from dataclasses import dataclass

from markupsafe import Markup

from trainer.evaluate.comparison import Comparison
from trainer.evaluate.intervals import Estimate
from trainer.evaluate.page.classes import Table
from trainer.evaluate.page.words import NONE, at, in_sentence, mean_name, name_of, shown, signed
from trainer.evaluate.results import Entry, Evaluation
from trainer.evaluate.statistics import LESS_IS_BETTER

_LEAST_P = 0.001


@dataclass(frozen=True, slots=True)
class Against:
    """A run against another at a site.

    Parameters
    ----------
    title, sentence
        Which, and what came of it.
    table
        The same by class.
    """

    title: str
    sentence: str
    table: Table


def against(of: Evaluation) -> list[Against]:
    """Return each pair of runs at each site where both were asked about the same images."""
    return [_pair(*one) for one in of.comparisons]


def not_compared(of: Evaluation) -> list[str]:
    """Say which runs at a site are not compared, and why."""
    return [
        f"{one.run} and {other.run} at {one.site} are not compared: they {why}." for one, other, why in of.not_compared
    ]


def _pair(one: Entry, other: Entry, found: Comparison) -> Against:
    score, mean = found.differences.score, found.differences.mean
    name = mean_name(one)
    if mean.low is None or mean.high is None:
        sentence = f"No interval: {mean.reason}."
    else:
        better = (mean.low > 0) != (score in LESS_IS_BETTER)
        words = f"{one.run}’s {name} is {signed(mean.value)} of {other.run}’s ({_ends(mean)}, p {_p(found.p_mean)})"
        apart = mean.low > 0 or mean.high < 0
        sentence = f"{words}: {one.run if better else other.run} is better." if apart else f"{words}: not told apart."
    rows: list[list[str | Markup]] = []
    for k, estimate in enumerate(found.differences.of):
        tests = [_p(of[k]) for of in (found.delong_patients, found.delong) if of]
        rows.append([estimate.name, signed(estimate.value), _ends(estimate), _p(found.p[k]), *tests])
    head = ["Class", f"Difference in {in_sentence(score)}", "Interval", "p"]
    head += ["DeLong p, by patient", "DeLong p, by image"] * bool(found.delong)
    foot: list[str | Markup] = ["Mean", signed(mean.value), _ends(mean), _p(found.p_mean)]
    foot += [NONE, NONE] * bool(found.delong)
    title = f"{one.run} less {other.run}, at {one.site}"
    return Against(title, sentence, Table(title, head, rows, foot, []))


def _ends(of: Estimate) -> str:
    return NONE if of.low is None else f"{signed(of.low)} to {signed(of.high)}"


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return f"< {_LEAST_P}" if value < _LEAST_P else shown(value)


def seeds(of: Evaluation) -> list[Table]:
    """Return the mean scores of each seed of each run that has several, at each site."""
    return [_seeds(entry) for entry in of.entries if len(entry.seeds) > 1]


def _seeds(entry: Entry) -> Table:
    rows: list[list[str | Markup]] = []
    for score, found in entry.scores.items():
        values = [shown(value) for value in found.means]
        rows.append([name_of(score), *values, shown(found.patients.mean.value), shown(found.deviation)])
    numbers = [str(seed) if seed is not None else str(k) for k, seed in enumerate(entry.headline.seeds)]
    return Table(at(entry), ["Score", *(f"Seed {one}" for one in numbers), "Mean", "Deviation"], rows, [], [])
