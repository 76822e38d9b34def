"""Corrupted images against a loop over pixels, the published histogram, and corruptions that are wrong in one thing."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchPosition
from trainer.augment.draws import draws
from trainer.models.masking import hashed
from trainer.objectives import corruption
from trainer.objectives.corruption import Corrupted, CorruptionConfig, blocks, corrupt, noise

SIDE, COUNT = 48, 40
MEAN, DEVIATION = 0.45, 0.2
THERE = torch.tensor([place % 5 != 4 for place in range(COUNT)])
SEEDS = torch.arange(COUNT) * 7919 + 3
GMML, SIT = CorruptionConfig(), CorruptionConfig(fill="zeros", cover=(0.5, 0.5))


def _images(channels: int = 1) -> Tensor:
    """Normalised images without a common pixel, but for a black corner that becomes 0 exactly."""
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(COUNT, 1, SIDE, SIDE, generator=drawn, dtype=torch.float64) + 1
    images[:, :, : SIDE // 2, : SIDE // 2] = 0
    images[~THERE] = 0
    return images.expand(-1, channels, -1, -1)


def _corrupt(images: Tensor, seeds: Tensor, there: Tensor, config: CorruptionConfig) -> Corrupted:
    sizes = torch.full((len(seeds), 2), SIDE)
    view = BinnedBatch(images[:, :1], sizes, there.long() - 1, seeds, BatchPosition(0, 0, 0, 1, True))
    return corrupt(images, view, config)


def _by_hand(images: Tensor, config: CorruptionConfig, wrong: str = "") -> tuple[Tensor, Tensor]:
    """Image by image, pixel by pixel; `wrong` names one thing that is not as it should be."""
    out, masks = images.clone(), torch.zeros(COUNT, 1, SIDE, SIDE, dtype=torch.bool)
    held = [place for place in range(COUNT) if THERE[place]]
    donors = [*range(COUNT)] if wrong == "donors from empty places" else held
    if wrong == "align 16":
        config = CorruptionConfig(fill=config.fill, cover=config.cover, align=16)
    for place in held:
        rng = draws(int(SEEDS[place]), "corruption")
        share, swapped = rng.uniform(*config.cover), rng.random() < config.replace
        own, other = noise(SEEDS[place : place + 1], images[:1])[0], torch.zeros_like(images[0])
        if wrong == "before normalisation":
            own, other = (own - MEAN) / DEVIATION, other - MEAN / DEVIATION
        if wrong == "one noise for all channels":
            own = own[:1].expand_as(own)
        fill = own if config.fill == "noise" else other
        if swapped:
            if wrong == "noise and replacement":
                mask = blocks(Random(place), SIDE, SIDE, share, config)
                out[place][:, mask], masks[place, 0] = fill[:, mask], torch.from_numpy(mask)
            share, donor = config.replaced, images[rng.choice(donors)]
            fill = donor.roll(5, 2) if wrong == "another place of the donor" else donor
            if wrong == "donor resized":
                part = donor[None, :, : SIDE // 2]
                fill = torch.nn.functional.interpolate(part, (SIDE, SIDE), mode="bilinear", antialias=True)[0]
        mask = blocks(rng, SIDE, SIDE, share, config)
        for row, col in np.argwhere(mask):
            out[place, :, row, col], masks[place, 0, row, col] = fill[:, row, col], True
        if wrong == "mask of what differs":
            masks[place] = (out[place] != images[place]).any(0)
    return out, masks


def _broken(images: Tensor, out: Tensor, masks: Tensor, config: CorruptionConfig) -> set[str]:
    """Return which of the published corruption's properties do not hold."""
    found, edges, fills = set(), [], []
    if (out != images)[~masks.expand_as(out)].any() or masks[~THERE].any():
        found.add("outside")
    for place in (place for place in range(COUNT) if THERE[place]):
        mask, own = masks[place, 0], out[place][:, masks[place, 0]]
        same = {other: own == images[other][:, mask] for other in range(COUNT) if THERE[other]}
        swapped = any(equal.all() for equal in same.values())
        if not swapped:
            fills.append(own)
            lit = images[place][:, mask] > 0
            if any((equal & lit).any() for equal in same.values()):
                found.add("both")
        if config.fill == "noise" and not own.any():
            found.add("donor")
        low, high = (config.replaced,) * 2 if swapped else config.cover
        if not low <= float(mask.double().mean()) <= high + 0.08:
            found.add("share")
        edges.append(mask[1:] != mask[:-1])
    if torch.stack(edges).any(0).any(1).nonzero().flatten().add(1).remainder(16).eq(0).all():
        found.add("edges")
    values = torch.cat(fills, 1)
    wanted = 1.0 if config.fill == "noise" else 0.0
    if abs(float(values.mean())) > 0.05 or abs(float(values.std()) - wanted) > 0.05:
        found.add("fill")
    if len(values) > 1 and config.fill == "noise" and torch.corrcoef(values)[0, 1].abs() > 0.1:
        found.add("channels")
    return found


WRONG = {
    "noise and replacement": "both",
    "align 16": "edges",
    "before normalisation": "fill",
    "donors from empty places": "donor",
    "another place of the donor": "fill",
    "donor resized": "fill",
    "one noise for all channels": "channels",
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("config", [GMML, SIT], ids=["noise", "zeros"])
def test_it_is_what_a_loop_over_pixels_makes_and_has_the_published_properties(
    config: CorruptionConfig, channels: int
) -> None:
    images = _images(channels)
    found, (out, masks) = _corrupt(images, SEEDS, THERE, config), _by_hand(images, config)
    assert torch.equal(found.images, out)
    assert torch.equal(found.mask, masks)
    assert _broken(images, out, masks, config) == set()


@pytest.mark.parametrize("wrong", WRONG)
def test_a_corruption_that_is_wrong_in_one_thing_is_told(wrong: str) -> None:
    images = _images(3)
    out, masks = _by_hand(images, GMML, wrong)
    assert WRONG[wrong] in _broken(images, out, masks, GMML)
    assert not torch.equal(out, _corrupt(images, SEEDS, THERE, GMML).images)


def test_the_mask_is_of_blocks_and_not_of_what_they_change() -> None:
    """Zeros on a black background change nothing, and are still to be repaired; so is one's own pixels."""
    images = _images()
    right, (_, differing) = _corrupt(images, SEEDS, THERE, SIT), _by_hand(images, SIT, "mask of what differs")
    assert torch.equal(right.mask & (right.images != images), differing)
    shares = right.mask[THERE].double().mean((1, 2, 3))
    assert shares.min() >= 0.3
    assert differing[THERE].double().mean((1, 2, 3)).min() < 0.3
    alone = torch.zeros(COUNT, dtype=torch.bool)
    alone[3] = True
    own = _corrupt(images, SEEDS, alone, CorruptionConfig(replace=1.0))
    assert torch.equal(own.images, images)
    assert own.mask[3].double().mean() >= 0.3
    assert not own.mask[~alone].any()


def _histogram(count: int = 300, side: int = 224) -> dict[str, float]:
    """Coverage of the two branches, of the published share drawn evenly, by itself."""
    found: dict[str, list[float]] = {"noise": [], "replacement": [], "zeros": [], "rim": []}
    rim = np.ones((side, side), bool)
    rim[16:-16, 16:-16] = False
    for seed in range(count):
        rng = draws(seed, "histogram")
        mask = corruption.blocks(rng, side, side, rng.uniform(*GMML.cover), GMML)
        found["noise"].append(mask.mean())
        found["rim"].append(mask[rim].mean())
        found["replacement"].append(corruption.blocks(rng, side, side, GMML.replaced, GMML).mean())
        found["zeros"].append(corruption.blocks(rng, side, side, 0.5, SIT).mean())
    mean = {name: float(np.mean(values)) for name, values in found.items()}
    ends = {f"{name} {at}": float(f(values)) for name, values in found.items() for at, f in (("<", min), (">", max))}
    return {**mean, **ends, "mixture": (mean["noise"] + mean["replacement"]) / 2}


# mean coverage, least and greatest; the deviation of the mean of 300 is .005, and of the ends about .01
GOLDEN = {
    "noise": (0.636, 0.015), "noise <": (0.506, 0.015), "noise >": (0.779, 0.03),
    "replacement": (0.314, 0.005), "replacement <": (0.300, 0.001), "replacement >": (0.365, 0.02),
    "zeros": (0.510, 0.005), "zeros <": (0.500, 0.001), "zeros >": (0.559, 0.02),
    "mixture": (0.475, 0.01), "rim": (0.457, 0.025),
}  # fmt: skip


def _missed(found: dict[str, float]) -> set[str]:
    return {name for name, (wanted, by) in GOLDEN.items() if abs(found[name] - wanted) > by}


def test_coverage_has_the_published_histogram() -> None:
    assert _missed(_histogram()) == set()


def _twice(rng: Random, height: int, width: int, share: float, config: CorruptionConfig) -> Any:
    mask, painted = np.zeros((height, width), bool), 0
    while painted < share * height * width:
        row, col = rng.randrange(height), rng.randrange(width)
        block = mask[row : row + rng.randrange(1, 67), col : col + rng.randrange(1, 67)]
        painted, block[...] = painted + block.size, True
    return mask


def _inside(rng: Random, height: int, width: int, share: float, config: CorruptionConfig) -> Any:
    mask = np.zeros((height, width), bool)
    while mask.mean() < share:
        rows, cols = rng.randrange(1, 67), rng.randrange(1, 67)
        row, col = rng.randrange(height - rows + 1), rng.randrange(width - cols + 1)
        mask[row : row + rows, col : col + cols] = True
    return mask


def _large(rng: Random, height: int, width: int, share: float, config: CorruptionConfig) -> Any:
    return blocks(rng, height, width, share, CorruptionConfig(largest=0.6))


def _aligned(rng: Random, height: int, width: int, share: float, config: CorruptionConfig) -> Any:
    return blocks(rng, height, width, share, CorruptionConfig(align=16))


@pytest.mark.parametrize(
    ("wrong", "told"), [(_twice, "noise"), (_inside, "rim"), (_large, "zeros"), (_aligned, "replacement <")]
)
def test_other_ways_to_paint_have_another_histogram(wrong: Any, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corruption, "blocks", wrong)
    assert told in _missed(_histogram(150))


def test_an_image_is_corrupted_the_same_whatever_other_places_hold_but_for_its_donor() -> None:
    images, plain = _images(), CorruptionConfig(replace=0.0)
    whole = _corrupt(images, SEEDS, THERE, plain)
    part = _corrupt(images[5:8], SEEDS[5:8], THERE[5:8], plain)
    assert torch.equal(whole.images[5:8], part.images)
    assert torch.equal(whole.mask[5:8], part.mask)
    assert not _corrupt(images, SEEDS, torch.zeros_like(THERE), GMML).mask.any()


def test_noise_is_normal_and_independent_of_what_else_a_seed_draws() -> None:
    found = noise(torch.tensor([5, 6]), torch.zeros(2, 2, 64, 64, dtype=torch.float64)).flatten(1)
    assert found.mean().abs() < 0.02
    assert (found.std() - 1).abs() < 0.02
    assert (found.abs() > 2).double().mean() == pytest.approx(0.0455, abs=0.01)
    channels = torch.corrcoef(found.view(4, -1))  # two of each image
    assert (channels - torch.eye(4)).abs().max() < 0.05
    patches = hashed(torch.tensor([[5], [6]]), torch.arange(found.shape[1])[None])
    assert torch.corrcoef(torch.cat([found, patches]))[:2, 2:].abs().max() < 0.03


@pytest.mark.parametrize(
    "values", [{"cover": (0.8, 0.5)}, {"cover": (0.5, 1.0)}, {"replace": 2.0}, {"replaced": 0.0}, {"align": 0}]
)
def test_values_by_which_nothing_can_be_covered_are_refused(values: Any) -> None:
    with pytest.raises(ArgumentError, match=r"--objective\.corruption"):
        CorruptionConfig(**values)
