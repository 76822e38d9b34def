"""Calibration: against loops over bins, and a temperature that is the likelihood's best and keeps the order."""

from __future__ import annotations

import numpy as np
import pytest

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.samples import predictions
from trainer.evaluate.calibration import ece, fit_temperature, nll, reliability, top_label
from trainer.evaluate.kinds import Floats, Kind, probabilities
from trainer.evaluate.page.decisions import calibration
from trainer.evaluate.results import Entry, Evaluation, Settings
from trainer.evaluate.scores import auc, summary
from trainer.evaluate.statistics import at_once, score_named


@pytest.fixture
def samples() -> tuple[Floats, Floats]:
    random = np.random.default_rng(0)
    p = random.beta(0.5, 2, (500, 2))
    p[:3] = np.array([[0, 1], [1, 0], [0.2, 0.6]])  # ends of bins
    y = (random.random((500, 2)) < p**1.5).astype(float)
    y[random.random((500, 2)) < 0.1] = np.nan
    y[:3] = np.array([[0, 0], [1, 1], [0, 1]])
    return p, y


def test_ece_of_equal_width_is_the_mean_gap_of_bins(samples: tuple[Floats, Floats]) -> None:
    p, y = samples
    for bins in (5, 10, 15):
        for k in range(2):
            gap, count = 0.0, 0
            for b in range(bins):
                rows = [
                    i
                    for i in range(500)
                    if y[i, k] in (0, 1) and (b / bins <= p[i, k] < (b + 1) / bins or (b == bins - 1 and p[i, k] == 1))
                ]
                if rows:
                    gap += len(rows) * abs(p[rows, k].mean() - y[rows, k].mean())
                    count += len(rows)
            assert ece(p, y, bins).values[k] == pytest.approx(gap / count)


def test_a_bin_holds_its_lower_end_and_the_last_one_both() -> None:
    found = reliability(np.array([0.0, 0.2, 0.6, 0.79, 0.8, 1.0]), np.zeros(6), 5)
    assert found is not None
    assert found.counts.tolist() == [1, 1, 2, 2]
    assert found.predicted == pytest.approx([0, 0.2, 0.695, 0.9])


def test_bins_of_equal_mass_hold_as_many_samples_and_part_no_ties(samples: tuple[Floats, Floats]) -> None:
    p, y = samples[0][:, 0], np.nan_to_num(samples[1][:, 0])
    found = reliability(p, y, 10, "mass")
    assert found is not None
    assert found.counts.tolist() == pytest.approx([50] * 10, abs=1)
    order = np.argsort(p)
    at = np.cumsum(found.counts)[:-1]
    assert found.predicted == pytest.approx([part.mean() for part in np.split(p[order], at)])
    assert found.observed == pytest.approx([part.mean() for part in np.split(y[order], at)])
    assert found.ece == pytest.approx(np.sum(found.counts * np.abs(found.predicted - found.observed)) / 500)
    tied = reliability(np.repeat([0.1, 0.4], 50), np.tile([0.0, 1.0], 50), 10, "mass")
    assert tied is not None
    assert tied.counts.tolist() == [50, 50]
    assert tied.observed - tied.predicted == pytest.approx([0.4, 0.1])
    assert reliability(p, np.full(500, np.nan)) is None


def test_probabilities_that_come_true_have_no_error_and_the_wrong_ones_their_gap() -> None:
    p = np.repeat([0.25, 0.75], 400)[:, None]
    y = np.concatenate([np.arange(400) % 4 == 0, np.arange(400) % 4 != 0]).astype(float)[:, None]
    assert ece(p, y).values[0] == pytest.approx(0)
    assert ece(1 - p, y).values[0] == pytest.approx(0.5)


def test_brier_is_the_mean_squared_error_of_known_targets(samples: tuple[Floats, Floats]) -> None:
    p, y = samples
    of = predictions(np.log(np.clip(p, 1e-15, 1 - 1e-15) / np.clip(1 - p, 1e-15, 1)), y)
    found = at_once(score_named(of, "brier").make(of, 0.5), of)
    for k in range(2):
        wanted = [(p[i, k] - y[i, k]) ** 2 for i in range(500) if y[i, k] in (0, 1)]
        assert found[k] == pytest.approx(sum(wanted) / len(wanted))


def test_the_top_label_is_the_predicted_one_and_whether_it_is_right() -> None:
    p = np.array([[0.7, 0.3], [0.4, 0.6], [0.1, 0.9]])
    y = np.array([[1, 0], [1, 0], [np.nan, np.nan]])
    said, right = top_label(p, y)
    assert said.tolist() == [0.7, 0.6, 0.9]
    assert right[:2].tolist() == [1, 0]
    assert np.isnan(right[2])


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_temperature_undoes_too_sure_scores_of_validation_for_another_table(kind: Kind) -> None:
    random = np.random.default_rng(1)

    def draw(n: int) -> tuple[Floats, Floats]:
        z = random.normal(size=(n, 4))
        p = probabilities(kind, z)
        if kind == "multilabel":
            return 3 * z, (random.random((n, 4)) < p).astype(float)
        return 3 * z, np.eye(4)[[random.choice(4, p=row) for row in p]]

    scores, targets = draw(6000)
    targets[:100] = np.nan
    found = fit_temperature(kind, scores, targets)
    assert found.value == pytest.approx(3, rel=0.1)
    assert found.after < found.before == nll(kind, scores, targets)
    assert found.after == pytest.approx(nll(kind, found.apply(scores), targets), abs=1e-12)
    assert not found.at_limit
    assert found.targets == 5900 * (4 if kind == "multilabel" else 1)
    for other in (0.98, 1.02):
        assert nll(kind, scores / (found.value * other), targets) > found.after
    new, actual = draw(2000)
    better = ece(probabilities(kind, found.apply(new)), actual).mean
    worse = ece(probabilities(kind, new), actual).mean
    assert better is not None
    assert worse is not None
    assert better < worse / 3
    if kind == "multilabel":
        assert auc(found.apply(new), actual) == auc(new, actual)
    else:
        before, after = summary(kind, new, actual), summary(kind, found.apply(new), actual)
        assert after["accuracy"] == before["accuracy"]


def test_likelihood_is_that_of_each_target() -> None:
    z, y = np.array([[2.0, -1.0], [0.5, 3.0]]), np.array([[1.0, 0.0], [np.nan, 1.0]])
    p = 1 / (1 + np.exp(-z))
    assert nll("multilabel", z, y) == pytest.approx(-np.log([p[0, 0], 1 - p[0, 1], p[1, 1]]).mean())
    one = np.array([[1.0, 0.0], [np.nan, np.nan]])
    assert nll("multiclass", z, one) == pytest.approx(-np.log(np.exp(2) / (np.exp(2) + np.exp(-1))))
    assert np.isfinite(nll("multilabel", np.array([[900.0]]), np.array([[0.0]])))


def test_where_no_temperature_is_best_it_says_so() -> None:
    scores, targets = np.array([[3.0], [-3.0]]), np.array([[1.0], [0.0]])
    for actual in (targets, 1 - targets):
        found = fit_temperature("multilabel", scores, actual)
        assert found.at_limit
        assert found.value == 1, "scores stay as they are"
        assert found.before == found.after
    with pytest.raises(ArgumentError, match="regression"):
        fit_temperature("regression", scores, targets)
    with pytest.raises(ArgumentError, match="no target is known"):
        fit_temperature("multilabel", scores, np.full((2, 1), np.nan))


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_a_run_of_several_seeds_has_the_mean_of_their_errors(samples: tuple[Floats, Floats], kind: Kind) -> None:
    p, y = samples
    if kind == "multiclass":
        y = np.eye(2)[(y[:, 0] == 1).astype(int)]
    settings = Settings(replicates=20)
    seeds = [predictions(p**power, y, kind, seed=seed) for seed, power in enumerate((1.0, 3.0))]
    alone = [_row(Entry((of,), (), settings)) for of in seeds]
    both = _row(Entry(tuple(seeds), (), settings))
    for name in both:
        if name not in ("Run and site", "Temperature"):
            assert abs(float(alone[0][name]) - float(alone[1][name])) > 0.003
            mean = (float(alone[0][name]) + float(alone[1][name])) / 2
            assert float(both[name]) == pytest.approx(mean, abs=1.1e-3), "rounded to three digits"


def _row(entry: Entry) -> dict[str, str]:
    part = calibration(Evaluation((entry,), entry.settings))
    assert part is not None
    return dict(zip(part.head, part.rows[0], strict=True))
