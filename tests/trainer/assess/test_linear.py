"""Logistic regression on features: scikit-learn's answer, a penalty chosen by patient, and cases of little to learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from trainer.assess.linear import PENALTIES, Known, linear
from trainer.evaluate.kinds import Floats


def known(number: int, width: int, seed: int, signal: float = 1.0) -> Known:
    """Two labels that some features tell of, of patients with two images each."""
    rng = np.random.default_rng(seed)
    features = rng.normal(5, 3, (number, width))
    targets = (features[:, :2] - 5 + rng.normal(0, 3 / signal, (number, 2)) > 0).astype(np.float64)
    return Known(features, targets, np.arange(number) // 2)


@pytest.mark.parametrize("width", [10, 300], ids=["more samples than features", "more features than samples"])
def test_scores_are_those_of_scikit_learn_at_the_chosen_penalty(width: int) -> None:
    train, test = known(120, width, 0), known(40, width, 1)
    scores, penalties = linear("multilabel", train, test.features)
    scaler = StandardScaler().fit(train.features)
    for k, penalty in enumerate(penalties):
        assert penalty in PENALTIES
        theirs = LogisticRegression(C=penalty, tol=1e-9, max_iter=5000)
        theirs.fit(scaler.transform(train.features), train.targets[:, k])
        wanted = theirs.decision_function(scaler.transform(test.features))
        np.testing.assert_allclose(scores[:, k], wanted, atol=0.01 * np.abs(wanted).max())


def test_noise_is_penalised_more_than_a_clear_signal() -> None:
    """Many features of which few count: without a penalty they would be learnt by heart."""
    noisy, clear = known(160, 100, 2, signal=0.3), known(400, 3, 3, signal=20.0)
    _, much = linear("multilabel", noisy, noisy.features)
    _, little = linear("multilabel", clear, clear.features)
    assert max(much) < min(little)


def test_the_penalty_is_chosen_by_patient() -> None:
    """Each patient's images are equal, and labels are chance: image by image, learning by heart would pay."""
    rng = np.random.default_rng(4)
    who = np.repeat(np.arange(60), 4)
    features = rng.normal(size=(60, 80))[who] + rng.normal(0, 0.01, (240, 80))
    targets = rng.integers(0, 2, (60, 1)).astype(np.float64)[who]
    by_patient = linear("multilabel", Known(features, targets, who), features)[0]
    by_image = linear("multilabel", Known(features, targets, np.arange(240)), features)[0]
    assert np.abs(by_patient).max() < np.abs(by_image).max()


def test_categories_are_ranked_as_their_labels() -> None:
    train = known(200, 6, 5)
    of = (train.targets[:, 0] + train.targets[:, 1]).astype(np.int64)
    three = Known(train.features, np.eye(3)[of], train.patients)
    two = Known(train.features, np.eye(2)[(of > 0).astype(np.int64)], train.patients)
    assert linear("multiclass", three, train.features)[0].shape == (200, 3)
    scores, _ = linear("multiclass", two, train.features)
    assert roc_auc_score(of > 0, scores[:, 1] - scores[:, 0]) > 0.8


def test_unknown_targets_are_left_out_and_absent_classes_are_ranked_last() -> None:
    train = known(60, 5, 6)
    targets = train.targets.copy()
    targets[:30, 1] = np.nan
    blank = Known(train.features, targets, train.patients)
    whole = Known(train.features[30:], train.targets[30:, 1:], train.patients[30:])
    here, there = linear("multilabel", blank, train.features)[0][:, 1], linear("multilabel", whole, train.features)[0]
    assert np.corrcoef(here, there[:, 0])[0, 1] > 0.9
    absent = Known(train.features, np.eye(3)[train.targets[:, 0].astype(np.int64)], train.patients)
    scores, _ = linear("multiclass", absent, train.features)
    assert (scores[:, 2] < scores[:, :2].max(axis=1)).all()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "regression"])
def test_a_single_patient_or_a_single_class_still_gives_scores(kind: str) -> None:
    one = Known(np.ones((1, 4)), np.array([[1.0, 0.0]]), np.zeros(1, np.int64))
    scores, _ = linear(kind, one, np.zeros((3, 4)))  # type: ignore[arg-type]
    assert scores.shape == (3, 2)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_few_patients_of_many_classes_still_give_scores(kind: str) -> None:
    """Of no class there are as many samples as inner folds."""
    rng = np.random.default_rng(8)
    few = Known(rng.normal(size=(8, 5)), np.eye(14)[np.arange(8)], np.arange(8))
    scores, penalties = linear(kind, few, rng.normal(size=(3, 5)))  # type: ignore[arg-type]
    assert np.isfinite(scores).all()
    assert set(penalties) <= {*PENALTIES}


def test_numbers_are_found_by_ridge_regression() -> None:
    rng = np.random.default_rng(7)
    features: Floats = rng.normal(size=(150, 8))
    ages = features @ rng.normal(size=(8, 1)) * 10 + 50
    scores, penalties = linear("regression", Known(features, ages, np.arange(150)), features)
    np.testing.assert_allclose(scores, ages, atol=0.5)
    assert penalties == [max(PENALTIES)]
