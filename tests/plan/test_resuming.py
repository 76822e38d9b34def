"""Marks: a plan that begins in the middle of an epoch gives the steps of one that began at its start."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.loader.world import World, micro_batches
from shardkit.plan import Batching, Binned, EpochPlan, Exact, Fixed, MultiView, Packed, Resized, Samples, View
from shardkit.plan.batchers import Batcher, PackedBatcher
from shardkit.plan.resuming import Mark

BATCHINGS: list[Batching] = [
    Fixed(208, 3, per_step=2),
    Exact(per_step=4, remainder="drop"),
    Exact(per_step=2, remainder="repeat"),
    Binned(batch_size=2, per_step=4, group=2, remainder="repeat"),
    Binned("auto:5", tokens=120, per_step=4, crop=(0.2, 0.9), flip=0.5),
    Resized(32, 3, per_step=2, content=True, crop=(0.2, 0.9), remainder="repeat"),
    Packed(tokens=340, max_images=6, window=8, per_step=2, level=1),
    Packed(tokens=170, max_images=3, window=8, per_step=1, content=True, remainder="drop"),
    MultiView((View(32, n=2, crop=(0.4, 1.0)), View(16, n=3)), 2, per_step=2),
]


def through_json(mark: Mark) -> Mark:
    """What a state's file does to it."""
    return Mark.read(json.loads(json.dumps(mark.plain())))


def gone_on(plan: EpochPlan, step: int, least: int = 0) -> EpochPlan:
    """A fresh plan of the same arguments that a mark of this one is told."""
    again = EpochPlan(plan.samples, plan.seed, plan.epoch, plan.batching, plan.order.window)
    if (mark := plan.mark(step, least)) is not None:
        again.go_on(through_json(mark))
    return again


def assert_goes_on(plan: EpochPlan, print_of: Callable[..., str]) -> None:
    """From every step, on any number of ranks, with the same count of steps and of tokens."""
    prints = [print_of([step]) for step in plan]
    for step in range(len(prints)):
        again = gone_on(plan, step)
        assert [print_of([again[k]]) for k in range(step, len(prints))] == prints[step:]
        assert not again.has(len(prints))
        assert len(again) == len(prints)
    again = gone_on(plan, len(prints) // 2)
    assert [print_of([step]) for step in again] == prints, "from the start as well"
    assert again.account() == plan.account()
    for world in (size for size in (1, 2, 4) if plan.batching.per_step % size == 0):
        for rank in range(world):
            mine = World(rank, world)
            left = [list(micro_batches(of, len(prints) // 2, mine)) for of in (plan, gone_on(plan, len(prints) // 2))]
            places = [[position for position, _ in of] for of in left]
            assert places[0] == places[1]
            assert print_of([[micro for _, micro in left[0]]]) == print_of([[micro for _, micro in left[1]]])


@pytest.mark.parametrize("batching", BATCHINGS, ids=str)
def test_from_any_step_a_marked_plan_is_the_one_planned_from_the_start(
    few_samples: Callable[..., Samples], print_of: Callable[..., str], batching: Batching
) -> None:
    assert_goes_on(EpochPlan(few_samples(5), 7, 1, batching, window=2), print_of)


@pytest.mark.deep
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from(BATCHINGS), st.booleans(), st.data())
@settings(max_examples=150, deadline=None)
def test_so_it_is_for_any_samples_splits_windows_and_weights(
    few_samples: Callable[..., Samples],
    print_of: Callable[..., str],
    seed: int,
    window: int,
    batching: Batching,
    weighted: bool,
    data: st.DataObject,
) -> None:
    samples = few_samples(seed)
    if data.draw(st.booleans()):
        keep = np.random.default_rng(seed).random(len(samples)) < 0.7
        keep[0] = True
        samples = samples.select(keep, "a split")
    if weighted:
        half = int(samples.starts[(len(samples.starts) - 1) // 2])
        samples = replace(samples, members=np.array([0, half, len(samples)]), weights=(0.5, 2.5))
    assert_goes_on(EpochPlan(samples, seed, 2, batching, window), print_of)


def test_of_samples_that_come_several_times_each_time_is_named(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    samples = few_samples(8)
    half = int(samples.starts[len(samples.starts) // 2])
    samples = replace(samples, members=np.array([0, half, len(samples)]), weights=(0.5, 2.5))
    plan = EpochPlan(samples, 3, 0, Binned(batch_size=3, per_step=4, crop=(0.3, 0.9), remainder="repeat"), window=2)
    draws = plan.order.piece(1)
    assert plan._drawn(plan._crops(draws)).tolist() == draws.tolist()
    assert_goes_on(plan, print_of)


@pytest.mark.parametrize("batching", BATCHINGS[4:7], ids=str)
def test_a_marked_plan_plans_one_piece_for_its_first_step(
    few_samples: Callable[..., Samples], batching: Batching, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, batching, window=2)
    middle = len(plan) // 2
    assert plan._piece_of(middle) > 3
    again, planned = gone_on(plan, middle), list[int]()
    piece = again.order.piece

    def counted(_: object, number: int) -> Any:
        planned.append(number)
        return piece(number)

    monkeypatch.setattr(type(again.order), "piece", counted)
    _ = again[middle]
    assert planned == [plan._piece_of(middle)]


def test_a_mark_is_made_where_it_spares_enough(few_samples: Callable[..., Samples]) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, Exact(), window=2)
    last = len(plan) - 1
    assert plan.mark(last) is None, "few samples are planned again at once"
    assert plan.mark(0, 0) is None
    assert plan.mark(last, 0) is not None
    assert plan.mark(last, len(plan.samples)) is None
    fresh = EpochPlan(plan.samples, 0, 0, Exact(), window=2)
    assert fresh.mark(last, 0) is None, "what was not planned is not known"


def test_copies_of_a_plan_know_what_one_of_them_has_planned(few_samples: Callable[..., Samples]) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, Exact(), window=2)
    last = len(plan.copy()) - 1
    assert plan.mark(last, 0) is not None


def test_copies_in_several_threads_plan_the_same(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, Packed(tokens=400, per_step=2), window=1)
    copies = [plan.copy() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda copy: (print_of(copy), len(copy), copy.account()), copies))
    whole = EpochPlan(plan.samples, 0, 0, plan.batching, window=1)
    assert found == [(print_of(whole), len(whole), whole.account())] * 4


def test_a_mark_of_another_seed_or_epoch_or_of_a_later_step_changes_nothing(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    samples, batching = few_samples(6, 40), Packed(tokens=400, per_step=2)
    plan = EpochPlan(samples, 0, 0, batching, window=2)
    mark = plan.mark(len(plan) - 1, 0)
    assert mark is not None
    for seed, epoch, steps in ((1, 0, slice(None)), (0, 1, slice(None)), (0, 0, slice(0, mark.steps))):
        told, other = (EpochPlan(samples, seed, epoch, batching, window=2) for _ in range(2))
        told.go_on(mark)
        whole = list(other)[steps]
        assert print_of([told[k] for k in range(len(whole))]) == print_of(whole)


class Forgetful(PackedBatcher):
    """As a batcher is that somebody wrote before there were marks."""

    kept = Batcher.kept


def test_a_batcher_that_keeps_no_record_has_no_mark(few_samples: Callable[..., Samples]) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, Packed(tokens=400, per_step=2), window=2)
    begun = plan._begun[0]
    plan._begun[0] = replace(begun, batcher=Forgetful(400, 32, 8, 16, 2, "fill"))
    assert plan.mark(len(plan) - 1, 0) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"piece": 10**6}, "no piece"),
        ({"piece": 0}, "no piece"),
        ({"piece": -1}, "numbers"),
        ({"steps": 1.5}, "numbers"),
        ({"waiting": 3}, "waiting is no list"),
        ({"kept": [["a"]]}, "kept holds"),
        ({"kept": [[10**9]]}, "none of"),
        ({"kept": [[1, 1]]}, "twice"),
        ({"more": 1}, "other fields"),
        ({"waiting": [list(range(50))]}, "not of one size class"),
    ],
)
def test_a_damaged_mark_is_refused(few_samples: Callable[..., Samples], change: dict[str, Any], words: str) -> None:
    plan = EpochPlan(few_samples(6, 40), 0, 0, Binned(batch_size=2, per_step=2), window=2)
    mark = plan.mark(len(plan) - 1, 0)
    assert mark is not None
    again = EpochPlan(plan.samples, 0, 0, plan.batching, window=2)
    with pytest.raises(ValueError, match=words):
        again.go_on(Mark.read(mark.plain() | change))
    assert list(again._begun) == [0]
