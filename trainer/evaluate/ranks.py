"""AUC and average precision of many weightings of the same samples at once: what resampling of patients asks for."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from trainer.evaluate.kinds import Floats


class Ranks:
    """One class's samples, sorted by score once for all weightings.

    Only sums between the scores of positives count, and of them only what each patient adds. So a weighting of patients
    costs one product of a sparse matrix, and samples are never drawn one by one.

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
        known = ~np.isnan(target)
        _, tie = np.unique(ranked[known], return_inverse=True)
        order = np.lexsort((target[known], tie))  # among equal scores negatives stand first
        tie, positive, who = tie[order], target[known][order] == 1, patients[known][order]
        with_positives = np.bincount(tie, positive) > 0
        part = np.where(with_positives[tie], 2 * tie + positive, -1)  # runs of negatives are one part
        new = np.append(True, part[1:] != part[:-1])[: len(part)]
        shape = int(new.sum()), int(patients.max(initial=-1)) + 1
        self._parts: Any = csr_array((np.ones(len(who)), (np.cumsum(new) - 1, who)), shape=shape)
        self._positive = np.flatnonzero(positive[new])
        before = self._positive - 1
        self._tied = (before >= 0) & (part[new][before] == part[new][self._positive] - 1)

    def auc(self, weights: Floats) -> Floats:
        """Return the AUC of each weighting, (B,): NaN without a positive or without a negative.

        Parameters
        ----------
        weights
            float (patients, B), how often each patient counts.
        """
        positives, below, ties, negatives = self._sums(weights)
        with np.errstate(invalid="ignore"):
            area = np.einsum("pb,pb->b", positives, below - ties / 2)
            return np.asarray(area / (positives.sum(axis=0) * negatives))

    def average_precision(self, weights: Floats) -> Floats:
        """Return the average precision of each weighting, (B,): NaN without a positive."""
        positives, below, ties, negatives = self._sums(weights)
        above = np.cumsum(positives[::-1], axis=0)[::-1]
        called = above + (negatives - below + ties)
        precision = np.divide(above, called, out=np.zeros_like(above), where=called > 0)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.einsum("pb,pb->b", positives, precision) / positives.sum(axis=0))

    def _sums(self, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Weigh positives at each score that has some, negatives up to there, those at it, and all: (P, B), (B,)."""
        sums: Floats = self._parts @ weights
        positives = sums[self._positive]
        ties = np.where(self._tied[:, None], sums[self._positive - 1], 0.0)
        sums[self._positive] = 0
        below = np.cumsum(sums, axis=0)
        negatives = below[-1] if len(below) else np.zeros(weights.shape[1])
        return positives, below[self._positive], ties, negatives
