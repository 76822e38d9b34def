"""Two runs on the same samples, and several seeds of one: differences and means that keep to the same patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shardkit.errors import ArgumentError
from trainer.evaluate.delong import delong
from trainer.evaluate.intervals import (
    LEVEL,
    REPLICATES,
    SEED,
    Estimate,
    Estimates,
    put_together,
    resampled,
    with_seeds_drawn,
)
from trainer.evaluate.kinds import Floats, log_odds
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.scores import THRESHOLD
from trainer.evaluate.statistics import at_once, mean_over, score_named


@dataclass(frozen=True, slots=True)
class Comparison:
    """One run's score less another's, on the same samples.

    Attributes
    ----------
    differences : Estimates
        By class and of the mean, with intervals of the same resampled patients.
    p : tuple of float or None
        Two-sided, one a class: how often replicates lie on the other side of no difference, doubled.
    p_mean : float or None
        The same of the mean.
    delong, delong_patients : tuple of float or None
        P of DeLong's test, one a class, of AUCs of one seed each: images taken as independent, and by patient.
    """

    differences: Estimates
    p: tuple[float | None, ...]
    p_mean: float | None
    delong: tuple[float | None, ...] = ()
    delong_patients: tuple[float | None, ...] = ()


def compare(
    first: Predictions | Sequence[Predictions],
    second: Predictions | Sequence[Predictions],
    score: str,
    *,
    threshold: float = THRESHOLD,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Comparison:
    """Return the first run's score less the second's.

    Parameters
    ----------
    first, second
        Predictions of the same samples and targets; of several seeds of a run their mean score counts, and seeds are
        drawn as well as patients: whether other trainings would differ, too.
    score, threshold, replicates, level, seed
        As for `intervals.estimates`.

    Raises
    ------
    ArgumentError
        The samples, the classes or the targets are not the same.
    """
    runs = [[of] if isinstance(of, Predictions) else list(of) for of in (first, second)]
    for other in (*runs[0][1:], *runs[1]):
        check_same(runs[0][0], other)
    values, replicated = [], []
    for number, seeds in enumerate(runs):
        made = [score_named(of, score).make(of, threshold) for of in seeds]
        values.append(np.mean([at_once(one, of) for one, of in zip(made, seeds, strict=True)], axis=0))
        drawn = np.stack([resampled(one, seeds[0], replicates, seed) for one in made])
        replicated.append(drawn[0] if len(seeds) == 1 else with_seeds_drawn(drawn, seed, number))
    value, drawn = values[0] - values[1], replicated[0] - replicated[1]
    differences = put_together(runs[0][0], score, value, drawn, level, difference=True)
    single = score == "auc" and len(runs[0]) == len(runs[1]) == 1
    return Comparison(
        differences,
        tuple(_p(one, drawn[:, k]) for k, one in enumerate(differences.of)),
        _p(differences.mean, mean_over(drawn, ~np.isnan(value))),
        *(_delong(runs[0][0], runs[1][0], by_patient) if single else () for by_patient in (False, True)),
    )


def check_same(first: Predictions, second: Predictions) -> None:
    """Refuse predictions that are not of the same samples and targets.

    Parameters
    ----------
    first, second
        Predictions. Their scores are not looked at.

    Raises
    ------
    ArgumentError
        Their kind, classes, samples, targets or patients are not the same.
    """
    if why := apart(first, second):
        raise ArgumentError(f"{_both(first, second)} {why}: compare what is of the same images, labels and policies")


def apart(first: Predictions, second: Predictions) -> str:
    """Return in what two predictions differ that are to be compared; empty where they can be.

    Parameters
    ----------
    first, second
        Predictions. Their scores are not looked at.
    """
    if (first.about.kind, first.classes) != (second.about.kind, second.classes):
        return "have other classes"
    if many := len(set(first.keys) ^ set(second.keys)):
        return f"differ in {many:,} samples"
    if many := int((~np.isclose(first.targets, second.targets, equal_nan=True)).any(axis=1).sum()):
        return f"have other targets for {many:,} samples"
    return "" if np.array_equal(first.patients, second.patients) else "have other patients for the same samples"


def _both(first: Predictions, second: Predictions) -> str:
    one, other = first.about, second.about
    return f"seeds {one.seed} and {other.seed} of {one.run}" if one.run == other.run else f"{one.run} and {other.run}"


def _p(found: Estimate, drawn: Floats) -> float | None:
    if found.low is None:
        return None
    used = drawn[~np.isnan(drawn)]
    least = min((used <= 0).sum(), (used >= 0).sum())
    return float(min(1.0, 2 * (least + 1) / (len(used) + 1)))  # never 0: it can be no less than one in the replicates


def _delong(first: Predictions, second: Predictions, by_patient: bool) -> tuple[float | None, ...]:
    found: list[float | None] = []
    patients = first.patients if by_patient else None
    ranked = [log_odds(of.about.kind, of.scores) for of in (first, second)]
    for k in range(len(first.classes)):
        areas = delong([one[:, k] for one in ranked], first.targets[:, k], patients)
        p = areas.difference()[3] if areas else np.nan
        found.append(None if np.isnan(p) else p)
    return tuple(found)
