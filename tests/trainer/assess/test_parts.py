"""Folds and shares of patients: nobody is on both sides, every class is in them, and shares are nested."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.assess import parts
from trainer.evaluate.kinds import Floats

PATIENTS, RARE = 200, 12


@pytest.fixture
def hospital() -> tuple[Floats, parts.Rows]:
    """Two labels, one of them rare, of patients with one to five images each; images are in no order."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(PATIENTS), rng.integers(1, 6, PATIENTS))
    rng.shuffle(who)
    ill = np.zeros((PATIENTS, 2))
    ill[:RARE, 0], ill[RARE:90, 1] = 1, 1
    return ill[who], who


@pytest.mark.parametrize("number", [2, 5])
def test_folds_ask_about_each_image_once_and_share_no_patient(hospital: tuple[Floats, parts.Rows], number: int) -> None:
    targets, who = hospital
    dealt = parts.folds(parts.strata("multilabel", targets), who, number, seed=3)
    assert sorted(np.concatenate([test for _, test in dealt]).tolist()) == list(range(len(who)))
    for train, test in dealt:
        assert not set(who[train]) & set(who[test])
        assert len(train) + len(test) == len(who)
        assert targets[test].any(axis=0).all()  # the rare label, too
        assert len(test) == pytest.approx(len(who) / number, rel=0.1)


@pytest.mark.parametrize("sizes", [(1,) * 8, (2, 2, 2, 2), (4, 1, 3), (4, 4)])
def test_folds_are_made_where_every_stratum_is_smaller_than_their_number(sizes: tuple[int, ...]) -> None:
    of = np.repeat(np.arange(len(sizes)), sizes)
    dealt = parts.folds(of, np.arange(len(of)), 5, seed=0)
    assert sorted(np.concatenate([test for _, test in dealt]).tolist()) == list(range(len(of)))
    assert all(len(test) for _, test in dealt)


def test_a_share_has_all_images_of_its_patients_and_their_number(hospital: tuple[Floats, parts.Rows]) -> None:
    targets, who = hospital
    rows = parts.share(parts.strata("multilabel", targets), who, 0.1, seed=1)
    chosen = set(who[rows].tolist())
    assert len(chosen) == 0.1 * PATIENTS
    assert rows.tolist() == [row for row, patient in enumerate(who) if patient in chosen]


@pytest.mark.parametrize("seed", range(5))
def test_small_shares_hold_every_stratum_and_are_part_of_larger_ones(
    hospital: tuple[Floats, parts.Rows], seed: int
) -> None:
    targets, who = hospital
    of = parts.strata("multilabel", targets)
    small, middle, whole = (parts.share(of, who, fraction, seed) for fraction in (0.02, 0.1, 1.0))
    assert set(of[small]) == {0, 1, 2}
    assert set(small) <= set(middle) <= set(whole)
    assert whole.tolist() == list(range(len(who)))
    assert set(of[middle][np.isin(of[middle], [0])])  # the rare one has its share, too


def test_other_seeds_draw_other_patients(hospital: tuple[Floats, parts.Rows]) -> None:
    targets, who = hospital
    of = parts.strata("multilabel", targets)
    assert set(parts.share(of, who, 0.1, 0)) != set(parts.share(of, who, 0.1, 1))


def test_strata_are_the_rarest_class_and_bands_of_numbers() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, np.nan], [np.nan, np.nan]])
    assert parts.strata("multilabel", targets).tolist() == [0, 1, 1, 2, 0, 2]
    ages = np.array([[20.0], [30.0], [40.0], [50.0], [60.0], [np.nan], [70.0], [80.0]])
    assert parts.strata("regression", ages).tolist() == [0, 0, 1, 2, 2, 2, 3, 3]
