"""One category of several: the predicted one is that of the highest score."""

import numpy as np
import numpy.typing as npt

from trainer.evaluate.kinds import Floats

Ints = npt.NDArray[np.int64]


def categories(scores: Floats, targets: Floats) -> tuple[Ints, Ints]:
    """Return predicted and actual categories, int64 (m,) each, of the samples whose category is known.

    Parameters
    ----------
    scores, targets
        (n, K); targets are one-hot, or NaN where unknown.
    """
    known = ~np.isnan(targets).any(axis=1)
    return scores[known].argmax(axis=1), targets[known].argmax(axis=1)


def confusion(predicted: Ints, actual: Ints, classes: int) -> Ints:
    """Return how many samples of the category of a row were predicted as the category of a column, int64 (K, K)."""
    return np.bincount(actual * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def category_accuracy(predicted: Ints, actual: Ints) -> float | None:
    """Return the share of samples that are predicted right."""
    return float((predicted == actual).mean()) if len(actual) else None


def recalls(predicted: Ints, actual: Ints, classes: int) -> list[float | None]:
    """Return the share of each category's samples that are predicted right; None for one that has no sample."""
    return [float((predicted[actual == k] == k).mean()) if (actual == k).any() else None for k in range(classes)]


def mean_recall(predicted: Ints, actual: Ints, classes: int) -> float | None:
    """Return the balanced accuracy: the mean recall of the categories that have samples, whatever is predicted."""
    found = [value for value in recalls(predicted, actual, classes) if value is not None]
    return sum(found) / len(found) if found else None
