"""Scores by view, sex, age and body part, each with how many images, patients and positives stand behind it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.evaluate.intervals import LEVEL, REPLICATES, SEED, Estimates
from trainer.evaluate.kinds import Mask
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.seeds import over_seeds

AGE_BANDS = {"0-17": 0, "18-39": 18, "40-64": 40, "65-79": 65, "80+": 80}
"""Bands of age, and the years that each begins with."""
UNKNOWN = "unknown"
FEWEST_PATIENTS = 10
"""Groups of fewer patients are not scored."""


@dataclass(frozen=True, slots=True)
class Group:
    """Some of the samples.

    Attributes
    ----------
    name : str
        What they have in common; "unknown" where the manifest does not say.
    images, patients : int
        How many there are.
    known, positives : tuple of int
        Known targets, and positives of them, of each class; of a regression positives are 0.
    estimates : Estimates or None
        The score, with intervals; None of a group that is too small.
    reason : str
        Why there is no score; empty where there is. A class without a score says why in `estimates`.
    """

    name: str
    images: int
    patients: int
    known: tuple[int, ...]
    positives: tuple[int, ...]
    estimates: Estimates | None
    reason: str


def years(age: str | None) -> float:
    """Return the years of a manifest's age, NaN where it has none.

    Parameters
    ----------
    age
        Five-year steps, whose middle is returned, "90+", or a number. Of bands of age only 15-19 crosses a border: it
        counts as 17, so with the children.
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+)|\+)?", age or "")
    return (int(found[1]) + int(found[2] or found[1])) / 2 if found else np.nan


def rows_by(of: Predictions, fact: str) -> dict[str, Mask]:
    """Return which samples are of which group, in the order that tables have; each sample is in one.

    Parameters
    ----------
    of
        Predictions.
    fact
        One of `predictions.FACTS`; ages go by `AGE_BANDS`.
    """
    values = of.fact(fact)
    if fact == "age":
        names, unknown = list(AGE_BANDS), np.isnan(values)
        at = np.searchsorted(list(AGE_BANDS.values())[1:], np.where(unknown, 0, values), side="right")
    else:
        unknown = np.array([value is None for value in values], bool)
        names = sorted(set(values[~unknown]))
        numbers = {name: number for number, name in enumerate(names)}
        at = np.array([numbers.get(value, -1) for value in values])
    found = {name: (at == number) & ~unknown for number, name in enumerate(names)}
    return {name: rows for name, rows in {**found, UNKNOWN: unknown}.items() if rows.any()}


def group(
    name: str,
    runs: Sequence[Predictions],
    score: str,
    *,
    replicates: int = REPLICATES,
    level: float = LEVEL,
    seed: int = SEED,
) -> Group:
    """Score some samples as a group.

    Parameters
    ----------
    name
        What the samples have in common.
    runs
        Their predictions, of each seed of a run.
    score, replicates, level, seed
        As for `seeds.over_seeds`: of several seeds the interval is over patients and seeds.

    Raises
    ------
    ArgumentError
        Predictions of this kind have no such score. A group that is too small is not scored, so nothing is raised.
    """
    of = runs[0]
    patients = len(np.unique(of.patients))
    positive = (of.targets == 1) & (of.about.kind != "regression")
    few = patients < FEWEST_PATIENTS
    return Group(
        name,
        images=len(of),
        patients=patients,
        known=tuple(of.known.sum(axis=0).tolist()),
        positives=tuple(positive.sum(axis=0).tolist()),
        estimates=None if few else over_seeds(runs, score, replicates=replicates, level=level, seed=seed).overall,
        reason=f"fewer than {FEWEST_PATIENTS} patients" if few else "",
    )
