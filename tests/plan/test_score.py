"""The shuffle score: exact by hand, 1 for a perfect shuffle, large where like samples lie together."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.errors import ArgumentError
from shardkit.plan import EpochPlan, Packed, Resized, Samples
from shardkit.plan.score import Score, neighbour_share, score


def share(pairs: Iterable[tuple[Any, Any]]) -> float:
    """Of pairs of labels, the share of equal ones."""
    pairs = list(pairs)
    return sum(a == b for a, b in pairs) / len(pairs) if pairs else 0.0


# ------------------------------------------------------------------------------------------------------- an order


def test_a_small_order_by_hand() -> None:
    # Stretches of three, (0 0 1), (1 1 0) and (0): of six pairs within them, two are alike.
    found = neighbour_share(np.array([0, 0, 1, 1, 1, 0, 0]), reach=3)
    assert found.shared == pytest.approx(2 / 6)
    assert found.expected == pytest.approx((4 * 3 + 3 * 2) / (7 * 6))
    assert found.ratio == pytest.approx((2 / 6) / (18 / 42))


@given(st.lists(st.integers(-1, 3), max_size=40), st.integers(2, 12))
@settings(max_examples=200, deadline=None)
def test_it_is_the_share_of_pairs_alike_within_stretches_against_all_pairs(labels: Any, reach: int) -> None:
    found = neighbour_share(np.array(labels, np.int64), reach)
    stretches = [[c for c in labels[i : i + reach] if c != -1] for i in range(0, len(labels), reach)]
    assert found.shared == pytest.approx(share(p for s in stretches for p in itertools.combinations(s, 2)))
    assert found.expected == pytest.approx(share(itertools.combinations([c for c in labels if c != -1], 2)))


def test_a_perfect_shuffle_scores_one_and_a_sorted_order_much_more() -> None:
    labels = np.repeat(np.arange(500), 40)
    shuffled = np.random.default_rng(0).permutation(labels)
    assert neighbour_share(shuffled, 100).ratio == pytest.approx(1, abs=0.03)
    assert neighbour_share(labels, 100).ratio > 150
    assert neighbour_share(np.tile(np.arange(500), 40), 100).ratio == 0


def test_where_no_two_are_alike_any_order_is_as_good_as_a_perfect_shuffle() -> None:
    for labels in (np.arange(10), np.full(10, -1), np.zeros(0, np.int64), np.zeros(1, np.int64)):
        assert neighbour_share(labels, 4) == Score(0.0, 0.0)
        assert neighbour_share(labels, 4).ratio == 1.0


def test_codes_may_be_large_and_of_any_integer_type() -> None:
    codes = np.array([5, 5, 9, 5], np.uint8)
    for labels in (codes, codes.astype(np.int64) * 2**40, codes.astype(np.int16)):
        assert neighbour_share(labels, 2) == Score(1 / 2, 1 / 2)


def test_a_stretch_of_one_sample_is_refused() -> None:
    with pytest.raises(ArgumentError, match="reach=1 must be at least 2 samples"):
        neighbour_share(np.arange(5), 1)


# -------------------------------------------------------------------------------------------------------- a plan


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 1, 3, 1000]))
@settings(max_examples=40, deadline=None)
def test_a_plans_score_is_the_share_of_pairs_alike_within_steps(
    few_samples: Callable[..., Samples], seed: int, steps: Any
) -> None:
    samples = few_samples(seed)
    labels = np.random.default_rng(seed).integers(-1, 4, len(samples))
    plan = EpochPlan(samples, seed, 0, Resized(32, 3, per_step=2, remainder="repeat"), window=3)
    found = score(plan, labels, steps)
    shown = [
        [c for micro in step for c in labels[micro.crops.index[~micro.repeated]].tolist() if c != -1]
        for step in list(plan)[:steps]
    ]
    assert found.shared == pytest.approx(share(p for step in shown for p in itertools.combinations(step, 2)))
    assert found.expected == neighbour_share(labels, 2).expected


def test_a_wide_window_scores_as_a_perfect_shuffle_and_a_narrow_one_tells(radiographs: Callable[..., Samples]) -> None:
    samples = radiographs(30_000, 100)
    batching = Packed(tokens=24576, patch=48)
    in_one_shard = np.arange(30_000) // 20  # as a patient's images that were written one after the other
    anywhere = np.random.default_rng(0).integers(0, 50, 30_000)
    ratios = {w: score(EpochPlan(samples, 0, 0, batching, w), in_one_shard, None).ratio for w in (10, 60, 300)}
    assert ratios[300] == pytest.approx(1, abs=0.1)
    assert ratios[60] == pytest.approx(300 / 60, rel=0.35)
    assert ratios[10] == pytest.approx(300 / 10, rel=0.35)
    assert score(EpochPlan(samples, 0, 0, batching, 10), anywhere, None).ratio == pytest.approx(1, abs=0.05)


def test_the_first_steps_are_no_better_than_the_rest(radiographs: Callable[..., Samples]) -> None:
    samples = radiographs(30_000, 100)
    plan = EpochPlan(samples, 0, 0, Packed(tokens=24576, patch=48), window=40)
    in_one_shard = np.arange(30_000) // 20
    assert score(plan, in_one_shard, 10).ratio > score(plan, in_one_shard, None).ratio > 1


def test_labels_that_are_not_one_a_sample_are_refused(few_samples: Callable[..., Samples]) -> None:
    plan = EpochPlan(few_samples(0), 0, 0, Resized(32))
    for labels in (np.zeros(len(plan.samples) + 1, np.int64), np.zeros((len(plan.samples), 2), np.int64)):
        with pytest.raises(ArgumentError, match="give one for each of"):
            score(plan, labels)
