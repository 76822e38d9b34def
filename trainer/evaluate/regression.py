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
