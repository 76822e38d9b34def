"""Scores are what their definitions say, and what cannot be scored is neither 0 nor 0.5."""

from __future__ import annotations

import itertools
import warnings
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, r2_score, roc_auc_score

from tests.trainer.evaluate.samples import predictions
from trainer.evaluate import regression
from trainer.evaluate.categories import confusion, recalls
from trainer.evaluate.intervals import estimates
from trainer.evaluate.kinds import Floats, Kind, log_odds, probabilities
from trainer.evaluate.scores import accuracy, auc, average_precision, balanced_accuracy, subset_accuracy, summary
from trainer.evaluate.statistics import at_once, score_named, scores_of
from trainer.evaluate.thresholds import THRESHOLDS, at_thresholds


def _pairs(scores: Floats, targets: Floats) -> float:
    """How often a positive ranks above a negative, by looking at all pairs."""
    pairs = list(itertools.product(scores[targets == 1], scores[targets == 0]))
    return float(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


def _samples(n: int = 60, classes: int = 3, seed: int = 0) -> tuple[Floats, Floats]:
    random = np.random.default_rng(seed)
    targets = (random.random((n, classes)) < 0.4).astype(float)
    return np.round(random.normal(size=(n, classes)) + targets, 1), targets


def test_auc_is_the_share_of_pairs_in_order_with_ties_half() -> None:
    for seed in range(5):
        scores, targets = _samples(seed=seed)
        assert len(np.unique(scores)) < scores.size / 2, "with ties"
        found = auc(scores, targets).values
        for k, value in enumerate(found):
            assert value == pytest.approx(_pairs(scores[:, k], targets[:, k]), abs=1e-15)
            assert value == roc_auc_score(targets[:, k], scores[:, k])


def test_a_class_without_positives_is_not_averaged_as_zero_nor_as_chance() -> None:
    """14 findings of which nobody has the last: its zero makes .695 of .749, and a half .731."""
    random = np.random.default_rng(1)
    targets = (random.random((400, 14)) < 0.2).astype(float)
    targets[:, 13] = 0
    scores = random.normal(size=(400, 14)) + 0.95 * targets
    found = auc(scores, targets)
    values = [value for value in found.values if value is not None]
    assert found.values[13] is None
    assert found.reasons == ("",) * 13 + ("no positive",)
    assert found.scored == len(values) == 13
    assert found.mean == pytest.approx(sum(values) / 13)
    assert found.mean == summary("multilabel", scores, targets)["auc"]
    assert 0.74 < (found.mean or 0) < 0.76
    assert 0.68 < sum(values) / 14 < 0.71
    precision = average_precision(scores, targets)
    assert precision.values[13] is None
    assert precision.mean == pytest.approx(np.mean([v for v in precision.values if v is not None]))


def test_a_category_without_samples_has_no_recall_that_counts() -> None:
    """Five categories of which one is absent: a mean over all five is four fifths of the balanced accuracy."""
    random = np.random.default_rng(2)
    actual = random.choice([0, 1, 3, 4], 100)
    scores = random.normal(size=(100, 5))
    targets = np.eye(5)[actual]
    found = summary("multiclass", scores, targets)
    said = scores.argmax(axis=1)
    each = recalls(said, actual, 5)
    assert each[2] is None
    known = [value for value in each if value is not None]
    assert found["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(actual[said != 2], said[said != 2]), abs=0.1
    )
    assert found["balanced_accuracy"] == pytest.approx(sum(known) / 4)
    assert found["balanced_accuracy"] != pytest.approx(sum(known) / 5, abs=0.01)
    assert "subset_accuracy" not in found
    assert found["accuracy"] == (said == actual).mean()


def test_nothing_to_score_is_none_and_says_why() -> None:
    scores = np.zeros((4, 3))
    targets = np.array([[1, 0, np.nan]] * 4)
    found = auc(scores, targets)
    assert found.values == (None, None, None)
    assert found.reasons == ("no negative", "no positive", "no known target")
    assert found.mean is None
    assert summary("multilabel", scores, targets) == {
        "auc": None,
        "ap": None,
        "accuracy": 0.5,
        "balanced_accuracy": None,
        "subset_accuracy": 0.0,
    }
    nothing = np.full((4, 3), np.nan)
    for kind in get_args(Kind):
        assert set(summary(kind, scores, nothing).values()) == {None}
        assert set(summary(kind, scores[:0], nothing[:0]).values()) == {None}


def test_unknown_targets_are_left_out_class_by_class() -> None:
    scores, targets = _samples(200)
    unknown = np.random.default_rng(3).random(targets.shape) < 0.3
    masked = np.where(unknown, np.nan, targets)
    found = auc(scores, masked).values, average_precision(scores, masked).values, accuracy(scores > 0, masked).values
    for k in range(3):
        s, t = scores[~unknown[:, k], k], targets[~unknown[:, k], k]
        assert [values[k] for values in found] == [
            pytest.approx(roc_auc_score(t, s)),
            pytest.approx(average_precision_score(t, s)),
            pytest.approx(((s > 0) == t).mean()),
        ]
    whole = ~unknown.any(axis=1)
    assert subset_accuracy(scores > 0, masked) == ((scores > 0) == targets)[whole].all(axis=1).mean()
    masked[:, 1] = np.nan
    whole = ~unknown[:, [0, 2]].any(axis=1)
    right = ((scores > 0) == targets)[:, [0, 2]].all(axis=1)
    assert subset_accuracy(scores > 0, masked) == right[whole].mean(), "a class that nobody labelled is left aside"


def test_a_category_is_ranked_by_its_odds_and_not_by_its_raw_score() -> None:
    """Softmax ignores what all scores of a sample share; ranked by the raw score it would hide the signal."""
    random = np.random.default_rng(4)
    actual = random.integers(0, 3, 300)
    scores = 2 * np.eye(3)[actual] + random.normal(size=(300, 3)) + 20 * random.normal(size=(300, 1))
    targets = np.eye(3)[actual]
    found = summary("multiclass", scores, targets)["auc"]
    p = probabilities("multiclass", scores)
    assert found == pytest.approx(roc_auc_score(actual, p, multi_class="ovr"), abs=1e-12)
    assert found is not None
    assert found > 0.9
    raw = auc(scores, targets).mean
    assert raw is not None
    assert raw < 0.7


def test_sure_scores_are_not_made_ties_by_rounding() -> None:
    scores = np.array([[40.0], [60.0], [-800.0], [-900.0]])
    targets = np.array([[0.0], [1.0], [1.0], [0.0]])
    assert len(np.unique(probabilities("multilabel", scores))) < 4
    assert summary("multilabel", scores, targets)["auc"] == 0.75
    both = np.hstack([scores, np.zeros((4, 1))])
    assert np.allclose(log_odds("multiclass", both)[:, 0], scores[:, 0])


@settings(max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([np.exp, np.arctan, lambda x: 3 * x - 7]))
def test_ranked_scores_do_not_change_under_what_keeps_the_order_nor_with_the_order_of_rows(
    seed: int, monotone: np.ufunc
) -> None:
    scores, targets = _samples(30, 1, seed)
    scores = np.round(scores, 1)
    for score in (auc, average_precision):
        found = score(scores, targets)
        assert score(monotone(scores), targets) == found
        rows = np.random.default_rng(seed).permutation(30)
        assert score(scores[rows], targets[rows]).values == pytest.approx(found.values, abs=1e-14)
    if None not in auc(scores, targets).values:
        assert auc(-scores, targets).mean == pytest.approx(1 - (auc(scores, targets).mean or 0))


def test_balanced_accuracy_of_a_finding_is_the_mean_of_sensitivity_and_specificity() -> None:
    scores, targets = _samples(200)
    found = balanced_accuracy(scores > 0.5, targets).values
    for k in range(3):
        assert found[k] == pytest.approx(balanced_accuracy_score(targets[:, k], scores[:, k] > 0.5))


def test_scores_at_thresholds_are_counts_of_a_table_of_four() -> None:
    random = np.random.default_rng(5)
    p, targets = random.random((150, 5)), (random.random((150, 5)) < 0.2).astype(float)
    p[:7] = 0.3  # at a threshold: it counts as predicted
    targets[:, 4] = 0
    for at in at_thresholds(p, targets):
        for k in range(5):
            said, actual = p[:, k] >= at.threshold, targets[:, k] == 1
            tp, fp = (said & actual).sum(), (said & ~actual).sum()
            fn, tn = (~said & actual).sum(), (~said & ~actual).sum()
            assert at.fpr.values[k] == pytest.approx(fp / (fp + tn))
            assert at.accuracy.values[k] == pytest.approx((tp + tn) / 150)
            if k == 4:
                assert at.fnr.values[k] is None
            else:
                assert at.fnr.values[k] == pytest.approx(fn / (fn + tp))
            assert at.precision.values[k] == pytest.approx(tp / (tp + fp))
        assert at.fnr.scored == 4
        assert at.fnr.mean == pytest.approx(sum(v for v in at.fnr.values if v is not None) / 4)
        assert at.subset_accuracy == pytest.approx(((p >= at.threshold) == targets).all(axis=1).mean())
    assert [at.threshold for at in at_thresholds(p, targets)] == list(THRESHOLDS) == [0.1, 0.2, 0.3, 0.4, 0.5]
    nothing = at_thresholds(p, targets, [2.0])[0].precision
    assert set(nothing.values) == {None}
    assert set(nothing.reasons) == {"nothing is predicted"}


def test_a_confusion_has_actual_rows_and_predicted_columns() -> None:
    actual, said = np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 0, 2, 2])
    assert confusion(said, actual, 4).tolist() == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]


def test_errors_of_numbers_are_in_the_unit_of_the_target() -> None:
    random = np.random.default_rng(6)
    targets = random.normal(50, 20, (80, 2))
    said = targets + random.normal(3, 5, (80, 2))
    targets[:20, 1] = np.nan
    of = predictions(said, targets, "regression")
    for k, rows in enumerate((slice(None), slice(20, None))):
        error = said[rows, k] - targets[rows, k]
        wanted = {
            "mae": np.mean(np.abs(error)),
            "rmse": np.sqrt(np.mean(error**2)),
            "median_error": np.median(np.abs(error)),
            "bias": np.mean(error),
            "r2": r2_score(targets[rows, k], said[rows, k]),
        }
        assert wanted.keys() == scores_of("regression").keys()
        for name, value in wanted.items():
            assert at_once(score_named(of, name).make(of, 0.5), of)[k] == pytest.approx(value)
    flat = estimates(predictions(said[:, :1], np.full((80, 1), 7.1), "regression"), "r2", replicates=20).of[0]
    assert (flat.value, flat.reason) == (None, "all targets are equal")
    assert summary("regression", said, targets)["mae"] == regression.mae(said, targets).mean


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 12))
def test_median_errors_and_explained_variance_of_weights_are_those_of_samples_repeated(seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    who = random.integers(0, 4, n)
    targets, said = np.round(random.normal(50, 2, (2, n, 1)), 0)
    targets[random.random(n) < 0.2] = np.nan
    of = predictions(said, targets, "regression", patient=[f"{at:x}" for at in who])
    weights = random.integers(0, 4, (of.patients.max() + 1, 1)).astype(float)
    rows = np.repeat(np.arange(n), np.where(np.isnan(targets[:, 0]), 0, weights[of.patients, 0]).astype(int))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        median, explained = (score_named(of, name).make(of, 0.5)(weights)[0, 0] for name in ("median_error", "r2"))
    errors = np.abs(said - targets)[rows, 0]
    assert median == pytest.approx(np.median(errors)) if len(rows) else np.isnan(median)
    if len(set(targets[rows, 0])) > 1:
        assert explained == pytest.approx(r2_score(targets[rows, 0], said[rows, 0]))
    else:
        assert np.isnan(explained)
