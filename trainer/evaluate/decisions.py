"""What scores of a run at a site do when somebody decides by them: of its first seed, but for calibration errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trainer.evaluate.calibration import ece, reliability, top_label
from trainer.evaluate.categories import Ints, categories, confusion
from trainer.evaluate.delong import delong
from trainer.evaluate.kinds import log_odds
from trainer.evaluate.oracle import Mode, oracle_auc
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.thresholds import AtThreshold, at_thresholds

FRACTIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
"""Shares of images, or distances, that the Oracle AUC is told of."""
Ends = tuple[float, float] | None
"""Of an interval; None where there is none."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Numbers beside scores and their intervals; those that a kind of task does not have are empty.

    Attributes
    ----------
    delong, delong_patients : tuple of Ends
        DeLong's interval of the AUC of each class: images taken as independent, and by patient.
    thresholds : tuple of AtThreshold
        Of a multi-label task.
    confusion : ndarray or None
        int64 (K, K), samples of the category of a row that were taken for that of a column; of a multi-class task.
    calibration : dict of str to float or None
        Calibration errors, means over seeds: `ece_width`, `ece_mass`, and `ece_top` of the predicted category.
    oracle : dict of str to tuple
        Mean Oracle AUC at `FRACTIONS`, by mode.
    """

    delong: tuple[Ends, ...] = ()
    delong_patients: tuple[Ends, ...] = ()
    thresholds: tuple[AtThreshold, ...] = ()
    confusion: Ints | None = None
    calibration: Mapping[str, float | None] | None = None
    oracle: Mapping[Mode, tuple[float | None, ...]] | None = None


def decisions(seeds: Sequence[Predictions], thresholds: Sequence[float], level: float) -> Decisions:
    """Return what scores do.

    Parameters
    ----------
    seeds
        Predictions of each seed.
    thresholds
        Probabilities from which a class of a multi-label task counts as predicted.
    level
        Of intervals.
    """
    of = seeds[0]
    if of.about.kind == "regression":
        return Decisions()
    several = of.about.kind == "multiclass"
    modes: tuple[Mode, ...] = ("fraction", "threshold")
    return Decisions(
        delong=_delong(of, level, by_patient=False),
        delong_patients=_delong(of, level, by_patient=True),
        thresholds=() if several else at_thresholds(of.probabilities, of.targets, thresholds),
        confusion=confusion(*categories(of.scores, of.targets), len(of.classes)) if several else None,
        calibration=_calibration(seeds),
        oracle={
            mode: tuple(oracle_auc(of.probabilities, of.targets, mode, x).mean for x in FRACTIONS) for mode in modes
        },
    )


def _delong(of: Predictions, level: float, *, by_patient: bool) -> tuple[Ends, ...]:
    found: list[Ends] = []
    for ranked, target in zip(log_odds(of.about.kind, of.scores).T, of.targets.T, strict=True):
        areas = delong([ranked], target, of.patients if by_patient else None)
        ends = (float("nan"),) * 2 if areas is None else areas.interval(level)
        found.append(None if ends[0] != ends[0] else ends)
    return tuple(found)


def _calibration(seeds: Sequence[Predictions]) -> dict[str, float | None]:
    pairs = [(of.probabilities, of.targets) for of in seeds]
    found = {}
    if seeds[0].about.kind == "multiclass":
        tops = [reliability(*top_label(*pair)) for pair in pairs]
        found["ece_top"] = _mean([None if top is None else top.ece for top in tops])
    found["ece_width"] = _mean([ece(*pair, kind="width").mean for pair in pairs])
    found["ece_mass"] = _mean([ece(*pair, kind="mass").mean for pair in pairs])
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean over seeds, which know the same targets: all have a score, or none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None
