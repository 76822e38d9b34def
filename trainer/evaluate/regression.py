"""Errors of predicted numbers, in the unit of the target."""

import numpy as np

from trainer.evaluate.by_class import ByClass, by_class
from trainer.evaluate.kinds import Floats


def mae(scores: Floats, targets: Floats) -> ByClass:
    """Return the mean absolute error of each target."""
    return by_class(scores, targets, lambda actual, said: np.abs(said - actual).mean())


def rmse(scores: Floats, targets: Floats) -> ByClass:
    """Return the root of the mean squared error of each target."""
    return by_class(scores, targets, lambda actual, said: np.sqrt(np.square(said - actual).mean()))


def median_error(scores: Floats, targets: Floats) -> ByClass:
    """Return the median absolute error of each target."""
    return by_class(scores, targets, lambda actual, said: np.median(np.abs(said - actual)))


def bias(scores: Floats, targets: Floats) -> ByClass:
    """Return how much is predicted too much, on average."""
    return by_class(scores, targets, lambda actual, said: (said - actual).mean())


def r2(scores: Floats, targets: Floats) -> ByClass:
    """Return the share of the variance that is explained; below 0 it is worse than the mean. All alike has none."""
    return by_class(scores, targets, _explained, undefined="all targets are equal")


def _explained(actual: Floats, said: Floats) -> float:
    spread = np.square(actual - actual.mean()).sum()
    return float(1 - np.square(said - actual).sum() / spread) if np.ptp(actual) else float("nan")
