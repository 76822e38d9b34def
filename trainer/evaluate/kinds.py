"""Kinds of tasks, and what their scores mean: probabilities, and what a class is ranked by."""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logsumexp, softmax

Kind = Literal["multilabel", "multiclass", "regression"]
"""multilabel: each class is there or not. multiclass: one class of several. regression: numbers."""
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


def probabilities(kind: Kind, scores: Floats) -> Floats:
    """Return probabilities of scores.

    Parameters
    ----------
    kind
        Of the task.
    scores
        float (n, K), raw outputs of a head.

    Returns
    -------
    Floats
        (n, K), sigmoids of a multi-label task, softmax of a multi-class one; scores of a regression as they are.
    """
    if kind == "regression":
        return scores
    return np.asarray(expit(scores) if kind == "multilabel" else softmax(scores, axis=1), np.float64)


def log_odds(kind: Kind, scores: Floats) -> Floats:
    """Return what samples are ranked by: the logarithm of p / (1 - p), without ties where a probability rounds to 1.

    Parameters
    ----------
    kind
        Of the task; not a regression.
    scores
        float (n, K). Of a multi-class task a raw score says nothing across samples: each has a constant of its own.
    """
    if kind == "multilabel" or scores.shape[1] < 2:
        return scores
    others = [logsumexp(np.delete(scores, k, axis=1), axis=1) for k in range(scores.shape[1])]
    return np.asarray(scores - np.stack(others, axis=1), np.float64)
