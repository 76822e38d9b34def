"""Scores with intervals where several fits answer together: draws of few labels, and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from trainer.evaluate.intervals import SEED, Estimate, Estimates, put_together, resampled
from trainer.evaluate.kinds import Floats, Mask
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.statistics import at_once, patients_with, score_named

THRESHOLD = 0.5
MAIN = {"multilabel": "auc", "multiclass": "auc", "regression": "mae"}
"""Kind of a task -> the score that tables and curves have."""


def estimated(parts: Sequence[Sequence[Predictions]], score: str, replicates: int) -> Estimates:
    """Return the mean of a score over parts and draws, with an interval by resampling the patients of each part.

    A class's mean is over the parts that can score it.

    Parameters
    ----------
    parts
        Of each part, such as a fold, the predictions of several fits on the same samples: these see the same patients
        in a replicate, and parts see others, independently.
    score
        One of `trainer.evaluate.statistics.scores_of`.
    replicates
        How often patients are drawn.
    """
    make = score_named(parts[0][0], score).make
    values, drawn = [], []
    for at, fits in enumerate(parts):
        statistics = [(make(one, THRESHOLD), one) for one in fits]
        values.append(np.mean([at_once(how, one) for how, one in statistics], axis=0))
        drawn.append(np.mean([resampled(how, one, replicates, SEED + at) for how, one in statistics], axis=0))
    there = scored_in(parts, score)
    value, of = _mean(np.array(values), there), _union([fits[0] for fits in parts])
    found = put_together(of, score, value, _mean(np.array(drawn), there[:, None]))
    if len(parts) == 1:
        return found
    counts = patients_with(of, score)
    return replace(found, of=tuple(_apart(one, own) for one, own in zip(found.of, counts, strict=True)))


def each(parts: Sequence[Sequence[Predictions]], score: str) -> list[float | None]:
    """Return the mean over classes and parts of each draw: what drawing others would change. None without a score."""
    make, there = score_named(parts[0][0], score).make, scored_in(parts, score)
    found = np.array([[at_once(make(one, THRESHOLD), one) for one in fits] for fits in parts])
    if not there.any():
        return [None] * found.shape[1]
    return [float(values[there.any(axis=0)].mean()) for values in _mean(found, there[:, None])]


def scored_in(parts: Sequence[Sequence[Predictions]], score: str) -> Mask:
    """Return which classes a part can score: bool (parts, K). The others count in no mean over parts."""
    make = score_named(parts[0][0], score).make
    return np.array([~np.isnan(at_once(make(fits[0], THRESHOLD), fits[0])) for fits in parts])


def _mean(values: Floats, there: Mask) -> Floats:
    """Return the mean over the first axis of what is there; NaN where nothing is."""
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(there, values, 0).sum(axis=0) / there.sum(axis=0))


def _apart(of: Estimate, patients: Mapping[str, int]) -> Estimate:
    """Give the reason of a class that has all that a score needs, but never in one part."""
    apart = of.value is None and all(patients.values())
    return replace(of, reason="no fold with a positive and a negative") if apart else of


def _union(parts: Sequence[Predictions]) -> Predictions:
    """Return the samples of all parts, for counts of patients; one that is in several counts once."""
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables([part.table for part in parts])
    _, first = np.unique(table["key"].to_numpy(), return_index=True)
    return Predictions(parts[0].about, table.take(pa.array(first)))
