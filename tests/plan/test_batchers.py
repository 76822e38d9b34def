"""Micro-batches: what fits goes in, nothing is lost, the last step is as even as it can be, substitutes fit."""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset.bins import Bin, Bins
from shardkit.errors import ArgumentError
from shardkit.plan import (
    Batching,
    BatchShape,
    Binned,
    EpochPlan,
    Exact,
    Fixed,
    MicroBatch,
    Pack,
    Packed,
    Resized,
    Samples,
    Shape,
)
from shardkit.plan.crops import Crops, crops

PATCH = 16

seeds = st.integers(0, 2**32 - 1)
moderate = settings(max_examples=80, deadline=None)


@st.composite
def dense(draw: st.DrawFn, remainders: Sequence[str] = ("fill", "repeat", "drop")) -> Batching:
    """A dense batching for samples of up to 200 x 200 pixels."""
    per_step = draw(st.sampled_from([1, 2, 3, 4, 6, 8]))
    common: dict[str, Any] = {"per_step": per_step, "remainder": draw(st.sampled_from(remainders))}
    kind = draw(st.sampled_from(["fixed", "exact", "binned", "tokens", "resized"]))
    size = draw(st.integers(1, 5))
    if kind == "fixed":
        return Fixed(208, size, **common)
    if kind == "exact":
        return Exact(**common)
    if kind == "resized":
        return Resized(32, size, **common)
    group = draw(st.sampled_from([g for g in range(1, per_step + 1) if per_step % g == 0]))
    bins = draw(st.sampled_from(["dataset", "auto:6", "0208x0208+0096x0096"]))
    amount: dict[str, Any] = {"batch_size": size} if kind == "binned" else {"tokens": draw(st.integers(1, 900))}
    return Binned(bins, group=group, **amount, **common)


packed = st.builds(
    Packed,
    tokens=st.integers(169, 600),
    max_images=st.none() | st.integers(1, 9),
    window=st.integers(1, 20),
    per_step=st.sampled_from([1, 2, 3, 4, 8]),
    remainder=st.sampled_from(["fill", "drop"]),
)


def sized(sizes: Any, patch: int = PATCH) -> Samples:
    """Samples of these (rows, cols) in patches, in one shard."""
    high, wide = np.array(sizes, np.int64).reshape(-1, 2).T * patch
    return Samples("sized", np.array([0, len(high)]), high, wide, Bins((Bin(3072, 3072),), patch))


def in_order(samples: Samples, batching: Batching) -> tuple[list[MicroBatch], list[MicroBatch]]:
    """(micro-batches before the end, all of them) of samples that come in manifest order."""
    batcher = batching.batcher(samples)
    fed = batcher.feed(crops(samples, np.arange(len(samples)), batching.augmentation, 0))
    whole = len(fed) // batching.per_step * batching.per_step
    return fed, fed[:whole] + batcher.finish(fed[whole:])


def rows(micros: list[MicroBatch]) -> list[list[int]]:
    return [micro.crops.row[~micro.repeated].tolist() for micro in micros]


def last_step(samples: Samples, batching: Batching) -> list[MicroBatch]:
    return in_order(samples, batching)[1][-batching.per_step :]


# ----------------------------------------------------------------------------------------------------------- dense


@given(seeds, dense())
@moderate
def test_images_fit_in_their_layout_and_are_padded_to_whole_patches(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    for step in EpochPlan(few_samples(seed), 0, 0, batching):
        for micro in step:
            shape = micro.shape
            assert isinstance(shape, Shape)
            assert len(micro.crops) == len(micro.repeated) <= shape.images
            assert (micro.crops.out_height <= shape.height).all()
            assert (micro.crops.out_width <= shape.width).all()
            assert shape.height % PATCH == shape.width % PATCH == 0
            assert micro.padded_tokens == shape.images * shape.height * shape.width // PATCH**2


@given(seeds, st.integers(1, 2000))
@moderate
def test_binned_by_tokens_holds_no_more_than_these_unless_it_is_one_image(
    few_samples: Callable[..., Samples], seed: int, tokens: int
) -> None:
    shapes = {m.shape for step in EpochPlan(few_samples(seed), 0, 0, Binned("auto:6", tokens=tokens)) for m in step}
    for shape in shapes:
        assert isinstance(shape, Shape)
        area = shape.height * shape.width // PATCH**2
        assert shape.images * area <= tokens or shape.images == 1
        assert (shape.images + 1) * area > tokens


@given(seeds, dense())
@moderate
def test_the_smallest_bin_that_holds_an_image_gets_it(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    plan = EpochPlan(few_samples(seed), 0, 0, batching)
    shapes = {micro.shape for step in plan for micro in step if isinstance(micro.shape, Shape)}
    for step in plan:
        for micro in step:
            assert isinstance(micro.shape, Shape)
            area = micro.shape.height * micro.shape.width
            for h, w in zip(micro.crops.out_height, micro.crops.out_width, strict=True):
                assert all(h > s.height or w > s.width or s.height * s.width >= area for s in shapes)


@given(seeds, dense())
@moderate
def test_a_group_of_ranks_sees_one_class_at_a_time(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    group = getattr(batching, "group", None) or (batching.per_step if isinstance(batching, Binned) else 1)
    for step in EpochPlan(few_samples(seed), 0, 0, batching):
        assert len(step) == batching.per_step
        for at in range(0, len(step), group):
            assert len({micro.shape for micro in step[at : at + group]}) == 1
        for world in (w for w in range(1, group + 1) if group % w == 0):
            by_rank = [[micro.shape for micro in step[rank::world]] for rank in range(world)]
            assert all(layouts == by_rank[0] for layouts in by_rank)


def test_groups_smaller_than_a_step_mix_bins_within_a_step(radiographs: Callable[..., Samples]) -> None:
    samples = radiographs(3000, 50)
    mixed = EpochPlan(samples, 0, 0, Binned("thesis", batch_size=2, patch=48, per_step=8, group=2))
    pure = EpochPlan(samples, 0, 0, Binned("thesis", batch_size=2, patch=48, per_step=8))
    assert np.mean([len({micro.shape for micro in step}) > 1 for step in mixed]) > 0.9
    assert {len({micro.shape for micro in step}) for step in pure} == {1}


def test_an_image_above_the_side_is_named_with_the_remedy() -> None:
    samples = sized([(2, 2), (2, 4)])
    with pytest.raises(ArgumentError, match="manifest row 1 has 32 x 64 pixels, above side=48: raise it"):
        in_order(samples, Fixed(48))


def test_exact_pads_no_image_to_the_size_of_another() -> None:
    samples = sized([(2, 3), (1, 1), (2, 3), (5, 1)])
    _, micros = in_order(samples, Exact(per_step=4))
    sides = [(2, 3), (1, 1), (2, 3), (5, 1)]
    assert [micro.shape for micro in micros] == [Shape(1, PATCH * height, PATCH * width) for height, width in sides]


# ---------------------------------------------------------------------------------------------------------- packed


@given(seeds, packed)
@moderate
def test_packs_hold_no_more_than_their_tokens_and_images_and_no_image_twice_or_in_part(
    few_samples: Callable[..., Samples], seed: int, batching: Packed
) -> None:
    samples = few_samples(seed)
    seen = []
    plan = EpochPlan(samples, 0, 0, batching)
    for step in plan:
        for micro in step:
            assert isinstance(micro.shape, Pack)
            assert (micro.shape.tokens, micro.shape.images) == (batching.tokens, batching.capacity)
            assert micro.real_tokens <= micro.padded_tokens == batching.tokens
            assert len(micro.crops) <= batching.capacity
            assert micro.cu_seqlens.tolist() == [0, *np.cumsum(micro.crops.tokens)]
            grid = -(-micro.crops.out_height // PATCH) * -(-micro.crops.out_width // PATCH)
            assert (micro.crops.tokens == grid).all()
            seen += micro.crops.index.tolist()
    assert len(seen) == len(set(seen)) == len(samples) - plan.account().samples_dropped
    assert batching.remainder == "drop" or len(seen) == len(samples)


def test_a_pack_takes_the_oldest_image_first_then_what_fits_best() -> None:
    samples = sized([(1, 6), (1, 5), (1, 3), (1, 4), (1, 1), (1, 9)])
    fed, micros = in_order(samples, Packed(tokens=10, max_images=9, window=3, per_step=1))
    assert rows(fed) == [[0, 3]]  # of the two behind 0 and 1, with 3 and 4 tokens, the 4 fit best; then more may come
    assert [sorted(part) for part in rows(micros)] == [[0, 3], [1, 2, 4], [5]]


def test_a_wider_window_wastes_less(radiographs: Callable[..., Samples]) -> None:
    samples = radiographs(5000)
    overheads = [EpochPlan(samples, 0, 0, Packed(patch=48, window=w)).account().overhead for w in (1, 4, 16, 64)]
    assert overheads == sorted(overheads, reverse=True)
    assert overheads[0] > 1.03


def test_an_image_of_more_tokens_than_a_pack_is_named_with_the_remedy() -> None:
    with pytest.raises(
        ArgumentError, match="manifest row 2 has 12 tokens, above tokens=10: raise it, or stream a level"
    ):
        in_order(sized([(1, 1), (2, 5), (3, 4)]), Packed(tokens=10, per_step=1))


# ---------------------------------------------------------------------------------------------------------- pieces


@given(seeds, st.one_of(dense(), packed), st.lists(st.integers(0, 150), max_size=6))
@moderate
def test_pieces_in_which_views_come_do_not_matter(
    few_samples: Callable[..., Samples], print_of: Callable[..., str], seed: int, batching: Batching, cuts: Any
) -> None:
    samples = few_samples(seed)
    shown = crops(samples, np.random.default_rng(seed).permutation(len(samples)), batching.augmentation, 0)
    bounds = [0, *sorted(min(cut, len(shown)) for cut in cuts), len(shown)]
    prints = set()
    for ends in ([0, len(shown)], bounds):
        batcher = batching.batcher(samples)
        out = []
        for begin, end in itertools.pairwise(ends):
            batcher = copy.deepcopy(batcher)
            out += batcher.feed(shown.take(slice(begin, end)))
        whole = len(out) // batching.per_step * batching.per_step
        out = out[:whole] + batcher.finish(out[whole:])
        assert len(out) % batching.per_step == 0
        prints.add(print_of([out]) + repr([part.row.tolist() for part in batcher.dropped]))
    assert len(prints) == 1


# ------------------------------------------------------------------------------------------------------ remainders


@given(seeds, st.one_of(dense(["fill"]), packed.filter(lambda batching: batching.remainder == "fill")))
@settings(max_examples=150, deadline=None)
def test_filling_leaves_a_micro_batch_empty_only_where_its_class_has_too_few_images(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    for step in EpochPlan(few_samples(seed), 0, 0, batching):
        sizes: dict[BatchShape, list[int]] = {}
        for micro in step:
            sizes.setdefault(micro.shape, []).append(len(micro.crops))
            assert not micro.repeated.any()
        assert all(min(counts) > 0 or max(counts) == 1 for counts in sizes.values())


@pytest.mark.parametrize(
    "batching",
    [
        Resized(32, 4),
        Fixed(208, 4),
        Binned("208x208", 4),
        Binned("208x208", 4, group=2),
        Packed(tokens=16, max_images=4),
    ],
)
def test_the_last_images_are_shared_evenly_by_all_micro_batches(batching: Batching) -> None:
    last = last_step(sized([(2, 2)] * (8 * 4 + 9)), batching)
    assert sorted(len(micro.crops) for micro in last) == [1] * 7 + [2]


@given(seeds, dense(["repeat"]))
@settings(max_examples=150, deadline=None)
def test_repeating_leaves_no_place_empty_and_repeats_as_late_and_as_rarely_as_it_can(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    samples = few_samples(seed)
    steps = list(EpochPlan(samples, 0, 0, batching))
    micros = [micro for step in steps for micro in step]
    seen = [row for micro in micros for row in micro.crops.row[~micro.repeated].tolist()]
    assert sorted(seen) == samples.row(np.arange(len(samples))).tolist()
    assert all(len(micro.crops) == micro.shape.images for micro in micros)
    for micro in micros:
        begin = int((~micro.repeated).sum())
        assert micro.repeated.tolist() == [False] * begin + [True] * (len(micro.crops) - begin)
    again = [(micro.shape, row) for micro in micros for row in micro.crops.row[micro.repeated].tolist()]
    times = Counter(again)
    for layout in {layout for layout, _ in again}:
        counts = [times[key] for key in times if key[0] == layout]
        assert max(counts) - min(counts) <= 1
    drawn = [seed for micro in micros for seed in micro.crops.seed.tolist()]
    assert len(set(drawn)) == len(drawn), "a repeated image is masked in another way"


def test_three_images_repeated_fill_a_step_without_an_empty_rank() -> None:
    _, micros = in_order(sized([(1, 1), (2, 2), (3, 3)]), Resized(32, 4, per_step=8, remainder="repeat"))
    assert [micro.crops.row.tolist() for micro in micros[:2]] == [[0, 1, 2, 0], [1, 2, 0, 1]]
    assert [int(micro.repeated.sum()) for micro in micros] == [1, 4, 4, 4, 4, 4, 4, 4]


def test_repeats_are_the_epochs_first_images_and_differ_among_ranks() -> None:
    _, micros = in_order(sized([(1, 1)] * 17), Resized(32, 2, per_step=4, remainder="repeat"))
    assert [micro.crops.row.tolist() for micro in micros[-4:]] == [[16, 0], [1, 2], [3, 4], [5, 6]]


@given(seeds, st.one_of(dense(["drop"]), packed.filter(lambda batching: batching.remainder == "drop")))
@moderate
def test_dropping_leaves_whole_steps_of_full_batches_and_counts_the_rest(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    samples = few_samples(seed)
    plan = EpochPlan(samples, 0, 0, batching)
    micros = [micro for step in plan for micro in step]
    assert not any(micro.repeated.any() for micro in micros)
    if not isinstance(batching, Packed):
        assert all(len(micro.crops) == micro.shape.images for micro in micros)
    seen = [row for micro in micros for row in micro.crops.row.tolist()]
    assert len(set(seen)) == len(seen) == len(samples) - plan.account().samples_dropped


@pytest.mark.parametrize(
    ("sizes", "per_step", "most"),
    [
        ([5] * 8 + [3] * 9, 8, 3),  # 7 packs of 10; of 8, balanced, one would have 5 + 3 + 3
        ([5, 5, 5, 5, 1, 1, 1, 1], 5, 2),  # 4 packs of 2 images; of 5, balanced, one would have all the small ones
    ],
)
def test_where_balanced_packs_would_overflow_they_are_halved_until_no_rank_is_empty(
    sizes: Any, per_step: int, most: int
) -> None:
    batching = Packed(tokens=10, max_images=most, window=1, per_step=per_step)
    last = last_step(sized([(1, n) for n in sizes]), batching)
    assert sorted(row for part in rows(last) for row in part) == list(range(len(sizes)))
    assert all(0 < micro.real_tokens <= 10 and len(micro.crops) <= most for micro in last)


@given(st.lists(st.integers(1, 10), min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 8))
@settings(max_examples=300, deadline=None)
def test_no_pack_of_the_last_step_is_empty_when_there_are_enough_images(
    tokens: list[int], most: int, per_step: int
) -> None:
    batching = Packed(tokens=10, max_images=most, window=3, per_step=per_step)
    _, micros = in_order(sized([(1, n) for n in tokens]), batching)
    last = micros[-per_step:]
    assert len(micros) % per_step == 0
    assert all(micro.real_tokens <= 10 and len(micro.crops) <= most for micro in micros)
    assert all(len(micro.crops) for micro in last) or sum(len(micro.crops) for micro in last) < per_step
    assert sorted(row for part in rows(micros) for row in part) == list(range(len(tokens)))


# ----------------------------------------------------------------------------------------------------- substitutes


@given(seeds, st.one_of(dense(), packed))
@moderate
def test_substitutes_fit_are_the_same_every_time_and_never_the_bad_sample_itself(
    few_samples: Callable[..., Samples], seed: int, batching: Batching
) -> None:
    samples = few_samples(seed)
    for step, again in zip(EpochPlan(samples, 0, 0, batching), EpochPlan(samples, 0, 0, batching), strict=True):
        for micro, twin in zip(step, again, strict=True):
            for at in range(len(micro.crops)):
                found = micro.substitutes(at)
                assert found == twin.substitutes(at)
                assert len(set(found)) == len(found)
                assert micro.crops.row[at] not in micro.crops.row[found]
                if isinstance(micro.shape, Pack):
                    sizes = micro.crops.tokens[found].tolist()
                    assert sizes == sorted(sizes, reverse=True)
                    assert all(size <= micro.crops.tokens[at] for size in sizes)
                others = micro.crops.row != micro.crops.row[at]
                room = micro.crops.tokens[at] if isinstance(micro.shape, Pack) else 10**9
                assert len(found) == int((others & (micro.crops.tokens <= room)).sum())


def test_dense_batches_take_the_next_image_in_turn() -> None:
    _, (micro,) = in_order(sized([(1, 1)] * 4), Fixed(16, 4, per_step=1))
    assert micro.substitutes(2) == [3, 0, 1]


def test_an_image_repeated_in_its_own_batch_is_no_substitute_for_itself() -> None:
    _, (micro,) = in_order(sized([(1, 1)] * 2), Fixed(16, 5, per_step=1, remainder="repeat"))
    assert micro.crops.row.tolist() == [0, 1, 0, 1, 0]
    assert micro.substitutes(2) == [3, 1]
    _, (micro,) = in_order(sized([(1, 1)]), Fixed(16, 3, per_step=1, remainder="repeat"))
    assert micro.substitutes(0) == []


def test_a_micro_batch_counts_repeated_tokens_apart() -> None:
    samples = sized([(1, 2), (1, 3)])
    shown = crops(samples, np.array([0, 1, 0]), Exact().augmentation, 0)
    micro = MicroBatch(Shape(4, 16, 64), PATCH, shown, np.array([False, False, True]))
    assert (micro.real_tokens, micro.repeated_tokens, micro.padded_tokens) == (5, 2, 16)
    assert isinstance(shown, Crops)
