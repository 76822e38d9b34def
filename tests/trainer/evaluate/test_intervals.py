"""Intervals: many weightings at once are each what a loop over drawn patients finds, and patients are what is drawn."""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.samples import clustered, predictions
from trainer.evaluate.intervals import estimates, resampled
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.ranks import Ranks
from trainer.evaluate.scores import summary
from trainer.evaluate.statistics import at_once, score_named, scores_of


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 2), st.integers(2, 40))
def test_weighted_auc_and_precision_are_those_of_samples_repeated(seed: int, digits: int, n: int) -> None:
    random = np.random.default_rng(seed)
    scores, who = np.round(random.normal(size=n), digits), random.integers(0, max(1, n // 3), n)
    targets = random.choice([0.0, 1.0, np.nan], n, p=[0.5, 0.4, 0.1])
    weights = random.integers(0, 4, (who.max() + 1, 2)).astype(float)
    ranks = Ranks(scores, targets, who)
    area, precision = ranks.auc(weights), ranks.average_precision(weights)
    for b in range(2):
        rows = np.repeat(np.arange(n), np.where(np.isnan(targets), 0, weights[who, b]).astype(int))
        kinds = set(targets[rows])
        if kinds == {0.0, 1.0}:
            assert area[b] == pytest.approx(roc_auc_score(targets[rows], scores[rows]), abs=1e-13)
            assert precision[b] == pytest.approx(average_precision_score(targets[rows], scores[rows]), abs=1e-13)
        else:
            assert np.isnan(area[b])
            assert np.isnan(precision[b])


def _all_kinds() -> list[Predictions]:
    of = clustered(30, 4, classes=3)
    targets = np.where(np.random.default_rng(0).random(of.targets.shape) < 0.1, np.nan, of.targets)
    patient = of.table["patient"].to_pylist()
    categories = np.eye(3)[np.random.default_rng(1).integers(0, 3, len(of))]
    categories[:5] = np.nan
    return [
        predictions(of.scores, targets, patient=patient),
        predictions(of.scores, categories, kind="multiclass", patient=patient),
        predictions(of.scores, np.nan_to_num(targets) + of.scores / 2, kind="regression", patient=patient),
    ]


@pytest.mark.parametrize("of", _all_kinds(), ids=lambda of: of.about.kind)
def test_every_score_is_that_of_the_summary_and_its_replicates_those_of_drawn_patients(of: Predictions) -> None:
    plain = summary(of.about.kind, of.scores, of.targets)
    names = scores_of(of.about.kind)
    assert plain.keys() <= names.keys()
    random = np.random.default_rng(3)
    drawn = random.integers(0, of.patients.max() + 1, of.patients.max() + 1)
    rows = np.concatenate([np.flatnonzero(of.patients == patient) for patient in drawn])
    weights = np.bincount(drawn, minlength=of.patients.max() + 1).astype(float)[:, None]
    again = summary(of.about.kind, of.scores[rows], of.targets[rows])
    for name in plain:
        statistic = score_named(of, name).make(of, 0.5)
        assert at_once(statistic, of).mean() == pytest.approx(plain[name], abs=1e-14)
        assert statistic(weights).mean() == pytest.approx(again[name], abs=1e-13)


def test_an_interval_lies_between_percentiles_of_replicates_and_is_the_seeds() -> None:
    of = clustered(60, 3, classes=2)
    found = estimates(of, "auc", replicates=500, level=0.9)
    drawn = resampled(score_named(of, "auc").make(of, 0.5), of, 500)
    for k, one in enumerate(found.of):
        assert (one.low, one.high) == tuple(np.quantile(drawn[:, k], [0.05, 0.95]))
        assert None not in (one.low, one.high)
        assert (one.low or 1) < (one.value or 0) < (one.high or 0)
        assert one.used == 500
    assert (found.mean.low, found.mean.high) == tuple(np.quantile(drawn.mean(axis=1), [0.05, 0.95]))
    assert found == estimates(of, "auc", replicates=500, level=0.9)
    assert found != estimates(of, "auc", replicates=500, level=0.9, seed=1)
    rows = np.random.default_rng(0).permutation(len(of))
    shuffled = Predictions(of.about, of.table.take(rows))
    assert estimates(shuffled, "auc", replicates=500, level=0.9) == found, "whatever the order of rows"
    assert (found.images, found.patients, found.unknown) == (180, 60, 0)


def test_images_taken_as_independent_make_an_interval_that_is_too_narrow() -> None:
    of = clustered(60, 8)
    alone = Predictions(of.about, of.table.set_column(1, "patient", [[None] * len(of)]).cast(of.table.schema))
    by_patient, by_image = estimates(of, "auc").mean, estimates(alone, "auc")
    assert by_image.patients == by_image.unknown == 480, "a sample of an unknown patient is one of its own"
    width = [(one.high or 0) - (one.low or 0) for one in (by_patient, by_image.mean)]
    assert width[0] > 1.8 * width[1]


def test_a_replicate_without_a_positive_is_left_out_for_that_class_and_for_the_mean_and_counted() -> None:
    random = np.random.default_rng(0)
    targets = np.zeros((50, 3))
    targets[:3, 0] = 1
    targets[:25, 1] = 1
    of = predictions(random.normal(size=(50, 3)), targets, patient=[f"{at:x}" for at in range(50)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = estimates(of, "auc", replicates=4000)
    rare, often, never = found.of
    assert rare.used / 4000 == pytest.approx(1 - (1 - 3 / 50) ** 50, abs=0.02)
    assert often.used == 4000
    assert (never.value, never.low, never.used, never.reason) == (None, None, 0, "no positive")
    assert found.mean.used == rare.used, "every mean is over the same classes"
    assert found.mean.value == pytest.approx(((rare.value or 0) + (often.value or 0)) / 2)


def test_a_class_without_a_negative_is_in_no_mean_of_average_precisions() -> None:
    of = clustered(40, 2, classes=2)
    targets = of.targets.copy()
    targets[:, 1] = 1
    found = estimates(predictions(of.scores, targets, patient=of.table["patient"].to_pylist()), "ap", replicates=50)
    assert (found.of[1].value, found.of[1].reason) == (None, "no negative")
    assert found.mean.value == found.of[0].value == summary("multilabel", of.scores, targets)["ap"]


def test_what_cannot_vary_has_a_score_and_no_interval() -> None:
    targets = np.zeros((40, 2))
    targets[:4, 0] = 1  # images of one patient
    targets[::2, 1] = np.nan
    patient = [f"{at // 4:x}" for at in range(40)]
    found = estimates(predictions(np.arange(80.0).reshape(40, 2), targets, patient=patient), "auc", replicates=50)
    one, none = found.of
    assert one.value is not None
    assert (one.low, one.high, one.reason) == (None, None, "positives are of one patient only")
    assert none.reason == "no positive"
    nothing = predictions(np.zeros((4, 1)), np.full((4, 1), np.nan))
    assert estimates(nothing, "auc", replicates=10).of[0].reason == "no known target"
    assert estimates(nothing, "auc", replicates=10).mean.reason == "no class can be scored"
    alone = predictions(np.zeros((4, 1)), np.ones((4, 1)), kind="regression", patient=["a"] * 4)
    assert estimates(alone, "mae", replicates=10).of[0].reason == "known targets are of one patient only"


def _one_patient(*classes: int) -> Predictions:
    """Return predictions of three classes, some of which have positives of one patient alone."""
    random = np.random.default_rng(3)
    targets = (random.random((120, 3)) < 0.4).astype(float)
    for at in classes:
        targets[:, at] = 0
        targets[:2, at] = 1
    patient = [f"{at // 2:x}" for at in range(120)]
    return predictions(targets + random.normal(size=(120, 3)), targets, patient=patient)


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        ((), ""),
        ((1,), "class 1 has none (positives are of one patient only)"),
        ((0, 2), "2 of 3 classes have none, such as class 0 (positives are of one patient only)"),
        ((0, 1, 2), "positives are of one patient only"),
    ],
)
def test_a_mean_over_a_class_without_an_interval_has_none_and_says_whose_is_missing(
    alone: tuple[int, ...], said: str
) -> None:
    of = _one_patient(*alone)
    found = estimates(of, "auc", replicates=200)
    assert [one.low is None for one in found.of] == [at in alone for at in range(3)]
    assert found.mean.value == pytest.approx(np.mean([one.value for one in found.of if one.value is not None]))
    assert (found.mean.low is None, found.mean.high is None, found.mean.reason) == (bool(alone), bool(alone), said)
    brier = estimates(of, "brier", replicates=200)
    assert brier.mean.low is not None, "squared errors need no positives"


def test_a_score_that_the_kind_does_not_have_is_refused() -> None:
    with pytest.raises(ArgumentError, match="a multilabel task has no score mae: choose one of auc, ap"):
        estimates(clustered(4, 1), "mae")


def test_all_labels_right_is_one_number() -> None:
    of = clustered(30, 2, classes=3)
    found = estimates(of, "subset_accuracy", threshold=0.4, replicates=100)
    assert [one.name for one in found.of] == ["all"]
    right = ((of.probabilities >= 0.4) == of.targets).all(axis=1).mean()
    assert found.of[0].value == pytest.approx(right)
    assert dataclasses.replace(found.of[0], name="mean") == found.mean


@pytest.mark.deep
@pytest.mark.parametrize(("patients", "images"), [(80, 6), (200, 3)])
def test_the_interval_of_patients_holds_the_truth_as_often_as_it_says_and_that_of_images_does_not(
    patients: int, images: int
) -> None:
    """The truth: scores of ill and healthy are normal, a deviation of 1 and the shift apart."""
    from scipy.stats import norm

    truth = norm.cdf(1 / np.sqrt(2))
    held = {"patients": 0, "images": 0}
    for seed in range(400):
        of = clustered(patients, images, seed=seed)
        alone = Predictions(of.about, of.table.set_column(1, "patient", [[None] * len(of)]).cast(of.table.schema))
        for name, one in (("patients", of), ("images", alone)):
            found = estimates(one, "auc", replicates=400, seed=seed).mean
            held[name] += (found.low or 1) <= truth <= (found.high or 0)
    assert 0.91 <= held["patients"] / 400 <= 0.98
    assert held["images"] / 400 <= 0.85
