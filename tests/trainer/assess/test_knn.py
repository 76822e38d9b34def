"""Nearest neighbours against scikit-learn's with the same weights, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from trainer.assess.knn import TEMPERATURE, knn
from trainer.evaluate.kinds import Floats


def samples(number: int, classes: int, seed: int) -> tuple[Floats, Floats]:
    """Features around a centre a class, and one-hot targets."""
    rng = np.random.default_rng(seed)
    of = rng.integers(0, classes, number)
    return np.eye(classes, 12)[of] + rng.normal(0, 0.6, (number, 12)), np.eye(classes)[of]


def weights(distances: Floats) -> Floats:
    """DINO's, of cosine distances: scikit-learn divides by their sum."""
    return np.exp((1 - distances) / TEMPERATURE)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_shares_of_votes_are_those_of_scikit_learn(k: int) -> None:
    train, targets = samples(90, 3, 0)
    test, _ = samples(40, 3, 1)
    ours = np.exp(knn("multiclass", train, targets, test, k))
    theirs = KNeighborsClassifier(k, metric="cosine", weights=weights, algorithm="brute")
    theirs.fit(train, targets.argmax(1))
    np.testing.assert_allclose(ours, np.clip(theirs.predict_proba(test), 1e-6, 1 - 1e-6), atol=1e-9)


def test_numbers_are_the_weighted_mean_of_the_neighbours_numbers() -> None:
    train, _ = samples(60, 3, 2)
    ages = np.random.default_rng(3).uniform(20, 90, (60, 1))
    test, _ = samples(20, 3, 4)
    theirs = KNeighborsRegressor(7, metric="cosine", weights=weights, algorithm="brute").fit(train, ages)
    np.testing.assert_allclose(knn("regression", train, ages, test, 7), theirs.predict(test), rtol=1e-9)


def test_a_label_is_voted_on_by_the_nearest_of_those_whose_label_is_known() -> None:
    train = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    targets = np.array([[np.nan, 1.0], [1.0, np.nan], [0.0, 0.0], [0.0, np.nan]])
    found = expit(knn("multilabel", train, targets, np.array([[2.0, 0.0], [0.0, 3.0]]), k=1))
    np.testing.assert_allclose(found, [[1, 1], [0, 0]], atol=1e-5)


def test_length_of_features_does_not_count() -> None:
    train, targets = samples(50, 2, 5)
    test, _ = samples(10, 2, 6)
    scale = np.random.default_rng(7).uniform(0.1, 10, (50, 1))
    np.testing.assert_allclose(
        knn("multiclass", train * scale, targets, test * 3), knn("multiclass", train, targets, test), rtol=1e-6
    )


def test_fewer_samples_than_neighbours_all_vote() -> None:
    train, targets = samples(6, 2, 8)
    assert knn("multiclass", train, targets, train, k=20).shape == (6, 2)


def test_samples_that_are_equally_near_share_the_last_votes_whatever_their_order() -> None:
    """Half of 40 equal features have the label; another one is nearer, and one is far."""
    train = np.vstack([np.ones((40, 3)), [[1.0, 1.0, 1.2]], [[-1.0, 0.0, 0.0]]])
    targets = np.r_[np.ones(20), np.zeros(20), 1.0, 1.0][:, None]
    test, order = np.array([[1.0, 1.0, 1.2]]), np.random.default_rng(9).permutation(42)
    near = np.exp((np.array([1.0, 3.2 / np.sqrt(3 * 3.44)]) - 1) / TEMPERATURE)
    wanted = (near[0] + 9.5 * near[1]) / (near[0] + 19 * near[1])
    for rows in (np.arange(42), order):
        found = expit(knn("multilabel", train[rows], targets[rows], test, k=20))
        np.testing.assert_allclose(found, [[wanted]], rtol=1e-9)
