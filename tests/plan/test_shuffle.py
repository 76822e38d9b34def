"""The order: a permutation in pieces, mixed over its window from the first sample to the last, the same for ever."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.plan import shuffle
from shardkit.plan.samples import Ints
from shardkit.plan.shuffle import Order, key_of, mix, uniform

seeds = st.integers(0, 2**64 - 1)
sizes = st.lists(st.integers(1, 30), min_size=1, max_size=40)
windows = st.integers(1, 50)
moderate = settings(max_examples=100, deadline=None)


def order_of(sizes: Any, window: int, key: int) -> Order:
    return Order(np.concatenate([[0], np.cumsum(sizes)]), window, key)


def whole(order: Order) -> Ints:
    return np.concatenate([order.piece(i) for i in range(order.pieces)])


def shard_of(order: Order, samples: Ints) -> Ints:
    return np.searchsorted(order.starts, samples, side="right") - 1


# --------------------------------------------------------------------------------------------- the same for ever

# Plans of all times and machines hang on these: a change must come with a new `shardkit.plan.spec.FORMAT`.


def test_hashes_are_these_numbers_with_every_version_of_numpy() -> None:
    assert mix(0, np.arange(3)).tolist() == [0, 10505910081238556157, 8799880462832904794]
    values = np.array([0, 1, 2**40, -1])
    expected = [14006602605153182713, 6425431473351150837, 16421374393864998321, 3703370420611038912]
    assert mix(2**64 - 1, values).tolist() == expected
    assert uniform(7, np.array([5])).tolist() == [0.6540192005732345]


def test_keys_are_these_numbers() -> None:
    assert key_of("shardkit plan", "digest", 0, 1) == 15737838303549426417


def test_a_small_order_is_this_one() -> None:
    assert whole(order_of([3, 1, 4, 2, 5, 2], 2, 42)).tolist() == [
        5,
        6,
        0,
        4,
        1,
        7,
        2,
        3,
        16,
        15,
        13,
        10,
        8,
        14,
        9,
        11,
        12,
    ]


# ----------------------------------------------------------------------------------------------------- randomness


def test_words_of_a_key_are_not_just_joined() -> None:
    assert len({key_of("a", "b"), key_of("ab"), key_of("b", "a"), key_of("a", "b", ""), key_of("a")}) == 5


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_hashes_of_neighbours_look_independent_and_uniform(key: int) -> None:
    drawn = uniform(key, np.arange(20_000))
    assert ((drawn >= 0) & (drawn < 1)).all()
    assert drawn.mean() == pytest.approx(0.5, abs=0.012)
    assert drawn.var() == pytest.approx(1 / 12, abs=0.004)
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.04
    assert abs(np.corrcoef(drawn, uniform(key ^ 1, np.arange(20_000)))[0, 1]) < 0.04


def test_hashes_take_any_integer_type_and_shape() -> None:
    values = np.arange(6).reshape(2, 3)
    for dtype in (np.uint8, np.int32, np.uint64):
        assert (mix(9, values.astype(dtype)) == mix(9, values)).all()


# ---------------------------------------------------------------------------------------------------- permutation


@given(sizes, windows, seeds)
@moderate
def test_pieces_join_to_a_permutation(sizes: Any, window: int, key: int) -> None:
    order = order_of(sizes, window, key)
    assert sorted(whole(order).tolist()) == list(range(sum(sizes)))


@given(sizes, windows, seeds, st.randoms())
@moderate
def test_a_piece_is_the_same_whatever_was_asked_before(
    sizes: Any, window: int, key: int, random: random.Random
) -> None:
    order = order_of(sizes, window, key)
    expected = [order.piece(i).tolist() for i in range(order.pieces)]
    numbers = list(range(order.pieces)) * 2
    random.shuffle(numbers)
    again = order_of(sizes, window, key)
    assert all(again.piece(i).tolist() == expected[i] for i in numbers)


@given(sizes, windows, seeds)
@moderate
def test_a_piece_draws_only_from_the_shards_it_names(sizes: Any, window: int, key: int) -> None:
    order = order_of(sizes, window, key)
    for i in range(order.pieces):
        assert set(shard_of(order, order.piece(i))) <= set(order.near(i).tolist())
        assert len(order.near(i)) <= 3 * order.width


@given(st.integers(1, 9), st.integers(1, 60))
@moderate
def test_no_sample_is_lost_where_rounding_puts_it_on_the_end_of_its_range(window: int, shards: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shuffle, "uniform", lambda key, values: np.full(values.shape, 1 - 2.0**-53))
        order = order_of([2] * shards, window, 0)
        assert sorted(whole(order).tolist()) == list(range(2 * shards))


def test_another_key_gives_another_order() -> None:
    orders = {
        tuple(whole(order_of([20] * 10, 4, key_of("plan", seed, epoch)))) for seed in range(5) for epoch in range(5)
    }
    assert len(orders) == 25


# --------------------------------------------------------------------------------------------------------- mixing


def test_samples_of_a_shard_are_spread_over_about_the_window() -> None:
    shards, size, window = 400, 50, 64
    order = order_of([size] * shards, window, 3)
    places = np.empty(shards * size, np.int64)
    places[whole(order)] = np.arange(shards * size)
    spans = np.ptp(places.reshape(shards, size), axis=1) / size
    assert spans.max() < 1.5 * window + 1
    assert np.median(spans) == pytest.approx(window, rel=0.1)
    assert spans.min() > 0.5 * window


@pytest.mark.parametrize("at", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_neighbours_come_from_half_a_window_of_shards_at_the_ends_and_a_window_between(at: int) -> None:
    shards, size, window = 300, 100, 40
    order = order_of([size] * shards, window, 11)
    samples = whole(order)
    near = samples[int(at * (len(samples) - 400)) :][:400]
    distinct = len(np.unique(shard_of(order, near)))
    if at in (0.0, 1.0):
        assert window / 2 <= distinct <= window
    else:
        assert 0.95 * window <= distinct <= 1.6 * window


def test_a_window_of_all_shards_is_a_perfect_shuffle() -> None:
    order = order_of([10] * 30, 1000, 5)
    assert order.pieces == 1
    shards = shard_of(order, whole(order))
    same = (shards[1:] == shards[:-1]).mean()
    assert same == pytest.approx(9 / 299, abs=0.03)


def test_a_window_of_one_takes_shard_after_shard() -> None:
    order = order_of([5] * 20, 1, 8)
    shards = shard_of(order, whole(order)).reshape(20, 5)
    assert (shards == shards[:, :1]).all()
    assert shards[:, 0].tolist() == order.permutation.tolist()
    assert whole(order).tolist() != sorted(whole(order).tolist())
