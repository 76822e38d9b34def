"""DeLong's variances against their formulas by loops, and by patient against Obuchowski's."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tests.trainer.evaluate.samples import clustered
from trainer.evaluate.delong import delong
from trainer.evaluate.intervals import resampled
from trainer.evaluate.kinds import Floats
from trainer.evaluate.scores import auc
from trainer.evaluate.statistics import score_named


def _above(x: float, y: float) -> float:
    return float(x > y) + float(x == y) / 2


def _structural(scores: Floats, y: Floats) -> tuple[dict[int, float], dict[int, float]]:
    """V10 of each positive and V01 of each negative, by looking at all pairs."""
    positives, negatives = np.flatnonzero(y == 1).tolist(), np.flatnonzero(y == 0).tolist()
    v10 = {i: sum(_above(scores[i], scores[j]) for j in negatives) / len(negatives) for i in positives}
    v01 = {j: sum(_above(scores[i], scores[j]) for i in positives) / len(positives) for j in negatives}
    return v10, v01


def _published(scores: list[Floats], y: Floats) -> tuple[Floats, Floats]:
    """AUCs, and S10 / m + S01 / n of DeLong, DeLong and Clarke-Pearson, element by element."""
    parts = [_structural(one, y) for one in scores]
    areas = [sum(v10.values()) / len(v10) for v10, _ in parts]
    covariance = np.zeros((len(scores), len(scores)))
    for r, (v10_r, v01_r) in enumerate(parts):
        for s, (v10_s, v01_s) in enumerate(parts):
            s10 = sum((v10_r[i] - areas[r]) * (v10_s[i] - areas[s]) for i in v10_r) / (len(v10_r) - 1)
            s01 = sum((v01_r[j] - areas[r]) * (v01_s[j] - areas[s]) for j in v01_r) / (len(v01_r) - 1)
            covariance[r, s] = s10 / len(v10_r) + s01 / len(v01_r)
    return np.array(areas), covariance


def _by_cluster(scores: Floats, y: Floats, patients: npt.NDArray[np.int64]) -> float:
    """S10 / M + S01 / N + 2 S11 / (M N) of Obuchowski, patient by patient."""
    v10, v01 = _structural(scores, y)
    area, m_all, n_all = sum(v10.values()) / len(v10), len(v10), len(v01)
    s10 = s01 = s11 = 0.0
    some10, some01, everybody = set(), set(), set(patients.tolist())
    for patient in everybody:
        mine10 = [v10[i] for i in v10 if patients[i] == patient]
        mine01 = [v01[j] for j in v01 if patients[j] == patient]
        of10, of01 = sum(mine10) - len(mine10) * area, sum(mine01) - len(mine01) * area
        s10, s01, s11 = s10 + of10**2, s01 + of01**2, s11 + of10 * of01
        some10 |= {patient} if mine10 else set()
        some01 |= {patient} if mine01 else set()
    s10 *= len(some10) / ((len(some10) - 1) * m_all)
    s01 *= len(some01) / ((len(some01) - 1) * n_all)
    s11 *= len(everybody) / (len(everybody) - 1)
    return s10 / m_all + s01 / n_all + 2 * s11 / (m_all * n_all)


@pytest.mark.parametrize("digits", [0, 1, 6])
def test_variances_are_those_of_the_published_formula_ties_included(digits: int) -> None:
    random = np.random.default_rng(digits)
    y = (random.random(70) < 0.4).astype(float)
    scores = [np.round(random.normal(size=70) + shift * y, digits) for shift in (0.5, 1.0, 0.0)]
    found = delong(scores, y)
    assert found is not None
    areas, covariance = _published(scores, y)
    assert found.values == pytest.approx(areas, abs=1e-14)
    assert found.covariance == pytest.approx(covariance, abs=1e-14)
    assert found.values[0] == pytest.approx(auc(scores[0][:, None], y[:, None]).values[0], abs=1e-14)


def test_by_patient_it_is_obuchowskis_and_with_one_image_each_delongs() -> None:
    random = np.random.default_rng(3)
    patients = random.integers(0, 20, 80)
    shared = random.normal(size=20)[patients]
    y = (random.random(80) < 0.3 + 0.3 * (shared > 0)).astype(float)
    scores = np.round(shared + 0.5 * random.normal(size=80) + y, 1)
    assert any(0 < y[patients == patient].mean() < 1 for patient in range(20)), "patients with both"
    found = delong([scores], y, patients)
    assert found is not None
    assert found.covariance[0, 0] == pytest.approx(_by_cluster(scores, y, patients), rel=1e-12)
    single, plain = delong([scores, -scores], y, random.permutation(80)), delong([scores, -scores], y)
    assert single is not None
    assert plain is not None
    assert single.covariance == pytest.approx(plain.covariance, abs=1e-16)


def test_by_patient_it_agrees_with_resampled_patients_where_images_alone_do_not() -> None:
    of = clustered(150, 5)
    spread = resampled(score_named(of, "auc").make(of, 0.5), of, 2000).std()
    by_patient = delong([of.scores[:, 0]], of.targets[:, 0], of.patients)
    by_image = delong([of.scores[:, 0]], of.targets[:, 0])
    assert by_patient is not None
    assert by_image is not None
    assert np.sqrt(by_patient.covariance[0, 0]) == pytest.approx(spread, rel=0.1)
    assert np.sqrt(by_image.covariance[0, 0]) < 0.65 * spread


def test_an_interval_is_normal_within_0_and_1_and_unknown_targets_are_left_out() -> None:
    random = np.random.default_rng(4)
    y = np.repeat([0.0, 1.0], 30)
    scores = random.normal(size=60) + 2.8 * y
    found = delong([scores], y)
    assert found is not None
    low, high = found.interval()
    assert low == pytest.approx(found.values[0] - 1.959964 * np.sqrt(found.covariance[0, 0]), abs=1e-6)
    assert high == 1
    more = delong([np.append(scores, [9.0, -9.0])], np.append(y, [np.nan, np.nan]))
    assert more is not None
    assert more.interval() == (low, high)


def test_two_runs_differ_by_the_covariance_of_both() -> None:
    random = np.random.default_rng(5)
    y = (random.random(200) < 0.4).astype(float)
    one = random.normal(size=200) + y
    two = one + 0.3 * random.normal(size=200)
    found = delong([one, two], y)
    assert found is not None
    areas, s = _published([one, two], y)
    difference, low, high, p = found.difference()
    error = np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    assert difference == pytest.approx(areas[0] - areas[1])
    assert (high - low) / 2 == pytest.approx(1.959964 * error, rel=1e-6)
    assert error < 0.5 * np.sqrt(s[0, 0] + s[1, 1]), "the runs are much alike"
    assert 0 < p < 1
    same = delong([one, 3 * one + 7], y)
    assert same is not None
    assert same.difference() == (0, 0, 0, 1)


def test_without_both_classes_there_is_none_and_of_one_patient_no_variance() -> None:
    scores = np.arange(6.0)
    assert delong([scores], np.zeros(6)) is None
    assert delong([scores], np.full(6, np.nan)) is None
    found = delong([scores], np.array([0, 0, 0, 0, 1, 1.0]), np.array([0, 1, 2, 3, 4, 4]))
    assert found is not None
    assert found.values[0] == 1
    assert np.isnan(found.covariance).all()
