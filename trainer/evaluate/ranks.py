"""AUC and average precision of many weightings of the same samples at once: what resampling of patients asks for."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from trainer.evaluate.kinds import Floats


class Ranks:
    """One class's samples, sorted by score once for all weightings.

    Only the distinct scores of positives count, and how many negatives lie before each: sums of what patients add. So
    a weighting of patients costs a product with a sparse matrix, and samples are never drawn one by one.

    Parameters
    ----------
    ranked
        float (n,), what samples are ranked by.
    target
        float (n,), 1, 0, or NaN where it is unknown.
    patients
        int (n,), a number for each patient, from 0.
    """

    def __init__(self, ranked: Floats, target: Floats, patients: npt.NDArray[np.int64]) -> None:
        positive, negative = target == 1, target == 0
        scores, at = np.unique(ranked[positive], return_inverse=True)
        above = np.searchsorted(scores, ranked[negative], side="right")  # of each negative, the first score above it
        here = np.searchsorted(scores, ranked[negative], side="left")  # the same, or the score that it ties with
        columns = int(patients.max(initial=-1)) + 1

        def sums(rows: npt.NDArray[np.intp], who: npt.NDArray[np.int64], many: int) -> Any:
            return csr_array((np.ones(len(rows)), (rows, who)), shape=(many, columns))

        self._positives = sums(at, patients[positive], len(scores))
        self._above = sums(above, patients[negative], len(scores) + 1)
        self._ranked = (self._above + sums(here, patients[negative], len(scores) + 1)) / 2  # ties count half

    def auc(self, weights: Floats) -> Floats:
        """Return the AUC of each weighting, (B,): NaN without a positive or without a negative.

        Parameters
        ----------
        weights
            float (patients, B), how often each patient counts.
        """
        positives: Floats = self._positives @ weights
        below = np.cumsum(self._ranked @ weights, axis=0)
        with np.errstate(invalid="ignore"):
            area = np.einsum("pb,pb->b", positives, below[:-1])
            return np.asarray(area / (positives.sum(axis=0) * below[-1]))

    def average_precision(self, weights: Floats) -> Floats:
        """Return the average precision of each weighting, (B,): NaN without a positive or without a negative."""
        positives: Floats = self._positives @ weights
        found = np.cumsum(positives[::-1], axis=0)[::-1]
        below = np.cumsum(self._above @ weights, axis=0)
        called = found + below[-1] - below[:-1]
        precision = np.divide(found, called, out=np.zeros_like(found), where=called > 0)
        with np.errstate(invalid="ignore"):
            value = np.einsum("pb,pb->b", positives, precision) / positives.sum(axis=0)
        return np.where(below[-1] > 0, value, np.nan)
