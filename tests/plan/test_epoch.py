"""Whole epochs: every sample once, accounts that add up, any world size and step at random, small at any scale."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.errors import ArgumentError
from shardkit.plan import Batching, Binned, EpochPlan, EpochStats, Exact, Fixed, Packed, Resized, Samples
from shardkit.plan.batchers import Remainder
from shardkit.plan.crops import crops
from shardkit.plan.spec import FORMAT

seeds = st.integers(0, 2**32 - 1)
windows = st.integers(1, 14)
moderate = settings(max_examples=80, deadline=None)
views_of = {
    "content": st.booleans(),
    "level": st.integers(0, 2),
    "crop": st.sampled_from([None, (0.2, 0.9)]),
    "flip": st.sampled_from([0.0, 0.5]),
}
any_remainder: st.SearchStrategy[Remainder] = st.sampled_from(["fill", "repeat", "drop"])


@st.composite
def batchings(draw: st.DrawFn) -> Batching:
    """Any batching of samples of up to 200 x 200 pixels."""
    per_step = draw(st.sampled_from([1, 2, 4, 8, 6]))
    common: dict[str, Any] = {"per_step": per_step, **{name: draw(values) for name, values in views_of.items()}}
    size, remainder = draw(st.integers(1, 5)), draw(any_remainder)
    group = draw(st.sampled_from([g for g in range(1, per_step + 1) if per_step % g == 0]))
    return draw(
        st.sampled_from(
            [
                Fixed(208, size, remainder=remainder, **common),
                Exact(remainder=remainder, **common),
                Binned("dataset", batch_size=size, group=group, remainder=remainder, **common),
                Binned("auto:5", tokens=60 * size, group=group, remainder=remainder, **common),
                Resized(32, size, remainder=remainder, **common),
                Resized(32, size, fit="pad", remainder=remainder, **{**common, "level": "auto"}),
                Packed(tokens=170 * size, max_images=3 * size, window=8, remainder="fill", **common),
                Packed(tokens=170 * size, max_images=3 * size, window=8, remainder="drop", **common),
            ]
        )
    )


def worlds_of(batching: Batching) -> list[int]:
    return [world for world in range(1, batching.per_step + 1) if batching.per_step % world == 0]


# ------------------------------------------------------------------------------------------------ the same for ever


@pytest.fixture(scope="module")
def fixed_samples() -> Samples:
    """1,000 samples in 32 shards, from formulas alone."""
    i = np.arange(1000)
    height, width = 40 + i * 7919 % 911, 40 + i * 104729 % 853
    box = np.stack([i % 7, i % 11, height - i % 13 - 7, width - i % 17 - 11], 1)
    shards = np.array([0, *np.cumsum(10 + np.arange(31) * 37 % 43), 1000])
    bins = Bins((Bin(480, 960), Bin(960, 480), Bin(960, 960)), 16)
    return Samples("golden", shards, height.astype(np.uint16), width.astype(np.uint16), bins, box=box, rows=2 * i + 1)


@pytest.mark.parametrize(
    ("batching", "expected"),
    [
        (Fixed(960, 3, flip=0.5), "8ec51264e8fd81b7161ae33a0611659177cf51c5dda0c2989854be943eee976a"),
        (Exact(content=True), "d721b5cc7e1b0ed49583cb439428e473840d3efc7a25b11edee6b5456b0b2815"),
        (Binned(tokens=8000, remainder="repeat"), "e301f5b478805d9b0bdee18c3aa2f098e76840780bf3742ab34e038c0d912b88"),
        (
            Binned("auto:6", batch_size=5, group=2, remainder="drop", content=True, level=1),
            "3ab05df47eb193c7c1eac851fb22bb2bfacbf4806bda5a465fc8a085193aad8b",
        ),
        (
            Packed(tokens=4096, crop=(0.2, 0.8), flip=0.5),
            "859d0b5323ab7e5317abf353412b4aa845a484f42458893e2accc35b6bfc8522",
        ),
        (
            Resized(96, 8, crop=(0.1, 1.0), flip=0.5, level="auto", content=True),
            "7b669bc8dcd4fadf0c28db5d4700308a8900c878f8f54b051cd64811108414b4",
        ),
        (Resized(96, 8, fit="pad"), "0caac1b61f095de645b14fd01a65d737a7e62ca80d7c0ab513afa7b5ac42fd31"),
    ],
    ids=str,
)
def test_plans_are_these_on_every_machine_and_with_every_version_of_numpy(
    fixed_samples: Samples, print_of: Callable[..., str], batching: Batching, expected: str
) -> None:
    # A change here is another plan: it must come with a new `shardkit.plan.spec.FORMAT`, so that a state saved
    # before is refused and not continued in another order.
    assert FORMAT == 1
    steps = [step for epoch in (0, 1) for step in EpochPlan(fixed_samples, 7, epoch, batching, window=8)]
    assert print_of(steps) == expected


# ---------------------------------------------------------------------------------------------------------- accounts


@pytest.mark.deep
@given(seeds, windows, batchings())
@settings(max_examples=200, deadline=None)
def test_every_sample_comes_once_and_what_is_repeated_or_dropped_is_counted(
    few_samples: Callable[..., Samples], rows_of: Callable[..., list[int]], seed: int, window: int, batching: Batching
) -> None:
    samples = few_samples(seed)
    plan = EpochPlan(samples, seed, 1, batching, window)
    steps, account = list(plan), plan.account()
    micros = [micro for step in steps for micro in step]
    once, everything = rows_of(micros), set(samples.row(np.arange(len(samples))).tolist())
    again = [row for micro in micros for row in micro.crops.row[micro.repeated].tolist()]

    assert len(once) == len(set(once)) == len(samples) - account.samples_dropped
    assert set(once) | set(again) <= everything
    assert len(again) == account.samples_repeated
    assert account.samples_dropped == 0 or batching.remainder == "drop"
    assert account.samples_repeated == 0 or batching.remainder == "repeat"

    assert all(len(step) == batching.per_step for step in steps)
    assert (account.samples, account.steps, account.micro_batches) == (len(samples), len(steps), len(micros))
    assert len(plan) == len(steps)


@given(seeds, windows, batchings())
@settings(max_examples=100, deadline=None)
def test_tokens_add_up_to_those_of_the_data_and_to_those_of_the_batches(
    few_samples: Callable[..., Samples], seed: int, window: int, batching: Batching
) -> None:
    samples = few_samples(seed)
    plan = EpochPlan(samples, seed, 1, batching, window)
    account = plan.account()
    data = crops(samples, np.arange(len(samples)), batching.augmentation, plan.crop_key)
    assert account.real_tokens + account.dropped_tokens == int(data.tokens.sum())
    assert account.real_tokens + account.padding_tokens + account.repeated_tokens == sum(
        micro.padded_tokens for step in plan for micro in step
    )
    assert min(account.padding_tokens, account.repeated_tokens, account.dropped_tokens) >= 0
    if account.real_tokens:
        assert (
            account.overhead
            == (account.real_tokens + account.padding_tokens + account.repeated_tokens) / account.real_tokens
        )


def test_an_empty_account_has_no_overhead_and_accounts_add_field_by_field() -> None:
    assert EpochStats().overhead == 1.0
    assert EpochStats(samples=1, real_tokens=2) + EpochStats(samples=3, padding_tokens=4) == EpochStats(
        samples=4, real_tokens=2, padding_tokens=4
    )


def test_an_epoch_that_drops_everything_has_no_step(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(3)
    plan = EpochPlan(samples, 0, 0, Resized(32, 1000, remainder="drop"))
    assert len(plan) == 0
    assert list(plan) == []
    assert not plan.has(0)
    assert plan.account().samples_dropped == len(samples)


def test_packing_the_published_sizes_wastes_under_half_a_percent(radiographs: Callable[..., Samples]) -> None:
    account = EpochPlan(radiographs(100_000), 0, 0, Packed(tokens=24576, patch=48)).account()
    assert account.samples == 100_000
    assert account.overhead <= 1.005


def test_the_thesis_bins_waste_on_the_published_sizes_what_was_published(radiographs: Callable[..., Samples]) -> None:
    samples = radiographs(100_000)
    account = EpochPlan(samples, 0, 0, Binned("thesis", tokens=24576, patch=48)).account()
    bins = Bins(THESIS, 48).account(samples.height, samples.width).overhead
    assert bins == pytest.approx(1.19, abs=0.01)
    assert bins < account.overhead < bins + 0.03, "more than bins and the last steps of 36 bins explain"


# ------------------------------------------------------------------------------------------- worlds and resumption


@pytest.mark.deep
@given(seeds, windows, batchings(), st.data())
@moderate
def test_ranks_of_any_world_resume_one_state_and_see_the_same_steps_together(
    few_samples: Callable[..., Samples],
    print_of: Callable[..., str],
    seed: int,
    window: int,
    batching: Batching,
    data: st.DataObject,
) -> None:
    samples = few_samples(seed)
    whole = list(EpochPlan(samples, seed, 2, batching, window))
    step = data.draw(st.integers(0, len(whole)))
    for world in worlds_of(batching):
        plans = [EpochPlan(samples, seed, 2, batching, window) for _ in range(world)]
        for k in range(step, len(whole)):
            parts = [plan[k][rank::world] for rank, plan in enumerate(plans)]
            assert {len(part) for part in parts} == {batching.per_step // world}
            together = [parts[at % world][at // world] for at in range(batching.per_step)]
            assert print_of([together]) == print_of([whole[k]])
        assert not any(plan.has(len(whole)) for plan in plans)


@pytest.mark.deep
@given(seeds, windows, batchings(), st.randoms())
@moderate
def test_steps_at_random_are_those_of_an_iteration(
    few_samples: Callable[..., Samples],
    print_of: Callable[..., str],
    seed: int,
    window: int,
    batching: Batching,
    random: random.Random,
) -> None:
    samples = few_samples(seed)
    plan = EpochPlan(samples, seed, 0, batching, window)
    prints = [print_of([step]) for step in plan]
    order = list(range(len(prints))) * 2
    random.shuffle(order)
    again = EpochPlan(samples, seed, 0, batching, window)
    for k in order:
        assert print_of([again[k]]) == prints[k]
        assert print_of([plan[k]]) == prints[k]
        assert again.has(k)
        assert len(again._kept) <= 3
    assert len(again) == len(prints)
    assert again.account() == plan.account()


@given(seeds, windows, batchings(), st.integers(0, 10))
@moderate
def test_a_twin_gives_the_same_steps_and_does_not_disturb(
    few_samples: Callable[..., Samples],
    print_of: Callable[..., str],
    seed: int,
    window: int,
    batching: Batching,
    begun: int,
) -> None:
    samples = few_samples(seed)
    expected = [print_of([step]) for step in EpochPlan(samples, seed, 0, batching, window)]
    plan = EpochPlan(samples, seed, 0, batching, window)
    for k in range(min(begun, len(expected))):
        plan[k]
    kept, twin = dict(plan._kept), plan.copy()
    assert [print_of([step]) for step in twin] == expected
    assert dict(plan._kept) == kept, "another thread may be at it"
    assert [print_of([step]) for step in plan] == expected
    assert twin.account() == plan.account()


def test_an_interrupted_iteration_leaves_no_trace(
    few_samples: Callable[..., Samples], print_of: Callable[..., str]
) -> None:
    samples, batching = few_samples(5), Packed(tokens=300, max_images=5, per_step=2)
    expected = [print_of([step]) for step in EpochPlan(samples, 0, 0, batching, 2)]
    plan = EpochPlan(samples, 0, 0, batching, 2)
    for k in range(len(expected)):
        for _ in zip(range(k), plan, strict=False):
            pass
        assert [print_of([step]) for step in plan] == expected


def test_past_either_end_there_is_no_step(few_samples: Callable[..., Samples]) -> None:
    plan = EpochPlan(few_samples(5), 0, 0, Resized(32, 4, per_step=2))
    end = len(plan)
    for k in (-1, end, end + 1000):
        assert not plan.has(k)
        with pytest.raises(IndexError):
            plan[k]


def test_seed_epoch_and_dataset_decide_the_order_and_nothing_else_does(
    few_samples: Callable[..., Samples], rows_of: Callable[..., list[int]]
) -> None:
    def order(seed: int = 0, epoch: int = 0, digest: str = "few", batching: Batching | None = None) -> Any:
        plan = EpochPlan(few_samples(11, digest=digest), seed, epoch, batching or Exact(per_step=1), window=4)
        return np.concatenate([plan.order.piece(i) for i in range(plan.order.pieces)]).tolist(), plan

    first, plan = order()
    assert [row for step in plan for row in rows_of(step)] == plan.samples.row(np.array(first)).tolist()
    assert first == order()[0] == order(batching=Resized(16, 3, flip=0.5))[0] == order(batching=Packed())[0]
    others = [order(seed=1), order(epoch=1), order(seed=1, epoch=1), order(digest="more"), order(seed=10, epoch=0)]
    assert len({tuple(first), *(tuple(other) for other, _ in others)}) == 6


def test_only_a_few_pieces_are_kept_in_memory(radiographs: Callable[..., Samples]) -> None:
    plan = EpochPlan(radiographs(20_000, 50), 0, 0, Packed(patch=48), window=16)
    assert plan.order.pieces == 25
    for _ in plan:
        assert len(plan._kept) <= 3
    held = sum(len(begun.waiting) for begun in plan._begun.values())
    assert held < plan.batching.per_step * len(plan._begun)


# --------------------------------------------------------------------------------------------------------- refusals


def test_plans_without_samples_window_or_level_are_refused(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(0)
    nothing = samples.select(np.zeros(len(samples), bool), "nothing")
    assert len(nothing) == 0
    with pytest.raises(ArgumentError, match="nothing to plan"):
        EpochPlan(nothing, 0, 0, Exact())
    with pytest.raises(ArgumentError, match="window=0"):
        EpochPlan(samples, 0, 0, Exact(), window=0)
    with pytest.raises(ArgumentError, match="level=4 is not in this dataset: it holds levels 0 to 3"):
        EpochPlan(samples, 0, 0, Exact(level=4))


# ---------------------------------------------------------------------------------------------------------- samples


@given(seeds, st.data())
@moderate
def test_a_selection_keeps_rows_sizes_and_shards_that_have_any(
    few_samples: Callable[..., Samples], seed: int, data: st.DataObject
) -> None:
    samples = few_samples(seed)
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(samples), max_size=len(samples))))
    chosen, at = samples.select(keep, "chosen"), np.flatnonzero(keep)
    assert chosen.digest == "chosen"
    assert len(chosen) == len(at)
    assert chosen.row(np.arange(len(at))).tolist() == samples.row(at).tolist()
    assert (chosen.height == samples.height[at]).all()
    assert (chosen.regions(np.arange(len(at)), True) == samples.regions(at, True)).all()
    assert (np.diff(chosen.starts) > 0).all()
    old = np.searchsorted(samples.starts, at, side="right")
    new = np.searchsorted(chosen.starts, np.arange(len(at)), side="right")
    assert [len(set(old[new == shard])) for shard in np.unique(new)] == [1] * (len(chosen.starts) - 1)
