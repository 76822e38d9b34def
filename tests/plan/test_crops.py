"""Views: content box, level arithmetic, random crops and flips, output size; each a function of seed and size alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import Samples
from shardkit.plan.crops import Augmentation, Crops, at_level, crops

RATIO = (3 / 4, 4 / 3)
PLAIN: dict[str, Any] = {"patch": 16, "content": False, "level": 0, "crop": None, "ratio": RATIO, "flip": 0.0}

seeds = st.integers(0, 2**32 - 1)
keys = st.integers(0, 2**64 - 1)
shares = st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)).map(sorted).map(tuple)
ratios = st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0)).map(sorted).map(tuple)
moderate = settings(max_examples=60, deadline=None)


def augmentation(**changes: Any) -> Augmentation:
    return Augmentation(**{**PLAIN, **changes})


def all_views(samples: Samples, key: int = 0, **changes: Any) -> Crops:
    return crops(samples, np.arange(len(samples)), augmentation(**changes), key)


def images(height: int, width: int, n: int = 1, levels: int = 5, box: Any = None) -> Samples:
    """`n` samples of one size in one shard."""
    full = np.full(n, height, np.uint16), np.full(n, width, np.uint16)
    boxes = None if box is None else np.tile(np.array(box, np.uint16), (n, 1))
    return Samples("images", np.array([0, n]), *full, Bins((Bin(4096, 4096),), 16), levels=levels, box=boxes)


def same(one: Any, other: Any) -> bool:
    return all((getattr(one, f.name) == getattr(other, f.name)).all() for f in fields(Crops))


def central(high: int, wide: int, ratio: tuple[float, float]) -> tuple[int, int]:
    """What a crop falls back to: the largest rectangle of an admitted shape."""
    return max(1, round(min(high, wide / ratio[0]))), max(1, round(min(wide, high * ratio[1])))


# ------------------------------------------------------------------------------------------- region and level


@given(seeds, st.booleans())
@moderate
def test_without_a_crop_a_view_is_the_image_or_its_content_box(
    few_samples: Callable[..., Samples], seed: int, content: bool
) -> None:
    samples = few_samples(seed)
    shown = all_views(samples, content=content)
    found = np.stack([shown.top, shown.left, shown.height, shown.width], 1)
    if content:
        expected = samples.box
    else:
        expected = np.stack([0 * samples.height, 0 * samples.height, samples.height, samples.width], 1)
    assert (found == expected).all()
    assert (shown.region == expected).all()
    assert (shown.out_height == shown.height).all()
    assert (shown.out_width == shown.width).all()


def test_without_loaded_boxes_content_is_the_whole_image() -> None:
    shown = all_views(images(50, 60), content=True)
    assert (shown.height[0], shown.width[0]) == (50, 60)


@given(seeds, st.integers(0, 9), keys)
@moderate
def test_a_rectangle_of_a_level_lies_in_its_image_and_covers_the_region_with_nothing_to_spare(
    few_samples: Callable[..., Samples], seed: int, level: int, key: int
) -> None:
    samples = few_samples(seed)
    shown = all_views(samples, key, content=True, level=level, crop=(0.05, 1.0))
    scale = 2**level
    assert ((shown.height >= 1) & (shown.width >= 1) & (shown.top >= 0) & (shown.left >= 0)).all()
    assert (shown.top + shown.height <= -(-samples.height.astype(int) // scale)).all()
    assert (shown.left + shown.width <= -(-samples.width.astype(int) // scale)).all()
    for begin, length, first, extent in (
        (shown.top, shown.height, shown.region[:, 0], shown.region[:, 2]),
        (shown.left, shown.width, shown.region[:, 1], shown.region[:, 3]),
    ):
        assert (begin * scale <= first).all()
        assert ((begin + 1) * scale > first).all()
        assert ((begin + length) * scale >= first + extent).all()
        assert ((begin + length - 1) * scale < first + extent).all()


def test_levels_round_up_and_keep_every_pixel_touched() -> None:
    region = np.array([[1, 2, 2, 3], [0, 0, 7, 1], [5, 5, 1, 1]])
    top, left, height, width = at_level(region, 1)
    assert np.stack([top, left, height, width], 1).tolist() == [[0, 1, 2, 2], [0, 0, 4, 1], [2, 2, 1, 1]]


@given(seeds, st.integers(1, 40))
@moderate
def test_tokens_are_the_patches_that_the_output_touches(
    few_samples: Callable[..., Samples], seed: int, patch: int
) -> None:
    shown = all_views(few_samples(seed), patch=patch)
    expected = [math.ceil(h / patch) * math.ceil(w / patch) for h, w in zip(shown.height, shown.width, strict=True)]
    assert shown.tokens.tolist() == expected


# --------------------------------------------------------------------------------------------------- crops


@given(seeds, keys, shares, ratios, st.booleans())
@moderate
def test_crops_lie_in_their_region_with_area_and_shape_as_asked(
    few_samples: Callable[..., Samples],
    seed: int,
    key: int,
    crop: tuple[float, float],
    ratio: tuple[float, float],
    content: bool,
) -> None:
    samples = few_samples(seed)
    shown = all_views(samples, key, content=content, crop=crop, ratio=ratio)
    regions = samples.regions(np.arange(len(samples)), content)
    for (top, left, high, wide), (y, x, h, w) in zip(regions.tolist(), shown.region.tolist(), strict=True):
        assert top <= y
        assert left <= x
        assert y + h <= top + high
        assert x + w <= left + wide
        if (h, w) != central(high, wide, ratio):
            # Sides are rounded: h and w come from numbers within half a pixel.
            assert (h - 0.5) * (w - 0.5) <= crop[1] * high * wide * (1 + 1e-9)
            assert (h + 0.5) * (w + 0.5) >= crop[0] * high * wide * (1 - 1e-9)
            assert (w - 0.5) / (h + 0.5) <= ratio[1] * (1 + 1e-9)
            assert (w + 0.5) / max(h - 0.5, 1e-9) >= ratio[0] * (1 - 1e-9)


def test_crops_use_all_of_the_admitted_areas_shapes_and_places() -> None:
    shown = all_views(images(1000, 1000, 20_000), crop=(0.2, 0.6))
    area, shape = shown.height * shown.width / 1e6, shown.width / shown.height
    assert area.mean() == pytest.approx(0.4, abs=0.005)
    assert np.percentile(area, [1, 99]) == pytest.approx([0.204, 0.596], abs=0.01)
    assert np.log(shape).mean() == pytest.approx(0, abs=0.01)
    assert np.percentile(shape, [1, 99]) == pytest.approx([3 / 4, 4 / 3], abs=0.02)
    room = 1000 - shown.height
    assert (shown.top / room).mean() == pytest.approx(0.5, abs=0.01)
    assert shown.top.min() == 0
    assert (shown.top == room).any()
    assert abs(np.corrcoef(shown.top / room, shown.left / (1000 - shown.width))[0, 1]) < 0.03
    assert abs(np.corrcoef(area, shape)[0, 1]) < 0.03


def test_no_crop_of_a_small_image_is_empty() -> None:
    """Where shares of a few pixels round to none, another crop is tried."""
    for size in ((1, 1), (2, 5), (5, 2), (3, 3)):
        shown = all_views(images(*size, 500), crop=(0.01, 0.5), ratio=(0.2, 5.0))
        assert shown.region[:, 2:].min() == 1


def test_an_image_too_narrow_for_any_crop_gives_its_centre() -> None:
    shown = all_views(images(1000, 10, 50), crop=(0.9, 1.0))
    assert set(zip(shown.height.tolist(), shown.width.tolist(), strict=True)) == {(13, 10)}
    assert set(shown.top.tolist()) == {493}


def test_a_crop_of_an_image_one_pixel_high_or_wide_lies_anywhere_along_it() -> None:
    for high, wide in ((1, 60), (60, 1)):
        shown = all_views(images(high, wide, 2000), crop=(0.01, 0.04))
        assert ((shown.height == 1) & (shown.width == 1)).any()
        assert len(set(zip(shown.top.tolist(), shown.left.tolist(), strict=True))) > 50


@given(seeds, keys, st.data())
@moderate
def test_a_view_depends_on_key_and_row_and_not_on_what_else_is_planned(
    few_samples: Callable[..., Samples], seed: int, key: int, data: st.DataObject
) -> None:
    samples = few_samples(seed)
    asked = {"crop": (0.1, 0.9), "flip": 0.5, "content": True, "level": 1}
    shown = all_views(samples, key, **asked)
    index = np.array(data.draw(st.lists(st.integers(0, len(samples) - 1), min_size=1)))
    assert same(crops(samples, index, augmentation(**asked), key), shown.take(index))

    keep = np.zeros(len(samples), bool)
    keep[index] = True
    chosen = all_views(samples.select(keep, samples.digest), key, **asked)
    assert (chosen.row == samples.row(np.flatnonzero(keep))).all()
    at = np.flatnonzero(keep)
    assert all(
        (getattr(chosen, f.name) == getattr(shown, f.name)[at]).all() for f in fields(Crops) if f.name != "index"
    )


def test_another_key_gives_other_crops_and_seeds() -> None:
    samples = images(500, 500, 200)
    one, other = (all_views(samples, key, crop=(0.1, 0.9), flip=0.5) for key in (1, 2))
    assert (one.seed != other.seed).all()
    assert (one.top != other.top).mean() > 0.95
    assert 0.3 < (one.flip != other.flip).mean() < 0.7


@pytest.mark.parametrize("chance", [0.0, 0.25, 0.5, 1.0])
def test_as_many_images_are_mirrored_as_asked(chance: float) -> None:
    shown = all_views(images(9, 9, 20_000), flip=chance)
    assert shown.flip.mean() == pytest.approx(chance, abs=0.01 if 0 < chance < 1 else 0)


def test_two_views_join_and_part_again() -> None:
    shown = all_views(images(30, 40, 6))
    joined = Crops.join([shown.take(slice(0, 2)), shown.take(np.array([2, 3, 4, 5]))])
    assert same(joined, shown)
    assert len(joined) == 6


# -------------------------------------------------------------------------------------------------- resizing


@given(seeds, keys, st.sampled_from([16, 48]), st.sampled_from([None, (0.3, 0.8)]), st.booleans())
@moderate
def test_resized_to_a_crop_every_view_is_the_square(
    few_samples: Callable[..., Samples], seed: int, key: int, side: int, crop: tuple[float, float] | None, content: bool
) -> None:
    shown = all_views(few_samples(seed), key, side=side, crop=crop, content=content)
    assert set(shown.out_height.tolist()) == set(shown.out_width.tolist()) == {side}
    assert set(shown.tokens.tolist()) == {(side // 16) ** 2}
    if crop is None:
        assert (shown.height == shown.width).all()


def test_a_random_crop_becomes_the_square_however_images_would_be_fitted_without() -> None:
    shown = all_views(images(100, 300, 20), side=32, fit="pad", crop=(0.2, 0.5))
    assert set(shown.out_height.tolist()) == set(shown.out_width.tolist()) == {32}
    assert len(set(shown.top.tolist())) > 1


def test_the_central_square_is_as_large_as_the_region_admits() -> None:
    shown = all_views(images(100, 61), side=16)
    assert shown.region.tolist() == [[19, 0, 61, 61]]
    shown = all_views(images(400, 300, box=(10, 20, 50, 200)), side=16, content=True)
    assert shown.region.tolist() == [[10, 95, 50, 50]]


@given(seeds, st.booleans())
@moderate
def test_padding_instead_keeps_all_of_the_image_in_its_proportions(
    few_samples: Callable[..., Samples], seed: int, content: bool
) -> None:
    samples = few_samples(seed)
    shown = all_views(samples, side=64, fit="pad", content=content)
    assert (shown.region == samples.regions(np.arange(len(samples)), content)).all()
    for h, w, out_h, out_w in zip(shown.height, shown.width, shown.out_height, shown.out_width, strict=True):
        assert max(out_h, out_w) == 64
        assert min(out_h, out_w) >= 1
        assert out_h == pytest.approx(64 * h / max(h, w), abs=0.5) or (out_h == 1 and 64 * h < max(h, w))
        assert out_w == pytest.approx(64 * w / max(h, w), abs=0.5) or (out_w == 1 and 64 * w < max(h, w))


# ----------------------------------------------------------------------------------------------- automatic level


def smallest(region: Any, crop: tuple[float, float] | None, ratio: tuple[float, float], fit: str) -> float:
    """The shortest side that counts of anything that may be shown of a region, full resolution."""
    _, _, high, wide = region
    if crop is None:
        return float(max(high, wide) if fit == "pad" else min(high, wide))
    area = high * wide * crop[0]
    return min(math.sqrt(area * ratio[0]), math.sqrt(area / ratio[1]), *central(high, wide, ratio))


@given(
    st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 4096)), min_size=1, max_size=20),
    st.sampled_from([16, 64, 224]),
    st.sampled_from([None, (0.2, 1.0), (1.0, 1.0)]),
    st.sampled_from(["crop", "pad"]),
    st.integers(0, 5),
    keys,
)
@settings(max_examples=150, deadline=None)
def test_the_automatic_level_is_the_highest_that_enlarges_nothing(
    sizes: Any, side: int, crop: tuple[float, float] | None, fit: str, levels: int, key: int
) -> None:
    for high, wide in sizes:
        samples = images(high, wide, levels=levels)
        shown = all_views(samples, key, side=side, crop=crop, fit=fit, level="auto")
        level = int(shown.level[0])
        least = smallest((0, 0, high, wide), crop, RATIO, fit)
        assert 0 <= level <= levels
        assert level == 0 or least >= side * 2**level
        assert level == levels or least < side * 2 ** (level + 1)
        if level:
            longest = max(shown.height[0], shown.width[0])
            assert (longest if crop is None and fit == "pad" else min(shown.height[0], shown.width[0])) >= side


@pytest.mark.parametrize("level", range(6))
@pytest.mark.parametrize("side", [1, 3, 16, 48, 100, 224, 384])
def test_an_image_of_exactly_so_many_halvings_is_halved_so_often(side: int, level: int) -> None:
    for extent, expected in ((side << level, level), ((side << level) - 1, max(0, level - 1))):
        samples = images(extent, extent + 7) if extent else images(1, 1)
        assert all_views(samples, side=side, level="auto").level[0] == expected


def test_the_automatic_level_goes_by_the_content_box() -> None:
    samples = images(3000, 3000, box=(0, 0, 300, 400))
    assert all_views(samples, side=64, level="auto").level[0] == 5
    assert all_views(samples, side=64, level="auto", content=True).level[0] == 2
