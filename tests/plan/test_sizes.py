"""Images that no micro-batch can hold are refused at the start, with what would hold them; and bins of a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.dataset.bins import Bin, Bins
from shardkit.errors import ArgumentError
from shardkit.plan import Binned, EpochPlan, Exact, Fixed, Pack, Packed, Resized, Samples, sizes
from shardkit.plan.batchers import PackedBatcher
from shardkit.plan.crops import crops
from shardkit.plan.sizes import check_sizes

# Rows, columns and content box of three images, in manifest rows 3, 5 and 8.
SIZES = [(40, 20), (100, 30), (33, 90)]
PATCH = ", a larger patch"
BOXES = [(0, 0, 40, 20), (10, 5, 60, 20), (1, 1, 31, 80)]


@pytest.fixture
def three() -> Samples:
    high, wide = np.array(SIZES, np.uint16).T
    starts, bins = np.array([0, 2, 3]), Bins((Bin(128, 128),), 16)
    return Samples("three", starts, high, wide, bins, box=np.array(BOXES, np.uint16), rows=np.array([3, 5, 8]))


def refusal(samples: Samples, given: Any) -> str | None:
    """What is said of the samples, or nothing."""
    try:
        check_sizes(given, samples, "row-{}".format)
    except ArgumentError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("given", "count", "named", "more"),
    [
        (Fixed(64), 2, "side=64, the largest being row-5 with 100 x 30 pixels: give side=112", ""),
        (Fixed(96), 1, "side=96, the largest being row-5 with 100 x 30 pixels: give side=112", ""),
        (Fixed(32, level=1), 2, "side=32, the largest being row-5 with 50 x 15 pixels: give side=64", ""),
        (Packed(tokens=17), 1, "tokens=17, the largest being row-8 with 33 x 90 pixels: give tokens=18", PATCH),
        (Packed(tokens=13), 2, "tokens=13, the largest being row-8 with 33 x 90 pixels: give tokens=18", PATCH),
        (
            Packed(tokens=9, content=True),
            1,
            "tokens=9, the largest being row-8 with 31 x 80 pixels: give tokens=10",
            PATCH,
        ),
    ],
    ids=str,
)
def test_the_largest_image_is_named_with_what_would_hold_it(
    three: Samples, given: Any, count: int, named: str, more: str
) -> None:
    assert refusal(three, given) == f"{count} of 3 images do not fit {named}{more} or a higher level, or use resized"


@pytest.mark.parametrize(
    "given",
    [
        *(Fixed(112), Fixed(64, level=1), Fixed(80, content=True), Packed(tokens=18), Packed(tokens=10, content=True)),
        # Bins and resizing hold anything, and a random crop may fit.
        *(Exact(), Resized(16), Binned(batch_size=1), Fixed(16, crop=(0.1, 0.2)), Packed(tokens=1, crop=(0.1, 0.2))),
    ],
    ids=str,
)
def test_what_fits_to_the_last_pixel_and_what_holds_anything_is_not_refused(three: Samples, given: Any) -> None:
    assert refusal(three, given) is None


def test_images_as_large_as_their_type_can_say_are_measured_right() -> None:
    side = np.array([65535], np.uint16)
    samples = Samples("large", np.array([0, 1]), side, side, Bins((Bin(65536, 65536),), 16))
    assert "give side=65536 or" in str(refusal(samples, Fixed(16)))
    assert "give tokens=16777216, a larger" in str(refusal(samples, Packed(tokens=16)))


def test_an_image_is_found_wherever_it_lies(
    monkeypatch: pytest.MonkeyPatch, few_samples: Callable[..., Samples]
) -> None:
    """Samples are looked at a few at a time."""
    samples = few_samples(4)
    whole = [refusal(samples, given) for given in (Fixed(16), Packed(tokens=3, content=True))]
    assert all(whole)
    for few in (1, 7, len(samples) - 1, len(samples)):
        monkeypatch.setattr(sizes, "_CHUNK", few)
        assert [refusal(samples, given) for given in (Fixed(16), Packed(tokens=3, content=True))] == whole


# -------------------------------------------------------------------------------------------------- bins of a file


def test_bins_of_a_file_are_spelled_out_and_all_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "bins.json"
    path.write_text(json.dumps([[208, 208], [64, 208]]))
    made = Binned(str(path), tokens=99, group=2, per_step=4).settled()
    assert made == Binned("0064x0208+0208x0208", tokens=99, group=2, per_step=4)
    for other in (Binned("auto:3", tokens=99), Binned(tokens=99), Fixed(16), Packed()):
        assert other.settled() is other


@pytest.mark.parametrize("content", ["[[200, 208]]", "[", "[]"])
def test_bins_of_a_file_that_cannot_be_used_are_refused_by_its_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "bins.json"
    path.write_text(content)
    with pytest.raises(ArgumentError, match=f"bins '{path}' cannot be used: .+"):
        Binned(str(path), tokens=99).settled()


# ------------------------------------------------------------------------------------------------ how many images


@pytest.mark.parametrize(
    ("given", "images"),
    [
        (Packed(), 96),
        (Packed(tokens=8192), 32),
        (Packed(tokens=8191), 32),
        (Packed(tokens=8448), 33),
        (Packed(tokens=64), 32),
        (Packed(max_images=5), 5),
    ],
    ids=str,
)
def test_a_pack_holds_an_image_for_256_tokens_and_at_least_32(given: Any, images: int) -> None:
    assert given.capacity == images


# ------------------------------------------------------------------------------------- the bound that attention is told


VIEWS: list[dict[str, Any]] = [
    {},
    {"content": True},
    {"level": 1},
    {"level": 3, "content": True},
    {"crop": (0.3, 1.0), "flip": 0.5},
    {"crop": (1.0, 1.0), "ratio": (0.1, 10.0), "content": True, "level": 2},
]


def bounds(plan: EpochPlan) -> tuple[set[int], int]:
    """The bounds of all packs, and the most tokens that an image has."""
    micros = [micro for step in plan for micro in step]
    assert all(isinstance(micro.shape, Pack) for micro in micros)
    return {micro.shape.longest for micro in micros if isinstance(micro.shape, Pack)}, max(
        int(m.crops.tokens.max(initial=0)) for m in micros
    )


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_no_image_of_any_epoch_has_more_tokens_than_the_one_bound_of_all_packs(
    few_samples: Callable[..., Samples], view: dict[str, Any], seed: int
) -> None:
    samples = few_samples(seed)
    members = np.array([0, samples.starts[1], len(samples)])
    mixed = replace(samples, members=members, weights=(2.5, 1.0))
    for these in (samples, mixed):
        found = [bounds(EpochPlan(these, seed, epoch, Packed(tokens=10_112, patch=2, **view))) for epoch in range(3)]
        (bound,) = set.union(*(one for one, _ in found))
        most = max(most for _, most in found)
        assert most <= bound <= 10_112
        assert bound % 128 == 0
        assert "crop" in view or bound - 128 < most, "no more than rounding asks for"


def test_the_bound_is_of_the_split_and_never_above_the_pack(few_samples: Callable[..., Samples]) -> None:
    samples = few_samples(1)
    small = samples.select(samples.height * samples.width.astype(int) < 128 * 64, "small")
    (all_of_them,), _ = bounds(EpochPlan(samples, 0, 0, Packed(tokens=9000, patch=4)))
    (of_small,), most = bounds(EpochPlan(small, 0, 0, Packed(tokens=9000, patch=4)))
    assert most <= of_small < all_of_them
    (tight,), most = bounds(EpochPlan(small, 0, 0, Packed(tokens=most, patch=4)))
    assert tight == most


def test_an_image_above_the_bound_is_never_handed_out(few_samples: Callable[..., Samples]) -> None:
    """As an error of ours would have it: a GPU's attention would leave tokens out."""
    samples, batching = few_samples(0), Packed(tokens=3000, patch=4)
    shown = crops(samples, np.arange(len(samples)), batching.augmentation, 0)
    most = int(shown.tokens.max())
    PackedBatcher(3000, 32, 8, 4, 1, "fill", most).feed(shown)
    with pytest.raises(AssertionError, match=f"an image has {most} tokens, above {most - 1}"):
        PackedBatcher(3000, 32, 8, 4, 1, "fill", most - 1).feed(shown)


def test_what_a_plan_is_named_by_says_nothing_of_the_bound() -> None:
    assert str(Pack(10, 3, 7)) == str(Pack(10, 3)) == "Pack(tokens=10, images=3)"
    assert Pack(10, 3, 7) != Pack(10, 3), "they compile to other programs"
