"""Logistic regression on features, ridge regression for numbers: the penalty is chosen without the test samples."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression, Ridge

from trainer.assess import parts
from trainer.assess.parts import Rows
from trainer.evaluate.kinds import Floats, Kind, log_odds
from trainer.evaluate.regression import rmse
from trainer.evaluate.scores import auc

PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01, 0.001)
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


def linear(kind: Kind, train: Known, test: Floats, seed: int = 0) -> tuple[Floats, list[float]]:
    """Fit on some samples, and score others.

    Parameters
    ----------
    kind
        Of the task.
    train
        What is fitted. A class's penalty is the one that is the best on inner folds of these patients.
    test
        float (m, D), features of the samples that are asked about. Nothing is chosen by them.
    seed
        Of the inner folds.

    Returns
    -------
    tuple of Floats and list of float
        (m, K), raw scores; and the penalties that were chosen: of each class, or of all categories together.
    """
    chosen, fit = _chosen(kind, train, seed), _Fit(kind, train)
    if kind == "multiclass":
        return fit.scores(chosen[0], test), chosen
    by_penalty = {penalty: fit.scores(penalty, test) for penalty in set(chosen)}
    return np.stack([by_penalty[penalty][:, k] for k, penalty in enumerate(chosen)], axis=1), chosen


def _chosen(kind: Kind, train: Known, seed: int) -> list[float]:
    """Return the penalties whose scores are the best on patients that were not fitted."""
    problems = 1 if kind == "multiclass" else train.targets.shape[1]
    if len(np.unique(train.patients)) < 2 * _INNER:
        return [_USUAL] * problems
    dealt = parts.folds(parts.strata(kind, train.targets), train.patients, _INNER, seed)
    fits = [(_Fit(kind, train.take(one)), train.take(other)) for one, other in dealt]
    worth = np.full((len(PENALTIES), problems), -np.inf)
    for at, penalty in enumerate(PENALTIES):
        found = np.array([_worth(kind, fit.scores(penalty, held.features), held.targets) for fit, held in fits])
        scored = ~np.isnan(found).all(axis=0)
        worth[at, scored] = np.nanmean(found[:, scored], axis=0)
    return [PENALTIES[column.argmax()] if np.isfinite(column).any() else _USUAL for column in worth.T]


def _worth(kind: Kind, scores: Floats, targets: Floats) -> list[float]:
    """Return what penalties are chosen by: AUC of each class or mean over categories, or negative errors of numbers."""
    if kind == "regression":
        return [np.nan if value is None else -value for value in rmse(scores, targets).values]
    found = auc(log_odds(kind, scores), targets)
    values = (found.mean,) if kind == "multiclass" else found.values
    return [np.nan if value is None else value for value in values]


class _Fit:
    """Samples made ready, to be fitted with several penalties."""

    def __init__(self, kind: Kind, train: Known) -> None:
        self._kind, self._targets = kind, train.targets
        self._mean, deviation = train.features.mean(axis=0), train.features.std(axis=0)
        self._scale = np.where(deviation > 0, deviation, 1)
        self._x, self._back = _rotated(self._standard(train.features))

    def scores(self, penalty: float, features: Floats) -> Floats:
        """Fit with a penalty, and score other samples: (m, D) -> (m, K)."""
        if self._kind == "multiclass":
            weights = _categories(self._x, self._targets, penalty)
        else:
            columns = [_column(self._kind, self._x, target, penalty) for target in self._targets.T]
            weights = np.stack(columns, axis=1)
        turned = weights[:-1] if self._back is None else self._back @ weights[:-1]
        return np.asarray(self._standard(features) @ turned + weights[-1], np.float64)

    def _standard(self, features: Floats) -> Floats:
        return np.asarray((features - self._mean) / self._scale, np.float64)


def _rotated(x: Floats) -> tuple[Floats, Floats | None]:
    """Return the same samples by fewer numbers, (n, R), and the way back, (D, R), where features outnumber samples.

    The penalties are those of lengths, which a rotation keeps; weights lie in the span of the samples.
    """
    if x.shape[1] <= x.shape[0]:
        return x, None
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
