"""Scores of any weighting of patients, many weightings at once: what intervals are made of."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardkit.errors import ArgumentError
from trainer.evaluate.by_class import NO_NEGATIVE, NO_POSITIVE, NO_TARGET
from trainer.evaluate.kinds import Floats, Mask, log_odds
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.ranks import Ranks

Statistic = Callable[[Floats], Floats]
"""From weights of patients, float (patients, B), to scores of classes, (B, K): NaN where one does not exist."""
LESS_IS_BETTER = ("mae", "rmse", "median_error", "brier")
"""Scores of which less is better."""


@dataclass(frozen=True, slots=True)
class Score:
    """How a score is made.

    Attributes
    ----------
    make : callable
        Returns the statistic of predictions, at a threshold.
    needs : tuple of float
        Targets, of 1 and 0, without which a class has no score; any known one where there are none.
    together : bool
        It is one value for all classes.
    least, most : float
        Between which it lies.
    undefined : str
        Why a class that has all that the score needs may have none.
    """

    make: Callable[[Predictions, float], Statistic]
    needs: tuple[float, ...] = ()
    together: bool = False
    least: float = 0.0
    most: float = 1.0
    undefined: str = ""


def scores_of(kind: str) -> Mapping[str, Score]:
    """Return the scores that a kind of task has, by name."""
    if kind == "regression":
        return {
            "mae": Score(_mae, most=math.inf),
            "rmse": Score(_rmse, most=math.inf),
            "median_error": Score(_median_error, most=math.inf),
            "bias": Score(_bias, least=-math.inf, most=math.inf),
            "r2": Score(_r2, least=-math.inf, undefined="all targets are equal"),
        }
    ranked = {"auc": Score(_auc, (1, 0)), "ap": Score(_ap, (1, 0)), "brier": Score(_brier)}
    if kind == "multiclass":
        recalls = Score(_recall, (1,))
        return {**ranked, "accuracy": Score(_category_accuracy, together=True), "balanced_accuracy": recalls}
    return {
        **ranked,
        "accuracy": Score(_accuracy),
        "balanced_accuracy": Score(_balanced_accuracy, (1, 0)),
        "subset_accuracy": Score(_subset_accuracy, together=True),
        "sensitivity": Score(_sensitivity, (1,)),
        "specificity": Score(_specificity, (0,)),
    }


def score_named(of: Predictions, name: str) -> Score:
    """Return how a score is made.

    Raises
    ------
    ArgumentError
        Predictions of this kind have no such score.
    """
    there = scores_of(of.about.kind)
    if name not in there:
        raise ArgumentError(f"a {of.about.kind} task has no score {name}: choose one of {', '.join(there)}")
    return there[name]


def patients_with(of: Predictions, name: str) -> list[dict[str, int]]:
    """Count, for each class or for all together, the patients of each target that a score needs, by its absence."""
    score = score_named(of, name)
    if score.together:
        return [{NO_TARGET: _distinct(of, of.known.any(axis=1))}]
    words = {1.0: NO_POSITIVE, 0.0: NO_NEGATIVE}
    return [
        {NO_TARGET: _distinct(of, ~np.isnan(target)), **{words[v]: _distinct(of, target == v) for v in score.needs}}
        for target in of.targets.T
    ]


def at_once(statistic: Statistic, of: Predictions) -> Floats:
    """Return the scores themselves, (K,): every patient counts once."""
    return np.asarray(statistic(np.ones((of.patients.max(initial=-1) + 1, 1)))[0])


def mean_over(values: Floats, wanted: Mask) -> Floats:
    """Return the mean over some classes, (B,): NaN where one of them is, so that all are means of the same classes."""
    chosen = values[:, wanted]
    return np.asarray(chosen.mean(axis=1)) if chosen.shape[1] else np.full(len(values), np.nan)


def _distinct(of: Predictions, rows: Any) -> int:
    return len(np.unique(of.patients[rows]))


def _ranks(of: Predictions) -> list[Ranks]:
    ranked = log_odds(of.about.kind, of.scores)
    return [Ranks(r, t, of.patients) for r, t in zip(ranked.T, of.targets.T, strict=True)]


def _auc(of: Predictions, _: float) -> Statistic:
    ranks = _ranks(of)
    return lambda weights: np.stack([one.auc(weights) for one in ranks], axis=1)


def _ap(of: Predictions, _: float) -> Statistic:
    ranks = _ranks(of)
    return lambda weights: np.stack([one.average_precision(weights) for one in ranks], axis=1)


def _by_patient(of: Predictions, values: Any) -> Floats:
    """Sum values of samples, (n, K) or (n,), over each patient: (patients, K)."""
    table = np.asarray(values, np.float64).reshape(len(of), -1)
    sums = np.zeros((of.patients.max(initial=-1) + 1, table.shape[1]))
    np.add.at(sums, of.patients, table)
    return sums


def _quotient(of: Predictions, above: Any, below: Any) -> Statistic:
    """Return a score that is a sum over samples by another."""
    numerator, denominator = _by_patient(of, above), _by_patient(of, below)

    def score(weights: Floats) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray((weights.T @ numerator) / (weights.T @ denominator), np.float64)

    return score


def _mean(of: Predictions, values: Floats) -> Statistic:
    """Return a mean over the samples whose target is known."""
    return _quotient(of, np.where(of.known, values, 0), of.known)


def _positive(of: Predictions, threshold: float) -> Mask:
    return np.asarray(of.probabilities >= threshold)


def _accuracy(of: Predictions, threshold: float) -> Statistic:
    return _mean(of, (_positive(of, threshold) == of.targets).astype(np.float64))


def _sensitivity(of: Predictions, threshold: float) -> Statistic:
    return _quotient(of, _positive(of, threshold) & (of.targets == 1), of.targets == 1)


def _specificity(of: Predictions, threshold: float) -> Statistic:
    return _quotient(of, ~_positive(of, threshold) & (of.targets == 0), of.targets == 0)


def _balanced_accuracy(of: Predictions, threshold: float) -> Statistic:
    sensitivity, specificity = _sensitivity(of, threshold), _specificity(of, threshold)
    return lambda weights: (sensitivity(weights) + specificity(weights)) / 2


def _subset_accuracy(of: Predictions, threshold: float) -> Statistic:
    labelled = of.known.any(axis=0)
    whole = of.known[:, labelled].all(axis=1) & labelled.any()
    right = (_positive(of, threshold) == of.targets)[:, labelled].all(axis=1)
    return _quotient(of, right & whole, whole)


def _predicted(of: Predictions) -> Mask:
    return np.asarray(of.scores.argmax(axis=1)[:, None] == np.arange(len(of.classes)))


def _category_accuracy(of: Predictions, _: float) -> Statistic:
    return _quotient(of, (_predicted(of) & (of.targets == 1)).any(axis=1), of.known.all(axis=1))


def _recall(of: Predictions, _: float) -> Statistic:
    return _quotient(of, _predicted(of) & (of.targets == 1), of.targets == 1)


def _brier(of: Predictions, _: float) -> Statistic:
    return _mean(of, np.square(of.probabilities - of.targets))


def _mae(of: Predictions, _: float) -> Statistic:
    return _mean(of, np.abs(of.scores - of.targets))


def _bias(of: Predictions, _: float) -> Statistic:
    return _mean(of, of.scores - of.targets)


def _rmse(of: Predictions, _: float) -> Statistic:
    square = _mean(of, np.square(of.scores - of.targets))
    return lambda weights: np.sqrt(square(weights))


def _median_error(of: Predictions, _: float) -> Statistic:
    made = [_median(np.abs(error), of) for error in (of.scores - of.targets).T]
    return lambda weights: np.stack([one(weights) for one in made], axis=1)


def _median(values: Floats, of: Predictions) -> Callable[[Floats], Floats]:
    """Return the median of values, NaN where unknown, of samples that count as often as their patients do."""
    order = np.argsort(values)[: (~np.isnan(values)).sum()]
    ascending, patients = values[order], of.patients[order]

    def median(weights: Floats) -> Floats:
        if not len(order):
            return np.full(weights.shape[1], np.nan)
        upto = np.cumsum(weights[patients], axis=0)
        ends = [(upto < upto[-1] / 2).sum(axis=0), (upto <= upto[-1] / 2).sum(axis=0)]
        middle = np.mean([ascending[np.minimum(at, len(order) - 1)] for at in ends], axis=0)
        return np.where(upto[-1] > 0, middle, np.nan)

    return median


def _r2(of: Predictions, _: float) -> Statistic:
    """Return the share of the variance that is explained, NaN where targets are all alike."""
    counts = np.maximum(of.known.sum(axis=0), 1)
    centred = of.targets - np.where(of.known, of.targets, 0).sum(axis=0) / counts  # so that squares lose no digits
    mean, square, error = (
        _mean(of, values) for values in (centred, np.square(centred), np.square(of.scores - of.targets))
    )

    def score(weights: Floats) -> Floats:
        squares = square(weights)
        spread = squares - np.square(mean(weights))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(spread > 1e-9 * squares, 1 - error(weights) / spread, np.nan)

    return score
