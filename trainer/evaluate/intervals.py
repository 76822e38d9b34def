"""Intervals by resampling patients, each with all of its images: images of one patient are not independent.

A replicate draws as many patients as there are, with replacement. An interval is between percentiles of the replicates.
A replicate in which a class has no positive or no negative has no score for it: it is left out for that class, and for
the mean over classes, so that every mean is over the same classes; how many were used is told. Where a class that the
mean is over has no interval, the mean has none.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shardkit.terminal.words import counted
from trainer.evaluate.by_class import NO_NEGATIVE, NO_POSITIVE, NO_TARGET
from trainer.evaluate.kinds import Floats
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.scores import THRESHOLD
from trainer.evaluate.statistics import Score, Statistic, at_once, mean_over, patients_with, score_named

REPLICATES, LEVEL, SEED = 2000, 0.95, 0
FEWEST = 2
"""Patients with a positive, and with a negative, below which there is no interval: nothing could vary."""
LEAST = 0.2
"""Share of replicates that need a score for an interval to be told."""
_AT_ONCE = 100  # replicates, so that weights stay in the processor's cache


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its interval.

    Attributes
    ----------
    name : str
        What it is of: a class, "mean" or "all".
    value : float or None
        The score; None where it cannot be scored.
    low, high : float or None
        Its interval; None where there is none.
    used : int
        How many replicates had a score.
    reason : str
        Why there is no score or no interval; empty where there is.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    used: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Estimates:
    """A score of each class and their mean, with intervals.

    Attributes
    ----------
    score : str
        Which score.
    of : tuple of Estimate
        One a class.
    mean : Estimate
        Of the classes that can be scored; its interval is of these very classes, or there is none.
    images, patients, unknown : int
        How many there are, and how many images are of unknown patients: each counts as a patient of its own.
    replicates : int
        How often patients were drawn.
    level : float
        Share of replicates between the ends of an interval.
    """

    score: str
    of: tuple[Estimate, ...]
    mean: Estimate
    images: int
    patients: int
    unknown: int
    replicates: int
    level: float


def estimates(
    of: Predictions,
    score: str,
    *,
    threshold: float = THRESHOLD,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Estimates:
    """Score predictions with intervals by resampling patients.

    Parameters
    ----------
    of
        Predictions.
    score
        One of `statistics.scores_of`.
    threshold
        Probability from which a class of a multi-label task counts as predicted.
    replicates, level, seed
        How often patients are drawn, the share of replicates between an interval's ends, and what is drawn.
    """
    statistic = score_named(of, score).make(of, threshold)
    value, drawn = at_once(statistic, of), resampled(statistic, of, replicates, seed)
    return put_together(of, score, value, drawn, level)


def resampled(statistic: Statistic, of: Predictions, replicates: int = REPLICATES, seed: int = SEED) -> Floats:
    """Return the scores of replicates; of all runs on the same samples the same patients are drawn.

    Parameters
    ----------
    statistic
        A score of these predictions, as `Score.make` returns it.
    of
        Predictions whose patients are drawn.
    replicates
        How often, from 1.
    seed
        What is drawn.

    Returns
    -------
    Floats
        float64 (replicates, K), NaN where a replicate has no score; K is 1 for a score of all classes together.
    """
    patients = int(of.patients.max(initial=-1)) + 1
    return np.concatenate([statistic(weights) for weights in _weights(patients, replicates, seed)])


def with_seeds_drawn(drawn: Floats, *seed: int) -> Floats:
    """Return replicates that draw seeds, too, of replicates of each seed.

    The mean of n values drawn with replacement has (n - 1) / n of the variance that it should have, of five seeds a
    fifth too little: what a draw of seeds adds is stretched by that.

    Parameters
    ----------
    drawn
        float (seeds, B, K), of two seeds or more.
    *seed
        Integers that say what is drawn.

    Returns
    -------
    Floats
        float64 (B, K).
    """
    seeds, replicates = drawn.shape[:2]
    random = np.random.default_rng([seeds, *seed])
    at = random.integers(0, seeds, (seeds, replicates))
    mean = drawn.mean(axis=0)
    chosen = np.mean([drawn[row, np.arange(replicates)] for row in at], axis=0)
    return np.asarray(mean + (chosen - mean) * np.sqrt(seeds / (seeds - 1)))


def put_together(
    of: Predictions, score: str, value: Floats, drawn: Floats, level: float = LEVEL, *, difference: bool = False
) -> Estimates:
    """Return scores and their replicates as estimates of each class and of the mean.

    Parameters
    ----------
    of
        Predictions that were scored.
    score
        Which score, one of `statistics.scores_of`.
    value
        float (K,), NaN where a class has no score; K is 1 for a score of all classes together.
    drawn
        float (B, K), scores of replicates, NaN where there is none.
    level
        Share of replicates between an interval's ends, from 0 to 1.
    difference
        They are differences of two scores. The interval of a score keeps to where that score can lie, which replicates
        that draw seeds, too, may leave.

    Raises
    ------
    ArgumentError
        Predictions of this kind have no such score.
    """
    made = score_named(of, score)
    names = ("all",) if made.together else of.classes
    if difference:
        made = replace(made, least=-np.inf, most=np.inf)
    each = tuple(
        _estimate(name, value[k], drawn[:, k], level, counts, made)
        for k, (name, counts) in enumerate(zip(names, patients_with(of, score), strict=True))
    )
    scored = ~np.isnan(value)
    known = {"no class can be scored": int(scored.sum()) and FEWEST}
    mean = _estimate("mean", mean_over(value[None], scored)[0], mean_over(drawn, scored), level, known, made)
    fixed = [one for one in each if one.value is not None and one.low is None]
    if mean.low is not None and fixed:  # replicates in which these do not vary would tell of the other classes alone
        mean = replace(mean, low=None, high=None, reason=_reason(fixed, int(scored.sum())))
    patients = int(of.patients.max(initial=-1)) + 1
    return Estimates(score, each, mean, len(of), patients, of.patients_unknown, len(drawn), level)


def percentiles(drawn: Floats, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of an interval, between percentiles of replicates.

    Parameters
    ----------
    drawn
        float (B,), at least one, without NaN.
    level
        Share of replicates between the ends, from 0 to 1.

    Returns
    -------
    tuple of float
        The lower end and the upper one.
    """
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _reason(fixed: Sequence[Estimate], scored: int) -> str:
    """Say why a mean has no interval, of its classes that have none."""
    first, *others = fixed
    if len(fixed) == scored and all(one.reason == first.reason for one in others):
        return first.reason
    if not others:
        return f"{first.name} has none ({first.reason})"
    return f"{len(fixed):,} of {counted(scored, 'class', 'classes')} have none, such as {first.name} ({first.reason})"


def _weights(patients: int, replicates: int, seed: int) -> Iterator[Floats]:
    """Yield how often each patient is drawn, float64 (patients, B), some replicates at a time."""
    random = np.random.default_rng(seed)
    for start in range(0, replicates, _AT_ONCE):
        many = min(_AT_ONCE, replicates - start)
        drawn = random.integers(0, patients, (many, patients)) + patients * np.arange(many)[:, None]
        yield np.bincount(drawn.ravel(), minlength=many * patients).reshape(many, patients).T.astype(np.float64, "C")


def _estimate(
    name: str,
    value: float,
    drawn: Floats,
    level: float,
    patients: Mapping[str, int],
    made: Score,
) -> Estimate:
    used = drawn[~np.isnan(drawn)]
    absent = [reason for reason, count in patients.items() if count == 0]
    if absent or np.isnan(value):
        why = NO_TARGET if NO_TARGET in absent else " and ".join(absent)
        return Estimate(name, None, None, None, 0, why or made.undefined or NO_TARGET)
    few = [reason for reason, count in patients.items() if count < FEWEST]
    if few or len(used) < LEAST * len(drawn):
        words = {NO_TARGET: "known targets", NO_POSITIVE: "positives", NO_NEGATIVE: "negatives"}
        why = f"only {len(used):,} of {len(drawn):,} replicates have a score"
        why = f"{words[few[-1]]} are of one patient only" if few else why
        return Estimate(name, float(value), None, None, len(used), why)
    low, high = (min(max(end, made.least), made.most) for end in percentiles(used, level))
    return Estimate(name, float(value), low, high, len(used))
