"""How well an order is shuffled: the chance that two samples of one step share a label, against a perfect shuffle.

Archives are sorted by patient, scanner and date, and a shuffle that only mixes neighbours leaves them together.
"""

from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from shardkit.plan.epoch import EpochPlan

Codes = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Score:
    """Chances that two samples share a label.

    Attributes
    ----------
    shared : float
        Chance of two that are close in the order.
    expected : float
        Chance of any two.
    """

    shared: float
    expected: float

    @property
    def ratio(self) -> float:
        """How often like samples come together: 1.0 in a perfect shuffle, and where no two are alike."""
        return self.shared / self.expected if self.expected else 1.0


def neighbour_share(labels: Codes, reach: int) -> Score:
    """Score an order that is cut into stretches: two samples of one stretch against any two.

    Parameters
    ----------
    labels : ndarray of int, (n,)
        Label of each sample, in their order; samples with -1, unknown, are left out.
    reach : int
        Samples of a stretch.

    Raises
    ------
    ArgumentError
        For a reach below 2.
    """
    if reach < 2:
        raise ArgumentError(f"reach={reach} must be at least 2 samples, to hold two of them")
    return Score(_shared(labels, np.arange(len(labels)) // reach), _expected(labels))


def score(plan: EpochPlan, labels: Codes, steps: int | None = 1024) -> Score:
    """Score a plan: two samples of one global step against any two of the epoch. Repeated samples do not count.

    Parameters
    ----------
    plan : EpochPlan
        What is scored.
    labels : ndarray of int, (samples,)
        Label of each sample of the plan; samples with -1, unknown, are left out.
    steps : int, optional
        How many to look at, from the epoch's first, where the fewest shards are mixed; None for all.

    Raises
    ------
    ArgumentError
        Where there is not one label a sample.
    """
    if np.shape(labels) != (len(plan.samples),):
        raise ArgumentError(
            f"labels have the shape {np.shape(labels)}: give one for each of {len(plan.samples):,} samples"
        )
    shown, sizes = [np.zeros(0, np.int64)], []
    for step in islice(plan, steps):
        fresh = [micro.crops.index[~micro.repeated] for micro in step]
        shown += fresh
        sizes.append(sum(map(len, fresh)))
    seen = labels[np.concatenate(shown)]
    of_draws = labels if plan.draws.samples is None else labels[plan.draws.samples]
    return Score(_shared(seen, np.repeat(np.arange(len(sizes)), sizes)), _expected(of_draws))


def _shared(labels: Codes, groups: npt.NDArray[np.int64]) -> float:
    """Of all pairs within a group, the share with one label, exactly; 0.0 where there is no pair."""
    known = labels != -1
    labels, groups = labels[known], groups[known]
    pairs = _pairs(np.bincount(groups))
    if not pairs:
        return 0.0
    order = np.lexsort((labels, groups))
    labels, groups = labels[order], groups[order]
    ends = np.flatnonzero((labels[1:] != labels[:-1]) | (groups[1:] != groups[:-1])) + 1
    return _pairs(np.diff(ends, prepend=0, append=len(labels))) / pairs


def _expected(labels: Codes) -> float:
    """Of all pairs, the share with one label: sum c (c - 1) / n (n - 1) over the labels' counts."""
    counts = np.unique(labels[labels != -1], return_counts=True)[1]
    return _pairs(counts) / max(_pairs(counts.sum()), 1)


def _pairs(counts: npt.NDArray[np.int64] | np.int64) -> int:
    """Ordered pairs within groups of these sizes."""
    return int((counts * (counts - 1)).sum())
