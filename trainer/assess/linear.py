"""Logistic regression on features, ridge regression for numbers: the penalty is chosen without the test samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from trainer.assess import parts
from trainer.assess.parts import Rows
from trainer.evaluate.kinds import Floats, Kind
from trainer.evaluate.scores import summary

PENALTIES = (10.0, 1.0, 0.1, 0.01, 0.001)
"""Values of scikit-learn's C, of features with a deviation of 1; the first is the weakest penalty."""
_USUAL = 0.01
"""Where no penalty can be chosen, as with a single patient of a class."""
_INNER = 3
_ROUNDS = 1000
_NEVER = -30.0  # score of a category without a sample


@dataclass(frozen=True, slots=True)
class Known:
    """Samples with what is known of them.

    Attributes
    ----------
    features, targets : Floats
        (n, D) and (n, K), a target NaN where unknown.
    patients : ndarray
        int64 (n,), number of each sample's patient.
    """

    features: Floats
    targets: Floats
    patients: Rows

    def take(self, rows: Rows) -> "Known":
        """Return some of the samples."""
        return Known(self.features[rows], self.targets[rows], self.patients[rows])


def linear(kind: Kind, train: Known, test: Floats, held: Known | None = None, seed: int = 0) -> tuple[Floats, float]:
    """Fit on some samples, and score others.

    Parameters
    ----------
    kind
        Of the task.
    train
        What is fitted.
    test
        float (m, D), features of the samples that are asked about. Nothing is chosen by them.
    held
        Samples that the penalty is chosen by; without them, by inner folds of the patients of `train`.
    seed
        Of the inner folds.

    Returns
    -------
    tuple of Floats and float
        (m, K), raw scores; and the penalty that was chosen.
    """
    penalty = _chosen(kind, train, held, seed)
    return _fitted(kind, train, penalty)(test), penalty


def _chosen(kind: Kind, train: Known, held: Known | None, seed: int) -> float:
    """Return the penalty whose scores are the best on samples that were not fitted."""
    trials = [(train, held)] if held is not None and len(held.targets) else _inner(kind, train, seed)
    found: dict[float, float] = {}
    for penalty in PENALTIES:
        values = [_worth(kind, _fitted(kind, one, penalty)(other.features), other.targets) for one, other in trials]
        scored = [value for value in values if value is not None]
        if scored:
            found[penalty] = float(np.mean(scored))
    return max(found, key=lambda penalty: found[penalty]) if found else _USUAL


def _inner(kind: Kind, train: Known, seed: int) -> Sequence[tuple[Known, Known]]:
    if len(np.unique(train.patients)) < 2 * _INNER:
        return []
    dealt = parts.folds(parts.strata(kind, train.targets), train.patients, _INNER, seed)
    return [(train.take(one), train.take(other)) for one, other in dealt]


def _worth(kind: Kind, scores: Floats, targets: Floats) -> float | None:
    """Return what a penalty is chosen by: mean AUC, or the negative error of numbers."""
    if kind == "regression":
        error = summary(kind, scores, targets)["rmse"]
        return None if error is None else -error
    return summary(kind, scores, targets)["auc"]


def _fitted(kind: Kind, train: Known, penalty: float) -> Callable[[Floats], Floats]:
    """Return the function from features to scores."""
    mean, deviation = train.features.mean(axis=0), train.features.std(axis=0)
    scale = np.where(deviation > 0, deviation, 1)

    def standard(features: Floats) -> Floats:
        return np.asarray((features - mean) / scale, np.float64)

    thin, back = _rotated(standard(train.features))
    if kind == "multiclass":
        weights = _categories(thin, train.targets, penalty)
    else:
        weights = np.stack([_column(kind, thin, target, penalty) for target in train.targets.T], axis=1)
    return lambda features: np.asarray(standard(features) @ (back @ weights[:-1]) + weights[-1], np.float64)


def _rotated(x: Floats) -> tuple[Floats, Floats]:
    """Return the same samples by fewer numbers, (n, R), and the way back, (D, R), where features outnumber samples.

    The penalties are those of lengths, which a rotation keeps; weights lie in the span of the samples.
    """
    if x.shape[1] <= x.shape[0]:
        return x, np.eye(x.shape[1])
    left, scale, right = np.linalg.svd(x, full_matrices=False)
    return left * scale, right.T


def _column(kind: Kind, x: Floats, target: Floats, penalty: float) -> Floats:
    """Return weights and, last, the constant of a label or a number: (R + 1,)."""
    known = ~np.isnan(target)
    x, y = x[known], target[known]
    if kind == "regression":
        if not len(y):
            return np.zeros(x.shape[1] + 1)
        ridge = Ridge(alpha=0.5 / penalty).fit(x, y)
        return np.append(ridge.coef_, ridge.intercept_)
    if len(np.unique(y)) < 2:
        return np.append(np.zeros(x.shape[1]), 0.0)  # nothing to be told apart
    return _logistic(x, y, penalty)


def _categories(x: Floats, targets: Floats, penalty: float) -> Floats:
    """Return weights and constants of categories: (R + 1, K); those without a sample are ranked below all others."""
    known = ~np.isnan(targets).any(axis=1)
    x, of = x[known], targets[known].argmax(axis=1)
    there, found = np.unique(of), np.zeros((x.shape[1] + 1, targets.shape[1]))
    found[-1] = _NEVER
    found[-1, there] = 0.0
    if len(there) == 2:
        found[:, there[1]] = _logistic(x, (of == there[1]).astype(np.float64), penalty)
    elif len(there) > 2:
        model = LogisticRegression(C=penalty, max_iter=_ROUNDS).fit(x, of)
        found[:, there] = np.vstack([model.coef_.T, model.intercept_])
    return found


def _logistic(x: Floats, y: Floats, penalty: float) -> Floats:
    model = LogisticRegression(C=penalty, solver="newton-cholesky", max_iter=_ROUNDS).fit(x, y)
    return np.append(model.coef_[0], model.intercept_[0])
