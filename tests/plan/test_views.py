"""Views of a sample: what is shown of it, from which level, by which seed, as a pure function of the sample alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from shardkit.errors import ArgumentError
from shardkit.plan import Crops, EpochPlan, MicroBatch, MultiView, Resized, Samples, View
from shardkit.plan.views import apart, greys, view_seed

LARGE, SMALL = View(48, (0.4, 1.0), n=2, ratio=(0.5, 2.0)), View(16, (0.05, 0.4), n=3, flip=0.3)
VIEWS = MultiView((LARGE, SMALL), batch_size=4, per_step=2)
MANY = np.arange(20_000, dtype=np.uint64) * np.uint64(977)


def _plan(samples: Samples, batching: MultiView | Resized = VIEWS, seed: int = 5) -> EpochPlan:
    return EpochPlan(samples, seed, 0, batching, window=4)


def _micros(plan: EpochPlan) -> list[MicroBatch]:
    return [micro for step in plan for micro in step]


def _equal(one: Crops, other: Crops) -> bool:
    return all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(Crops))


def _by_row(found: list[Crops]) -> Crops:
    crops = Crops.join(found)
    return crops.take(np.argsort(crops.row, kind="stable"))


# --------------------------------------------------------------------------------------------------- rectangles


def test_every_view_is_a_crop_of_its_own_inside_the_image_or_its_content(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(1)
    for content in (False, True):
        batching = MultiView(VIEWS.views, batch_size=4, per_step=2, content=content)
        for micro in _micros(_plan(samples, batching)):
            top, left, height, width = samples.regions(micro.crops.index, content).T
            views = micro.views()
            assert [int(view.out_height[0]) for view in views if len(view)] in ([48, 48, 16, 16, 16], [])
            for view in views:
                assert np.array_equal(view.row, micro.crops.row)
                assert np.array_equal(view.level, micro.crops.level)
                y, x, rows, cols = view.region.T
                assert ((y >= top) & (x >= left) & (y + rows <= top + height) & (x + cols <= left + width)).all()
            seeds = np.concatenate([view.seed for view in views])
            assert len(np.unique(seeds)) == len(seeds)


@pytest.mark.parametrize("number", [0, 1])
def test_a_view_is_the_crop_that_resized_would_draw_by_its_seed(
    few_samples: Callable[..., Samples], number: int
) -> None:
    """Of the first view that is the crop that Resized draws of the sample: its seed is the sample's."""
    samples = few_samples(2)
    views = MultiView((LARGE,), batch_size=4, per_step=2, level=1)
    resized = Resized(48, 4, per_step=2, level=1, crop=LARGE.crop, ratio=LARGE.ratio, flip=LARGE.flip)
    own = _by_row([micro.views()[number] for micro in _micros(_plan(samples, views))])
    alone = _by_row([micro.crops for micro in _micros(_plan(samples, resized))])
    assert _equal(own, alone) == (number == 0)
    assert np.array_equal(own.seed, view_seed(alone.seed, number))


def test_what_is_shown_depends_on_the_sample_alone(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(3)
    other = MultiView(VIEWS.views, batch_size=7, per_step=3)
    for number in range(5):
        one, two = (_by_row([m.views()[number] for m in _micros(_plan(samples, b))]) for b in (VIEWS, other))
        assert _equal(one, two)
    first = _micros(_plan(samples))[0]
    alone = MicroBatch.of(first.shape, first.patch, first.crops.take(slice(2, 3)))
    assert all(_equal(a, b.take(slice(2, 3))) for a, b in zip(alone.views(), first.views(), strict=True))


def test_another_seed_or_epoch_shows_other_parts(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(4)
    found = [_by_row([m.views()[0] for m in _micros(plan)]) for plan in (_plan(samples), _plan(samples, seed=6))]
    assert (found[0].region != found[1].region).any(1).mean() > 0.5


def test_repeats_show_other_parts_of_a_sample(few_samples: Callable[..., Samples]) -> None:
    batching = MultiView((View(32, (0.1, 0.5)),), batch_size=8, per_step=4, remainder="repeat")
    micros = _micros(_plan(few_samples(6), batching))
    again = _by_row([m.views()[0].take(np.flatnonzero(m.repeated)) for m in micros])
    first = _by_row([m.views()[0].take(np.flatnonzero(~m.repeated)) for m in micros])
    assert len(again)
    assert (again.region != first.take(np.searchsorted(first.row, again.row)).region).any(1).mean() > 0.5


# -------------------------------------------------------------------------------------------------------- level


@pytest.mark.parametrize(
    ("views", "level"),
    [
        ((View(256, (1.0, 1.0), ratio=(1.0, 1.0)),), 3),
        ((View(256, (0.25, 1.0), ratio=(1.0, 1.0)),), 2),
        ((View(96, (0.05, 0.4), ratio=(1.0, 1.0)),), 2),  # 458 pixels at least
        ((View(64, (0.05, 0.4), ratio=(1.0, 1.0)),), 2),
        ((View(48, (0.05, 0.4), ratio=(1.0, 1.0)),), 3),
        ((View(48, (0.05, 0.4), ratio=(1.0, 1.0)), View(256, (0.25, 1.0), ratio=(1.0, 1.0))), 2),
        ((View(48, (0.05, 0.4), ratio=(1.0, 1.0)), View(1024, (0.25, 1.0), ratio=(1.0, 1.0))), 0),
        ((View(4096),), 0),
    ],
)
def test_the_level_covers_the_smallest_crop_of_every_view(
    radiographs: Callable[..., Samples], views: tuple[View, ...], level: int
) -> None:
    samples = Samples("square", np.array([0, 1]), np.array([2048]), np.array([2048]), radiographs(1).bins)
    (micro,) = _micros(_plan(samples, MultiView(views, per_step=1)))
    assert micro.crops.level.tolist() == [level]


def test_at_its_level_no_view_of_a_radiograph_is_enlarged(radiographs: Callable[..., Samples]) -> None:
    views = (View(224, (0.4, 1.0), n=2), View(96, (0.05, 0.4), n=2))
    micros = _micros(_plan(radiographs(200), MultiView(views, batch_size=20, per_step=1)))
    for view in (view for micro in micros for view in micro.views()):
        large = (view.region[:, 2] >= view.out_height) & (view.region[:, 3] >= view.out_width)
        assert (view.height[large] >= view.out_height[large]).all()
        assert (view.width[large] >= view.out_width[large]).all()


# ------------------------------------------------------------------------------------------------ tokens, seeds


def test_tokens_are_those_of_all_views(few_samples: Callable[..., Samples]) -> None:
    plan = _plan(few_samples(1))
    each = 2 * 3 * 3 + 3
    assert plan.account().real_tokens == each * len(plan.samples)
    assert {micro.padded_tokens for micro in _micros(plan)} == {4 * each}


def test_a_side_that_is_no_multiple_of_the_patch_is_refused_when_planned(few_samples: Callable[..., Samples]) -> None:
    with pytest.raises(ArgumentError, match="side=50 of a View must be a multiple of patch=16"):
        _plan(few_samples(1), MultiView((View(32), View(50))))


@pytest.mark.parametrize("number", [0, 1, 2, 17, 10**6])
def test_seeds_of_views_are_sums_of_64_bits_signed_or_not(number: int) -> None:
    seed = np.array([0, 1, 2**63 - 1, 2**63, 2**64 - 1], np.uint64)
    with np.errstate(over="ignore"):
        signed = seed.astype(np.int64) + np.int64(apart(number))
    assert np.array_equal(view_seed(seed, number), signed.astype(np.uint64))
    assert (number == 0) == np.array_equal(view_seed(seed, number), seed)


# -------------------------------------------------------------------------------------------------- grey levels


def test_grey_levels_change_with_the_chances_and_within_the_bounds_asked_for() -> None:
    view = View(32, jitter=0.8, brightness=0.3, contrast=0.2, blur=0.1, sigma=(0.5, 1.5), solarise=0.2)
    found = greys(view, MANY)
    jittered = found.brightness != 1
    assert jittered.mean() == pytest.approx(0.8, abs=0.02)
    assert np.array_equal(jittered, found.contrast != 1)
    for factor, most in ((found.brightness[jittered], 0.3), (found.contrast[jittered], 0.2)):
        assert 1 - most <= factor.min() < 1 - 0.99 * most
        assert 1 + 0.99 * most < factor.max() <= 1 + most
        assert factor.mean() == pytest.approx(1, abs=0.01)
    assert found.contrast_first[jittered].mean() == pytest.approx(0.5, abs=0.02)
    assert (found.sigma > 0).mean() == pytest.approx(0.1, abs=0.01)
    assert 0.5 <= found.sigma[found.sigma > 0].min() < found.sigma.max() <= 1.5
    assert found.solarise.mean() == pytest.approx(0.2, abs=0.02)
    drawn = np.stack([found.brightness > 1, found.contrast > 1, found.contrast_first, found.sigma > 0, found.solarise])
    apart_from_itself = np.corrcoef(drawn[:, jittered])[~np.eye(5, dtype=bool)]
    assert np.abs(apart_from_itself).max() < 0.03, "what is drawn for one change says something of another"


def test_a_plain_view_changes_no_grey_level() -> None:
    assert not View(32).changes_greys
    found = greys(View(32), MANY)
    assert (found.brightness == 1).all()
    assert (found.contrast == 1).all()
    assert not found.sigma.any()
    assert not found.solarise.any()


def test_a_chance_of_one_is_always() -> None:
    found = greys(View(32, jitter=1.0, blur=1.0, solarise=1.0), MANY)
    assert (found.brightness != 1).all()
    assert (found.sigma > 0).all()
    assert found.solarise.all()
