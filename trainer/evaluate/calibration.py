"""Whether probabilities are what they say: reliability, ECE, and one temperature fitted on validation."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_expit, log_softmax

from shardkit.errors import ArgumentError
from trainer.evaluate.by_class import ByClass, by_class
from trainer.evaluate.kinds import Floats, Kind

Bins = Literal["width", "mass"]
"""width: bins of equal width, each with its lower end. mass: as many samples in each, equal probabilities together."""
BINS = 15
_LIMIT = 1e3  # temperatures from 1 / this to this


@dataclass(frozen=True, slots=True)
class Reliability:
    """Probabilities against what came true, by bins that hold samples.

    Attributes
    ----------
    counts : ndarray
        int64 (B,), samples.
    predicted, observed : ndarray
        float64 (B,), mean probability and share of positives.
    """

    counts: npt.NDArray[np.int64]
    predicted: Floats
    observed: Floats

    @property
    def ece(self) -> float:
        """Expected calibration error: the mean gap between the two, each sample counting the same."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.counts))


def reliability(probabilities: Floats, positive: Floats, bins: int = BINS, kind: Bins = "width") -> Reliability | None:
    """Return the reliability of one class; None without a sample.

    Parameters
    ----------
    probabilities
        float (n,).
    positive
        float (n,), 1, 0, or NaN where unknown.
    bins
        How many.
    kind
        Of equal width or equal mass.
    """
    known = ~np.isnan(positive)
    p, y = probabilities[known], positive[known]
    if not len(p):
        return None
    inner = np.arange(1, bins) / bins
    if kind == "mass":
        inner = np.unique(np.quantile(p, inner, method="higher"))
    at = np.searchsorted(inner, p, side="right")
    counts = np.bincount(at, minlength=len(inner) + 1)
    there = counts > 0
    sums = [np.bincount(at, of, len(counts))[there] / counts[there] for of in (p, y)]
    return Reliability(counts[there], *sums)


def ece(probabilities: Floats, targets: Floats, bins: int = BINS, kind: Bins = "width") -> ByClass:
    """Return the expected calibration error of each class; of a multi-class task the mean is called classwise.

    Parameters
    ----------
    probabilities, targets
        float (n, K), of a multi-label or multi-class task; a target is 1, 0, or NaN where unknown.
    bins
        How many.
    kind
        Of equal width or equal mass.

    Returns
    -------
    ByClass
        From 0 to 1; None of a class without a known target.
    """

    def score(actual: Floats, said: Floats) -> float:
        found = reliability(said, actual, bins, kind)
        assert found is not None  # there is a known target
        return found.ece

    return by_class(probabilities, targets, score)


def top_label(probabilities: Floats, targets: Floats) -> tuple[Floats, Floats]:
    """Return the probability of the predicted category, and whether it is right, (n,) each, for `reliability`.

    Parameters
    ----------
    probabilities, targets
        float (n, K) of a multi-class task.
    """
    said = probabilities.argmax(axis=1)
    right = np.take_along_axis(targets, said[:, None], axis=1)[:, 0]
    return probabilities.max(axis=1), right


@dataclass(frozen=True, slots=True)
class Temperature:
    """One number that scores are divided by, so that probabilities are neither too sure nor too unsure.

    AUCs of a multi-label task and accuracies of a multi-class one stay as they are: neither order nor the highest score
    changes. One-against-rest AUCs of a multi-class task may change, as softmax mixes a sample's scores.

    Attributes
    ----------
    value : float
        Above 1 where probabilities were too sure.
    before, after : float
        Mean negative log-likelihood of what it was fitted on.
    targets : int
        How many known targets, or samples of a multi-class task, that was.
    at_limit : bool
        None is best, as the samples it was fitted on are told apart without an error, or not at all. Scores stay as
        they are, at 1.
    """

    value: float
    before: float
    after: float
    targets: int
    at_limit: bool

    def apply(self, scores: Floats) -> Floats:
        """Return scores, (n, K), of another table at this temperature."""
        return scores / self.value


def fit_temperature(kind: Kind, scores: Floats, targets: Floats) -> Temperature:
    """Fit one temperature for all classes by the likelihood of known targets.

    Parameters
    ----------
    kind
        Of the task.
    scores, targets
        float (n, K), of samples that were not trained on and are not tested on: the validation split.

    Raises
    ------
    ArgumentError
        It is a regression, or nothing is known.
    """
    if kind == "regression":
        raise ArgumentError("a regression has no probabilities to calibrate: leave the temperature out")
    known = ~np.isnan(targets)
    count = int(known.sum() if kind == "multilabel" else known.all(axis=1).sum())
    if not count:
        raise ArgumentError("no target is known to fit a temperature on: name a split with labels")

    def loss(log_temperature: float) -> float:
        return nll(kind, scores / np.exp(log_temperature), targets)

    limit = np.log(_LIMIT)
    found = minimize_scalar(loss, bounds=(-limit, limit), method="bounded", options={"xatol": 1e-8})
    at_limit = bool(min(loss(-limit), loss(limit)) <= found.fun + 1e-9)
    value = 1.0 if at_limit else float(np.exp(found.x))
    return Temperature(value, loss(0.0), loss(np.log(value)), count, at_limit)


def nll(kind: Kind, scores: Floats, targets: Floats) -> float:
    """Return the mean negative log-likelihood of known targets, in nats, each class of a multi-label task counting.

    Parameters
    ----------
    kind
        Of the task; not a regression.
    scores
        float (n, K), raw outputs of the head.
    targets
        float (n, K), NaN where unknown; one-hot for a multi-class task.

    Returns
    -------
    float
        NaN where nothing is known.
    """
    if kind == "multilabel":
        known = ~np.isnan(targets)
        z, y = scores[known], targets[known]
        return float(-np.where(y == 1, log_expit(z), log_expit(-z)).mean())
    whole = ~np.isnan(targets).any(axis=1)
    return float(-(log_softmax(scores[whole], axis=1) * targets[whole]).sum(axis=1).mean())
