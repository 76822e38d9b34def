"""Classes of the nearest neighbours, weighted by how near they are: the form of DINO (Caron et al. 2021)."""

import numpy as np

from trainer.assess.config import NEIGHBOURS
from trainer.evaluate.kinds import Floats, Kind

TEMPERATURE = 0.07
_LEAST = 1e-6  # of a probability, whose logarithm is a score
_EQUAL = 1e-12  # similarities of equal features differ by their rounding
_AT_ONCE = 1024  # samples


def knn(
    kind: Kind, train: Floats, targets: Floats, test: Floats, k: int = NEIGHBOURS, temperature: float = TEMPERATURE
) -> Floats:
    """Return scores of samples by the targets of their nearest neighbours.

    Neighbours are those of the greatest cosine similarity s, and vote with the weight exp(s / temperature). A class is
    voted on by the nearest of the samples whose target is known for it. Samples that are equally near as the last of
    them share the votes that are left.

    Parameters
    ----------
    kind
        Of the task.
    train, targets
        float (n, D) and (n, K): features and targets of the samples that may be neighbours; NaN where unknown.
    test
        float (m, D), features of the samples that are asked about.
    k
        How many neighbours vote; all, where there are fewer.
    temperature
        Lower ones let the nearest count more.

    Returns
    -------
    Floats
        (m, K): logits of a multi-label task's shares of votes, logarithms of a multi-class task's, and the mean of
        numbers.
    """
    found = np.zeros((len(test), targets.shape[1]))
    left, right = _unit(train), _unit(test)
    for column, target in enumerate(targets.T):
        known = ~np.isnan(target)
        if known.any():
            found[:, column] = _votes(left[known], target[known], right, k, temperature)
    if kind == "regression":
        return found
    share = np.clip(found, _LEAST, 1 - _LEAST)
    return np.asarray(np.log(share) - np.log1p(-share) if kind == "multilabel" else np.log(share))


def _votes(train: Floats, target: Floats, test: Floats, k: int, temperature: float) -> Floats:
    """Return the weighted means of the targets of the k nearest: (m,)."""
    k, parts = min(k, len(train)), []
    for start in range(0, len(test), _AT_ONCE):
        near = test[start : start + _AT_ONCE] @ train.T
        nearest = np.argpartition(-near, k - 1, axis=1)[:, :k]
        similar = np.take_along_axis(near, nearest, 1)
        votes = _mean(np.ones_like(similar), similar, target[nearest], temperature)
        last = similar.min(axis=1, keepdims=True)
        tied = (near >= last - _EQUAL).sum(axis=1) > k
        if tied.any():
            share = _shares(near[tied], last[tied], k)
            votes[tied] = _mean(share, near[tied], target, temperature)
        parts.append(votes)
    return np.concatenate(parts) if parts else np.zeros(0)


def _mean(share: Floats, similar: Floats, target: Floats, temperature: float) -> Floats:
    """Return weighted means of targets, (m,), where each sample has a share of a vote, (m, n)."""
    weights = share * np.exp((similar - similar.max(axis=1, keepdims=True)) / temperature)
    return np.asarray((weights * target).sum(axis=1) / weights.sum(axis=1))


def _shares(near: Floats, last: Floats, k: int) -> Floats:
    """Return 1 of samples nearer than the last neighbour, and of those as near as it a part of what is left of k."""
    nearer, tied = near > last + _EQUAL, np.abs(near - last) <= _EQUAL
    left = (k - nearer.sum(axis=1, keepdims=True)) / tied.sum(axis=1, keepdims=True)
    return np.asarray(nearer + tied * left)


def _unit(features: Floats) -> Floats:
    """Return features of length 1; those of length 0 stay."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, 1), np.float64)
