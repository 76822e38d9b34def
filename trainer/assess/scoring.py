"""Scores with intervals where several fits answer together: draws of few labels, and folds."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from trainer.evaluate.intervals import SEED, Estimates, put_together, resampled
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.statistics import at_once, score_named

THRESHOLD = 0.5
MAIN = {"multilabel": "auc", "multiclass": "auc", "regression": "mae"}
"""Kind of a task -> the score that tables and curves have."""


def estimated(parts: Sequence[Sequence[Predictions]], score: str, replicates: int) -> Estimates:
    """Return the mean of a score over parts and draws, with an interval by resampling the patients of each part.

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
    return put_together(_union([fits[0] for fits in parts]), score, np.mean(values, axis=0), np.mean(drawn, axis=0))


def each(parts: Sequence[Sequence[Predictions]], score: str) -> list[float]:
    """Return the mean over classes and parts of each draw: what drawing others would change."""
    make = score_named(parts[0][0], score).make
    found = np.array([[at_once(make(one, THRESHOLD), one) for one in fits] for fits in parts])
    return [float(np.nanmean(values)) for values in found.mean(axis=0)]


def _union(parts: Sequence[Predictions]) -> Predictions:
    """Return the samples of all parts, for counts of patients; one that is in several counts once."""
    if len(parts) == 1:
        return parts[0]
    table = pa.concat_tables([part.table for part in parts])
    _, first = np.unique(table["key"].to_numpy(), return_index=True)
    return Predictions(parts[0].about, table.take(pa.array(first)))
