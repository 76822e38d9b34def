"""Weights: how often an epoch shows each sample, which ones, and that plans, steps and ranks hold for them as ever."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import ceil, floor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.errors import ArgumentError
from shardkit.loader.world import World, micro_batches
from shardkit.plan import Batching, Binned, EpochPlan, Exact, Packed, Resized, Samples
from shardkit.plan.draws import Draws

WEIGHTS = (0.25, 1, 2.5, 1e-3, 3, 0.999, 1.0000001)
BATCHINGS: list[Batching] = [
    Resized(32, 3, crop=(0.2, 0.9), flip=0.5, per_step=4),
    Packed(tokens=400, per_step=4),
    Binned(tokens=120, per_step=4, remainder="repeat"),
    Exact(per_step=4, remainder="drop"),
]


@st.composite
def mixtures(draw: st.DrawFn, few: Callable[..., Samples]) -> Samples:
    """One to four members of whole shards, the last of weight 1 or more, so that no epoch is empty."""
    samples = few(draw(st.integers(0, 2**32 - 1)))
    shards = draw(st.lists(st.integers(0, len(samples.starts) - 1), max_size=3).map(sorted))
    members = np.array([0, *samples.starts[shards], len(samples)])
    weights = [float(draw(st.sampled_from(WEIGHTS))) for _ in members[1:]]
    weights[int(np.argmax(np.diff(members)))] += 1
    return replace(samples, members=members, weights=tuple(weights))


def weight_of(samples: Samples) -> np.ndarray[Any, Any]:
    return np.concatenate([np.full(m.end - m.start, m.weight) for m in samples.of_members()])


def shown(plan: EpochPlan) -> Counter[int]:
    """How often each sample comes, without what a remainder rule repeats."""
    return Counter(index for step in plan for micro in step for index in micro.crops.index[~micro.repeated].tolist())


# ------------------------------------------------------------------------------------------------------- how often


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32), epoch=st.integers(0, 9), window=st.integers(1, 14))
def test_an_epoch_shows_each_sample_floor_or_ceil_of_its_weight_times(
    few_samples: Callable[..., Samples], data: st.DataObject, seed: int, epoch: int, window: int
) -> None:
    samples = data.draw(mixtures(few_samples))
    batching = data.draw(st.sampled_from(BATCHINGS[:3]))
    times, weights = shown(EpochPlan(samples, seed, epoch, batching, window)), weight_of(samples)
    for index, weight in enumerate(weights.tolist()):
        assert floor(weight) <= times[index] <= ceil(weight)
    for member in samples.of_members():
        total = sum(times[index] for index in range(member.start, member.end))
        expected = (member.end - member.start) * member.weight
        assert floor(expected + 1e-6) <= total <= ceil(expected), "a member's share hardly varies"


@pytest.mark.parametrize("weight", [0.25, 1e-3, 0.9, 2.5, 3.0])
def test_over_many_epochs_each_sample_comes_as_often_as_its_weight_says(
    radiographs: Callable[..., Samples], weight: float
) -> None:
    samples, epochs = replace(radiographs(500, 20), weights=(weight,)), 1000
    total = np.zeros(500)
    for epoch in range(epochs):
        draws = Draws.of(samples, epoch)
        if len(draws):
            total += np.bincount(draws.sample(np.arange(len(draws))), minlength=500)
    share = weight - floor(weight)
    assert total.sum() / epochs / 500 == pytest.approx(weight, abs=4e-4)
    spread = np.sqrt(epochs * share * (1 - share))
    assert np.abs(total - epochs * weight).max() <= 5 * spread + 1e-9


def test_a_fraction_shows_other_samples_each_epoch_and_with_each_seed(radiographs: Callable[..., Samples]) -> None:
    samples = replace(radiographs(2000), weights=(0.25,))
    chosen = [set(shown(EpochPlan(samples, seed, epoch, Exact()))) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert [len(one) for one in chosen] == [500, 500, 500]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert 80 < len(chosen[a] & chosen[b]) < 170, "as many as chance has in common, 125"
    assert chosen[0] == set(shown(EpochPlan(samples, 0, 0, Binned(batch_size=3)))), "whatever the batching"


def test_a_sample_that_comes_again_has_another_crop_and_comes_at_another_time(
    radiographs: Callable[..., Samples],
) -> None:
    samples = replace(radiographs(300, 10), weights=(3.5,))
    plan = EpochPlan(samples, 0, 0, Resized(96, 1, crop=(0.3, 0.9), per_step=1), window=4)
    crops = [micro.crops for step in plan for micro in step]
    assert len({int(c.seed[0]) for c in crops}) == len(crops) == 1050
    places: dict[int, list[int]] = {}
    regions: dict[int, set[tuple[int, ...]]] = {}
    for at, c in enumerate(crops):
        places.setdefault(int(c.index[0]), []).append(at)
        regions.setdefault(int(c.index[0]), set()).add(tuple(c.region[0].tolist()))
    assert sum(map(len, regions.values())) > 1000, "but for those that no random crop was found for"
    apart = np.concatenate([np.diff(sorted(at)) for at in places.values()])
    assert np.median(apart) > 100, "its passes lie all over the epoch, not side by side"


def test_the_first_time_a_sample_has_the_crop_that_it_has_without_weights(radiographs: Callable[..., Samples]) -> None:
    plain, weighted = radiographs(200, 10), replace(radiographs(200, 10), weights=(2.0,))
    batching = Resized(96, 1, crop=(0.3, 0.9), per_step=1)
    once, twice = EpochPlan(plain, 0, 0, batching), EpochPlan(weighted, 0, 0, batching)
    seeds = {int(micro.crops.index[0]): int(micro.crops.seed[0]) for step in once for micro in step}
    again: dict[int, set[int]] = {}
    for micro in (micro for step in twice for micro in step):
        again.setdefault(int(micro.crops.index[0]), set()).add(int(micro.crops.seed[0]))
    assert all(seeds[index] in again[index] and len(again[index]) == 2 for index in seeds)


# ------------------------------------------------------------------------------------- what holds for plans, as ever


@settings(max_examples=30)
@given(data=st.data(), seed=st.integers(0, 2**32), batching=st.sampled_from(BATCHINGS))
def test_any_step_is_the_same_planned_alone_after_others_and_on_any_ranks(
    few_samples: Callable[..., Samples],
    print_of: Callable[..., str],
    data: st.DataObject,
    seed: int,
    batching: Batching,
) -> None:
    samples = data.draw(mixtures(few_samples))
    plan = EpochPlan(samples, seed, 2, batching, 3)
    steps = list(plan)
    for step in data.draw(st.sets(st.sampled_from(range(len(steps))), max_size=5)) if steps else ():
        assert print_of([EpochPlan(samples, seed, 2, batching, 3)[step]]) == print_of([steps[step]])
    first = data.draw(st.integers(0, len(steps)))
    for world in (1, 2, 4):
        found = {}
        for rank in range(world):
            for position, micro in micro_batches(plan.copy(), first, World(rank, world)):
                found[position.step, position.micro] = micro
        together = [[found[step, at] for at in range(4)] for step in range(first, len(steps))]
        assert len(found) == 4 * (len(steps) - first)
        assert print_of(together) == print_of(steps[first:])


@settings(max_examples=20)
@given(data=st.data(), batching=st.sampled_from(BATCHINGS))
def test_the_account_of_a_mixture_adds_up(
    few_samples: Callable[..., Samples], data: st.DataObject, batching: Batching
) -> None:
    samples = data.draw(mixtures(few_samples))
    plan = EpochPlan(samples, 0, 0, batching)
    account, times = plan.account(), shown(plan)
    assert account.samples == len(plan.draws) == times.total() + account.samples_dropped


def test_a_mixture_of_weights_1_is_planned_as_one_dataset(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    samples = few_samples(4)
    parted = replace(samples, weights=(1.0, 1.0), members=np.array([0, samples.starts[1], len(samples)]))
    for batching in BATCHINGS:
        assert print_of(EpochPlan(parted, 0, 0, batching)) == print_of(EpochPlan(samples, 0, 0, batching))


def test_a_weighted_plan_is_the_same_for_ever(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    samples = few_samples(2)
    bounds = np.array([0, *samples.starts[[3, 6]], len(samples)])
    samples = replace(samples, weights=(0.25, 1.0, 2.5), members=bounds)
    found = print_of(EpochPlan(samples, 7, 3, BATCHINGS[0], 4))
    assert found == "8549d80143181e8325d23cff9bc72a7d44344a77e818b55f63d00f7a168cfbea"


def test_a_selection_keeps_the_members_with_their_weights(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(2)
    bounds = np.array([0, *samples.starts[[3, 6]], len(samples)])
    samples = replace(samples, weights=(0.25, 1.0, 2.0), members=bounds)
    keep = np.zeros(len(samples), np.bool_)
    keep[[1, *range(bounds[2], bounds[2] + 5)]] = True
    chosen = samples.select(keep, "some")
    assert [(m.start, m.end, m.weight) for m in chosen.of_members()] == [(0, 1, 0.25), (1, 1, 1.0), (1, 6, 2.0)]
    assert shown(EpochPlan(chosen, 0, 0, Exact())) in (
        Counter(dict.fromkeys(range(1, 6), 2)),
        Counter({0: 1} | dict.fromkeys(range(1, 6), 2)),
    )


def test_weights_that_leave_an_epoch_empty_are_refused(few_samples: Callable[..., Samples]) -> None:
    samples = replace(few_samples(1), weights=(1e-9,))
    with pytest.raises(ArgumentError, match=r"epoch 0 shows no sample: the weights of the mixture are too small"):
        EpochPlan(samples, 0, 0, Exact())
