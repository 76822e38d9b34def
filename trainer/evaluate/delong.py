"""DeLong's variance of an AUC and of the difference of two: without resampling, and quick.

DeLong et al. (1988) take every image as independent. Where patients have several images that is too narrow; with
`patients` the variance is that of Obuchowski (1997), whose units are patients. With one image each the two are equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from trainer.evaluate.kinds import Floats, Mask


@dataclass(frozen=True, slots=True)
class Areas:
    """AUCs of R scores on the same samples.

    Attributes
    ----------
    values : ndarray
        float64 (R,).
    covariance : ndarray
        float64 (R, R); NaN where fewer than two units have a positive, or a negative.
    """

    values: Floats
    covariance: Floats

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the normal interval of the first AUC, within 0 and 1."""
        half = norm.ppf((1 + level) / 2) * np.sqrt(self.covariance[0, 0])
        return float(np.maximum(self.values[0] - half, 0)), float(np.minimum(self.values[0] + half, 1))

    def difference(self, level: float = 0.95) -> tuple[float, float, float, float]:
        """Return the first AUC less the second, the ends of its interval, and the two-sided p of no difference."""
        found = float(self.values[0] - self.values[1])
        change = np.array([1.0, -1.0])
        error = float(np.sqrt(change @ self.covariance[:2, :2] @ change))
        half = float(norm.ppf((1 + level) / 2)) * error
        if error == 0:  # the same ranks, or two that make no error or nothing else
            return found, found, found, float(found == 0)
        return found, found - half, found + half, float(2 * norm.sf(abs(found) / error))


def delong(ranked: Sequence[Floats], target: Floats, patients: npt.NDArray[np.int64] | None = None) -> Areas | None:
    """Return AUCs with their covariance; None without a positive or without a negative.

    Parameters
    ----------
    ranked
        R times float (n,), what samples are ranked by.
    target
        float (n,), 1, 0, or NaN where it is unknown.
    patients
        int (n,), a number for each patient; None takes images as independent.
    """
    known = ~np.isnan(target)
    positive = target[known] == 1
    if positive.all() or not positive.any():
        return None
    unit = np.arange(len(positive)) if patients is None else np.unique(patients[known], return_inverse=True)[1]
    placements = np.stack([_placements(one[known], positive) for one in ranked])
    values = placements[:, positive].mean(axis=1)
    centred = placements - values[:, None]
    of_positives, of_negatives = (_sums(centred[:, rows], unit[rows], unit.max() + 1) for rows in (positive, ~positive))
    parts = [
        _scale(unit[positive]) * (of_positives @ of_positives.T) / positive.sum() ** 2,
        _scale(unit[~positive]) * (of_negatives @ of_negatives.T) / (~positive).sum() ** 2,
    ]
    if patients is not None:
        both = of_positives @ of_negatives.T / (positive.sum() * (~positive).sum())
        parts.append(_scale(unit) * (both + both.T))
    return Areas(values, np.sum(parts, axis=0))


def _placements(ranked: Floats, positive: Mask) -> Floats:
    """Return, of each positive, the share of negatives below it, and of each negative that of positives above it."""
    among_all = rankdata(ranked)
    found = np.empty(len(ranked))
    found[positive] = (among_all[positive] - rankdata(ranked[positive])) / (~positive).sum()
    found[~positive] = 1 - (among_all[~positive] - rankdata(ranked[~positive])) / positive.sum()
    return found


def _sums(values: Floats, unit: npt.NDArray[np.int64], units: int) -> Floats:
    return np.stack([np.bincount(unit, row, units) for row in values])


def _scale(unit: npt.NDArray[np.int64]) -> float:
    """Return n / (n - 1) of the units that have some: a variance about a mean that is estimated."""
    count = len(np.unique(unit))
    return count / (count - 1) if count > 1 else np.nan
