"""How often maps find boxes, by two published protocols, and as a curve over the threshold, so that nobody picks one.

component: Xiao et al. 2023 (Medical MAE): the map is cut at a threshold, and the box around its largest component is
held against the label's box. They do not say at which threshold.
mask: Yao et al. 2024 (EVA-X, public code): all of the map above a threshold is held against the box, without a box of
its own; the threshold is the one of .01 to .60 with the best mean of AP25 and AP50 on the same boxes.

In both AP25 and AP50 are the share of boxes with an intersection over union above .25 and .50; every box counts once,
also where an image has several of a class, and each is held against the same map. There is no precision in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from trainer.explain.boxes import Box, by_mask, iou, largest
from trainer.explain.maps import Floats, Map

Protocol = Literal["component", "mask"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("component", "mask")
THRESHOLDS: Final[Floats] = np.arange(1, 100) / 100
SEARCHED: Final = 60
"""Of these thresholds, the first so many are searched."""
LEVELS: Final = (0.25, 0.5)
REPLICATES, SHARE = 2000, 0.95


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one map fits one box.

    Attributes
    ----------
    component, mask : ndarray
        float64 (99,), intersection over union at each of `THRESHOLDS`.
    boxes : tuple of Box or None
        The box of the largest component at each of them.
    """

    component: Floats
    mask: Floats
    boxes: tuple[Box | None, ...]

    @classmethod
    def of(cls, found: Map, box: Box) -> "Fit":
        """Measure it."""
        boxes = tuple(largest(found, float(threshold)) for threshold in THRESHOLDS)
        component = np.array([0.0 if one is None else iou(one, box) for one in boxes])
        return cls(component, by_mask(found, box, THRESHOLDS), boxes)


@dataclass(frozen=True, slots=True)
class Score:
    """AP25 and AP50 of some boxes at one threshold.

    Attributes
    ----------
    threshold : float
        Where maps are cut.
    ap25, ap50 : float
        Shares of boxes.
    ap25_interval, ap50_interval : tuple of float or None
        95 % intervals by resampling patients; None for boxes of fewer than two patients.
    mean_iou : float
        Mean intersection over union.
    boxes, patients : int
        How many there are.
    """

    threshold: float
    ap25: float
    ap50: float
    ap25_interval: tuple[float, float] | None
    ap50_interval: tuple[float, float] | None
    mean_iou: float
    boxes: int
    patients: int


@dataclass(frozen=True)
class Fits:
    """How well maps fit n boxes.

    Attributes
    ----------
    component, mask : ndarray
        float64 (n, 99), intersection over union by threshold.
    labels : tuple of str
        Class of each box.
    patients : tuple of str
        Patient of each; one of its own for each image of which none is known.
    """

    component: Floats
    mask: Floats
    labels: tuple[str, ...]
    patients: tuple[str, ...]

    @classmethod
    def together(cls, fits: Sequence[Fit], labels: Sequence[str], patients: Sequence[str]) -> "Fits":
        """Put boxes together."""
        none = np.zeros((0, len(THRESHOLDS)))
        component, mask = (np.stack([getattr(f, p) for f in fits]) if fits else none for p in PROTOCOLS)
        return cls(component, mask, tuple(labels), tuple(patients))

    def __len__(self) -> int:
        """Count the boxes."""
        return len(self.labels)

    @property
    def classes(self) -> tuple[str, ...]:
        """Classes that have boxes, sorted."""
        return tuple(sorted(set(self.labels)))

    def of_class(self, label: str) -> "Fits":
        """Return the boxes of one class."""
        at = [i for i, name in enumerate(self.labels) if name == label]
        return Fits(self.component[at], self.mask[at], (label,) * len(at), tuple(self.patients[i] for i in at))

    def curve(self, protocol: Protocol, level: float) -> Floats:
        """Return the share of boxes with an intersection over union above a level, by threshold: float64 (99,)."""
        return np.asarray((self._ious(protocol) > level).mean(0), np.float64)

    def searched(self, protocol: Protocol) -> int:
        """Return the place of the threshold with the best mean of AP25 and AP50 on these boxes, the first of equals."""
        return _best(self._quality(protocol).mean(0))

    def score(self, protocol: Protocol, at: int) -> Score:
        """Score the boxes at a threshold, by its place."""
        ious = self._ious(protocol)[:, at]
        return self._scored(ious, float(THRESHOLDS[at]))

    def held_out(self, protocol: Protocol) -> Score | None:
        """Score each patient's boxes at the threshold that is best for all others; None for a single patient.

        Its `threshold` is the mean of theirs.
        """
        quality, of = self._quality(protocol), np.array(self.patients)
        if len(set(self.patients)) < 2:
            return None
        at = np.zeros(len(of), np.int64)
        for patient in set(self.patients):
            at[of == patient] = _best(quality[of != patient].mean(0))
        ious = self._ious(protocol)[np.arange(len(of)), at]
        return self._scored(ious, float(THRESHOLDS[at].mean()))

    def _ious(self, protocol: Protocol) -> Floats:
        return self.component if protocol == "component" else self.mask

    def _quality(self, protocol: Protocol) -> Floats:
        """Return each box's hits at both levels: float64 (n, searched thresholds)."""
        ious = self._ious(protocol)[:, :SEARCHED]
        return np.asarray(np.mean([ious > level for level in LEVELS], axis=0), np.float64)

    def _scored(self, ious: Floats, threshold: float) -> Score:
        hits = np.stack([ious > level for level in LEVELS], 1)
        ends = intervals(hits, self.patients) or (None, None)
        ap25, ap50 = (float(share) for share in hits.mean(0))
        return Score(
            threshold,
            ap25,
            ap50,
            ends[0],
            ends[1],
            float(ious.mean()),
            len(self),
            len(set(self.patients)),
        )


def intervals(
    hits: npt.NDArray[np.bool_], patients: Sequence[str], seed: int = 0
) -> tuple[tuple[float, float], ...] | None:
    """Return 95 % percentile intervals of shares of boxes, drawing patients with all of their boxes.

    Parameters
    ----------
    hits
        bool (n, levels).
    patients
        Whose each box is.
    seed
        Of the draws.

    Returns
    -------
    tuple of (float, float), or None
        One a level; None for fewer than two patients.
    """
    names, of = np.unique(np.array(patients), return_inverse=True)
    if len(names) < 2:
        return None
    sums = np.stack([np.bincount(of, column, len(names)) for column in (*hits.T, np.ones(len(of)))], 1)
    drawn = np.random.default_rng(seed).integers(0, len(names), (REPLICATES, len(names)))
    totals = sums[drawn].sum(1)
    ends = np.quantile(totals[:, :-1] / totals[:, -1:], [(1 - SHARE) / 2, (1 + SHARE) / 2], axis=0)
    return tuple((float(low), float(high)) for low, high in ends.T)


def _best(quality: Floats) -> int:
    return int(np.argmax(np.round(quality, 12)))
