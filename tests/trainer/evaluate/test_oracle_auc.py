"""Oracle Collaborative AUC: what is doubtful at each threshold gets its true label."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.evaluate.kinds import Floats
from trainer.evaluate.oracle import Mode, oracle_auc
from trainer.evaluate.scores import auc


def _by_threshold(p: Floats, y: Floats, mode: Mode, amount: float) -> float:
    """The definition, threshold by threshold and sample by sample; p without ties."""
    points = [(1.0, 1.0)]
    for t in np.sort(p):
        distance = np.abs(p - t)
        nearest = np.argsort(distance, kind="stable")[: int(amount * len(p) + 1e-9)]
        corrected = np.isin(np.arange(len(p)), nearest) if mode == "fraction" else distance < amount
        said = np.where(corrected, y == 1, p >= t)
        points.append((said[y == 0].mean(), said[y == 1].mean()))
    points.append((0.0, 0.0))
    return sum((a[0] - b[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(points))


def _samples(seed: int, n: int = 40) -> tuple[Floats, Floats]:
    random = np.random.default_rng(seed)
    y = (random.random(n) < 0.3).astype(float)
    y[:2] = 0, 1
    p = 1 / (1 + np.exp(-random.normal(size=n) - y))
    return p[:, None], y[:, None]


@pytest.mark.parametrize("mode", ["fraction", "threshold"])
def test_it_is_the_definition(mode: Mode) -> None:
    for seed in range(8):
        p, y = _samples(seed)
        for amount in (0.0, 0.05, 0.1, 0.25, 0.3, 0.7, 1.0):
            found = oracle_auc(p, y, mode, amount).values[0]
            assert found == pytest.approx(_by_threshold(p[:, 0], y[:, 0], mode, amount), abs=1e-12)


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from(["fraction", "threshold"]))
def test_from_the_auc_with_nothing_corrected_it_only_rises_to_one(seed: int, digits: int, mode: Mode) -> None:
    p, y = _samples(seed, 25)
    p = np.round(p, digits)  # ties, too
    found = [oracle_auc(p, y, mode, amount).values[0] for amount in (0, 0.04, 0.1, 0.25, 0.5, 0.9, 1.0)]
    assert found[0] == pytest.approx(auc(p, y).values[0], abs=1e-12)
    rises = np.diff(np.array(found, float))
    assert (rises >= -1e-12).all()
    assert oracle_auc(p, y, mode, 1.0 if mode == "fraction" else 1.1).values[0] == pytest.approx(1.0, abs=1e-12)


def test_the_order_of_rows_says_nothing_even_within_ties() -> None:
    p, y = _samples(3, 60)
    p = np.round(p, 1)
    rows = np.random.default_rng(0).permutation(60)
    for amount in (0.05, 0.2, 0.4):
        assert oracle_auc(p, y, "fraction", amount) == oracle_auc(p[rows], y[rows], "fraction", amount)


def test_classes_that_cannot_be_scored_are_none() -> None:
    p, y = _samples(1)
    found = oracle_auc(np.hstack([p, p]), np.hstack([y, np.zeros_like(y)]), "fraction", 0.1)
    assert found.values[1] is None
    assert found.reasons[1] == "no positive"
    assert found.mean == found.values[0]
