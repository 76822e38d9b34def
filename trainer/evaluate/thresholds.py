"""What becomes of a multi-label task at thresholds on its probabilities, in the layout of Krones et al.'s Table 7."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.evaluate.by_class import ByClass, by_class
from trainer.evaluate.kinds import Floats, Mask
from trainer.evaluate.scores import accuracy, subset_accuracy

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
"""Those of the table."""


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Scores with a class counted as predicted from a probability on.

    Attributes
    ----------
    threshold : float
        The probability, itself included.
    accuracy : ByClass
        Share of known targets that are right; its mean is the mean accuracy.
    subset_accuracy : float or None
        Share of samples with all labels right.
    fnr, fpr : ByClass
        FN / (FN + TP) and FP / (FP + TN).
    precision : ByClass
        TP / (TP + FP); None where nothing is predicted.
    """

    threshold: float
    accuracy: ByClass
    subset_accuracy: float | None
    fnr: ByClass
    fpr: ByClass
    precision: ByClass


def at_threshold(probabilities: Floats, targets: Floats, threshold: float) -> AtThreshold:
    """Return the scores at one threshold.

    Parameters
    ----------
    probabilities, targets
        float (n, K); a target is NaN where unknown.
    threshold
        Probability from which a class counts as predicted.
    """
    positive = probabilities >= threshold
    return AtThreshold(
        threshold,
        accuracy(positive, targets),
        subset_accuracy(positive, targets),
        fnr=by_class(positive, targets, lambda actual, said: (~said[actual == 1]).mean(), needs=(1,)),
        fpr=by_class(positive, targets, lambda actual, said: said[actual == 0].mean(), needs=(0,)),
        precision=by_class(positive, targets, _precision, undefined="nothing is predicted"),
    )


def at_thresholds(
    probabilities: Floats, targets: Floats, thresholds: Sequence[float] = THRESHOLDS
) -> tuple[AtThreshold, ...]:
    """Return the scores at several thresholds."""
    return tuple(at_threshold(probabilities, targets, threshold) for threshold in thresholds)


def _precision(actual: Floats, said: Mask) -> float:
    return float(actual[said].mean()) if said.any() else math.nan
