"""Two runs on the same samples, and several seeds: the same patients are drawn for all of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.samples import clustered, predictions
from trainer.evaluate.comparison import compare
from trainer.evaluate.delong import delong
from trainer.evaluate.intervals import estimates, resampled, with_seeds_drawn
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.seeds import over_seeds
from trainer.evaluate.statistics import score_named


def _other(of: Predictions, noise: float, shift: float = 0.0, seed: int = 1, run: str = "other") -> Predictions:
    """Return another run's predictions of the same samples."""
    random = np.random.default_rng(seed)
    scores = of.scores + noise * random.normal(size=of.scores.shape) + shift * of.targets
    return predictions(scores, of.targets, run=run, seed=seed, patient=of.table["patient"].to_pylist())


def test_a_difference_of_the_same_patients_is_seen_where_two_intervals_overlap() -> None:
    first = clustered(80, 4)
    second = _other(first, 0.05, 0.12)
    found = compare(second, first, "auc", replicates=1000)
    alone = [estimates(of, "auc", replicates=1000).mean for of in (first, second)]
    assert (alone[0].high or 0) > (alone[1].low or 1), "by themselves they say nothing"
    assert (found.differences.mean.low or 0) > 0
    assert found.p_mean is not None
    assert found.p_mean < 0.01
    assert found.differences.mean.value == pytest.approx((alone[1].value or 0) - (alone[0].value or 0))
    drawn = [resampled(score_named(of, "auc").make(of, 0.5), of, 1000) for of in (second, first)]
    assert found.differences.mean.low == np.quantile(drawn[0] - drawn[1], 0.025)
    back = compare(first, second, "auc", replicates=1000)
    assert back.differences.mean.high == pytest.approx(-(found.differences.mean.low or 0))
    assert back.p_mean == found.p_mean


def test_a_run_does_not_differ_from_itself_and_p_is_never_0() -> None:
    of = clustered(40, 3, classes=2)
    found = compare(of, of, "auc", replicates=200)
    assert (found.differences.mean.value, found.differences.mean.low, found.differences.mean.high) == (0, 0, 0)
    assert found.p_mean == 1
    assert found.delong == found.delong_patients == (1, 1)
    best = predictions(of.targets - 0.5, of.targets, patient=of.table["patient"].to_pylist())
    assert compare(best, of, "accuracy", replicates=200).p_mean == pytest.approx(2 / 201)
    assert compare(best, of, "accuracy", replicates=200).delong == ()


def test_delongs_tests_are_of_images_and_of_patients() -> None:
    first = clustered(80, 6, classes=2)
    second = _other(first, 0.6)
    found = compare(first, second, "auc", replicates=50)
    for k in range(2):
        scores = [first.scores[:, k], second.scores[:, k]]
        for ps, patients in ((found.delong, None), (found.delong_patients, first.patients)):
            areas = delong(scores, first.targets[:, k], patients)
            assert areas is not None
            assert ps[k] == areas.difference()[3]


def test_what_is_not_of_the_same_samples_is_refused() -> None:
    of = clustered(10, 3)
    with pytest.raises(ArgumentError, match="run and other differ in 5 samples"):
        compare(of, _other(of, 1).take(np.arange(25)), "auc")
    changed = of.targets.copy()
    changed[:4] = 1 - changed[:4]
    patient = of.table["patient"].to_pylist()
    with pytest.raises(ArgumentError, match="run and new have other targets for 4 samples"):
        compare(of, predictions(of.scores, changed, run="new", patient=patient), "auc")
    with pytest.raises(ArgumentError, match="other patients"):
        compare(of, predictions(of.scores, of.targets, patient=["a"] * 30), "auc")
    with pytest.raises(ArgumentError, match="other classes"):
        compare(of, Predictions(dataclasses.replace(of.about, kind="regression"), of.table), "auc")


def test_seeds_are_a_mean_and_a_deviation_and_that_of_the_class_mean_is_its_own() -> None:
    first = clustered(60, 3, classes=3)
    runs = [_other(first, 0.8, seed=seed) for seed in range(5)]
    found = over_seeds(runs, "auc", replicates=400)
    each = np.array([[one.value for one in estimates(of, "auc", replicates=2).of] for of in runs], float)
    assert found.seeds == (0, 1, 2, 3, 4)
    assert np.array(found.values, float) == pytest.approx(each)
    assert found.means == pytest.approx(tuple(each.mean(axis=1)))
    assert found.deviations == pytest.approx(tuple(each.std(axis=0, ddof=1)))
    assert found.deviation == pytest.approx(each.mean(axis=1).std(ddof=1))
    assert found.deviation != pytest.approx(each.std(axis=0, ddof=1).mean(), rel=0.1)
    assert found.patients.mean.value == pytest.approx(each.mean())
    drawn = np.mean([resampled(score_named(of, "auc").make(of, 0.5), of, 400) for of in runs], axis=0)
    assert found.patients.mean.low == pytest.approx(np.quantile(drawn.mean(axis=1), 0.025))


def test_over_patients_and_seeds_both_variances_count() -> None:
    first = clustered(150, 2)
    runs = [_other(first, noise, seed=seed) for seed, noise in enumerate((0.0, 0.7, 1.6, 2.8, 5.0))]
    found = over_seeds(runs, "auc", replicates=4000)
    assert found.both is not None
    width = [(one.high or 0) - (one.low or 0) for one in (found.patients.mean, found.both.mean)]
    spread = np.std([row[0] or 0 for row in found.values], ddof=1) / np.sqrt(5)
    expected = np.hypot(width[0], 2 * 1.96 * spread)
    assert width[1] == pytest.approx(expected, rel=0.1)
    assert found.both.mean.value == found.patients.mean.value


def test_an_interval_over_seeds_ends_where_the_score_does_and_that_of_a_difference_may_be_below_0() -> None:
    first = clustered(100, 3, shift=12.0)
    runs = [first, _other(first, 8.0, seed=1)]
    for score in ("auc", "accuracy", "brier"):
        found = over_seeds(runs, score, replicates=200)
        assert found.both is not None
        for one in (*found.both.of, found.both.mean):
            assert one.low is not None
            assert one.high is not None
            assert 0 <= one.low < (one.value or 0) < one.high <= 1
    assert (compare(runs[1], first, "auc", replicates=200).differences.mean.high or 0) < 0


def test_drawn_seeds_vary_as_a_mean_of_so_many_does() -> None:
    """Drawn with replacement alone, the mean of five is a tenth too narrow."""
    values = np.array([0.70, 0.72, 0.75, 0.78, 0.71])
    drawn = with_seeds_drawn(np.broadcast_to(values[:, None, None], (5, 20_000, 1)), 0)
    assert drawn.std() == pytest.approx(values.std(ddof=1) / np.sqrt(5), rel=0.02)
    assert drawn.mean() == pytest.approx(values.mean(), abs=0.001)


def test_runs_of_several_seeds_are_compared_by_their_means_and_differ_no_more_than_other_trainings_would() -> None:
    base = clustered(100, 3)
    lucky, plain = (0.2, 0.9, 1.4, 1.8, 2.2), (1.0, 1.2, 1.6, 1.9, 2.0)
    first, second = ([_other(base, noise, seed=s) for s, noise in enumerate(of)] for of in (lucky, plain))
    found = compare(first, second, "auc", replicates=1000)
    means = [np.mean([estimates(of, "auc", replicates=2).mean.value or 0 for of in runs]) for runs in (first, second)]
    assert found.differences.mean.value == pytest.approx(means[0] - means[1])
    assert found.delong == found.delong_patients == ()
    assert (compare(first[0], second[0], "auc", replicates=1000).differences.mean.low or 0) > 0, "one seed looks better"
    assert (found.differences.mean.low or 0) < 0 < (found.differences.mean.high or 0)
    one = compare([first[0]], [second[0]], "auc", replicates=50)
    assert one == compare(first[0], second[0], "auc", replicates=50)
    with pytest.raises(ArgumentError, match="seeds 0 and 4 of other differ in 10 samples"):
        compare(first, [*second[:4], second[4].take(np.arange(290))], "auc", replicates=50)


def test_one_seed_has_no_deviation() -> None:
    found = over_seeds([clustered(20, 2)], "auc", replicates=50)
    assert (found.deviation, found.both, found.deviations) == (None, None, (None,))
    with pytest.raises(ArgumentError, match="no seeds"):
        over_seeds([], "auc")
