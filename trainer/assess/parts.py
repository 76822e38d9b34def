"""Who is learnt from and who is asked about: folds and shares of patients, with every class in them where it can be.

All images of a patient are on one side. Patients of rare classes are dealt out like the others, so that few of them do
not fall into one fold by chance, and a small share of the patients holds each class while there are patients enough.
"""

import warnings

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from trainer.evaluate.kinds import Floats, Kind

Rows = npt.NDArray[np.int64]
_BANDS = 4  # of numbers, which patients are dealt out by


def strata(kind: Kind, targets: Floats) -> Rows:
    """Return what samples are dealt out by: their rarest class, K where they have none; a band of the first number.

    Parameters
    ----------
    kind
        Of the task.
    targets
        float (n, K), NaN where unknown.
    """
    if kind == "regression":
        number = np.where(np.isnan(targets[:, 0]), np.nanmedian(targets[:, 0]), targets[:, 0])
        edges = np.quantile(number, np.arange(1, _BANDS) / _BANDS)
        return np.asarray(np.searchsorted(edges, number, side="right"), np.int64)
    positive = np.nan_to_num(targets) > 0
    rarest_first = np.argsort(positive.sum(axis=0), kind="stable")
    ordered = positive[:, rarest_first]
    return np.asarray(np.where(ordered.any(axis=1), rarest_first[ordered.argmax(axis=1)], targets.shape[1]), np.int64)


def folds(of: Rows, patients: Rows, number: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Return train and test rows of each fold; every row is tested once, and no patient is on both sides.

    Where all strata have fewer samples than there are folds, the smallest are taken together until one is large enough.

    Parameters
    ----------
    of
        int (n,), strata of the samples.
    patients
        int (n,), number of each sample's patient.
    number
        Of folds: of patients, there are as many at least.
    seed
        What is drawn.
    """
    of = _large_enough(of, number)
    dealer = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a class that is too rare to be in each fold
        dealt = list(dealer.split(of, of, patients))
    return [(train.astype(np.int64), test.astype(np.int64)) for train, test in dealt]


def _large_enough(of: Rows, number: int) -> Rows:
    """Return strata of which one has so many samples, as scikit-learn wants."""
    _, at, size = np.unique(of, return_inverse=True, return_counts=True)
    if size.max() >= number:
        return of
    smallest_first = np.argsort(size, kind="stable")
    together = smallest_first[: np.searchsorted(np.cumsum(size[smallest_first]), number) + 1]
    return np.asarray(np.where(np.isin(at, together), together[0], at), np.int64)


def share(of: Rows, patients: Rows, fraction: float, seed: int) -> Rows:
    """Return the rows of a share of the patients, all images of each.

    The same seed gives nested shares: what 1 % holds, 10 % holds, too.

    Parameters
    ----------
    of
        int (n,), strata of the samples. A patient's is that of the first of its samples in a random order.
    patients
        int (n,), number of each sample's patient.
    fraction
        Share of the patients, above 0.
    seed
        What is drawn.
    """
    if fraction >= 1:
        return np.arange(len(of))
    order = np.random.default_rng(seed).permutation(len(of))
    who, first = np.unique(patients[order], return_index=True)
    return np.flatnonzero(np.isin(patients, who[_dealt(of[order][first], first)[: max(1, round(fraction * len(who)))]]))


def _dealt(of: Rows, drawn: Rows) -> Rows:
    """Return patients in an order whose every beginning holds each stratum by its share, with one of each first.

    Parameters
    ----------
    of, drawn
        int (n,), stratum of each patient, and its place in a random order.
    """
    by = np.lexsort((drawn, of))
    _, start, size = np.unique(of[by], return_index=True, return_counts=True)
    rank = np.arange(len(by)) - np.repeat(start, size)
    place = (rank + 0.5) / np.repeat(size, size)
    return by[np.lexsort((place, rank > 0))]
