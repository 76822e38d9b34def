"""Oracle Collaborative AUC (PLEX): what ranks are worth if somebody who knows decides the doubtful ones.

At each threshold t of the ROC curve the samples with the smallest abs(p - t) get their true label, either a fraction of
all samples or those nearer than a distance. The curve's ends, where all or none are called positive, are never
corrected. Thresholds are all distinct probabilities, so that with nothing corrected it is exactly the AUC.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from trainer.evaluate.by_class import ByClass, by_class
from trainer.evaluate.kinds import Floats

Mode = Literal["fraction", "threshold"]
"""oracle_fraction: a share of all samples is corrected. oracle_threshold: those nearer to t than a distance."""


def oracle_auc(probabilities: Floats, targets: Floats, mode: Mode, amount: float) -> ByClass:
    """Return the Oracle Collaborative AUC of each class.

    Parameters
    ----------
    probabilities, targets
        float (n, K); a target is NaN where unknown.
    mode
        What `amount` is.
    amount
        Share of samples from 0 to 1, rounded down to samples, or distance of probabilities.
    """
    return by_class(probabilities, targets, lambda actual, said: _auc(said, actual, mode, amount), needs=(1, 0))


def _auc(p: Floats, actual: Floats, mode: Mode, amount: float) -> float:
    order = np.argsort(p)
    p, positive = p[order], actual[order] == 1
    thresholds = np.unique(p)
    if mode == "fraction":
        low, high = _nearest(p, thresholds, int(amount * len(p) + 1e-9))
    else:
        low = np.searchsorted(p, thresholds - amount, side="right")
        high = np.searchsorted(p, thresholds + amount, side="left")
    called = np.searchsorted(p, thresholds)  # samples from here on are called positive
    true = positive.sum() - _up_to(p, positive, np.minimum(low, called))
    false = (~positive).sum() - _up_to(p, ~positive, np.maximum(high, called))
    sensitivity = np.concatenate([[1.0], true / positive.sum(), [0.0]])
    fallout = np.concatenate([[1.0], false / (~positive).sum(), [0.0]])
    return float(np.sum((fallout[:-1] - fallout[1:]) * (sensitivity[:-1] + sensitivity[1:])) / 2)


def _nearest(p: Floats, thresholds: Floats, many: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return where the `many` values nearest to each threshold begin and end in sorted ones, by bisection of all."""
    low, high = np.zeros(len(thresholds), np.intp), np.full(len(thresholds), len(p) - many, np.intp)
    if many == 0:
        low = np.searchsorted(p, thresholds)
        return low, low
    while (open_ := low < high).any():
        middle = (low + high) // 2
        beyond = np.minimum(middle + many, len(p) - 1)
        right = open_ & (thresholds - p[middle] > p[beyond] - thresholds)
        low, high = np.where(right, middle + 1, low), np.where(open_ & ~right, middle, high)
    return low, low + many


def _up_to(p: Floats, mask: npt.NDArray[np.bool_], at: npt.NDArray[np.intp]) -> Floats:
    """Count a mask's samples before a place in sorted ones; a place within ties has its share of them."""
    edges = np.append(np.flatnonzero(np.append(True, p[1:] != p[:-1])), len(p))
    return np.asarray(np.interp(at, edges, np.append(0, np.cumsum(mask))[edges]), np.float64)
