"""Targets and errors, patch by patch: padding is nobody's pixel."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from trainer.models.sequences import Sequences, sequences, valid_pixels
from trainer.objectives.losses import losses, targets

SIZES = [(32, 24), (17, 32), (16, 16), (5, 1)]  # edges of half a patch, of a row, none, and an image of a sliver


@pytest.fixture(params=["packed", "binned"])
def of(request: pytest.FixtureRequest, make_packed: Any, make_binned: Any) -> Sequences:
    """Bright images with little contrast, as bone under a percentile window is."""
    packed, images = make_packed(SIZES, tokens=24)
    found = sequences(packed if request.param == "packed" else make_binned(images, SIZES, 48, 32, 5), 16)
    bright = torch.where(valid_pixels(found, 16), 0.8 + 0.01 * found.patches, found.patches)
    return replace(found, patches=bright)


def _real(of: Sequences) -> list[Tensor]:
    """Indices of the real pixels of every patch that has some, as (patch, pixel)."""
    valid = valid_pixels(of, 16)
    return [torch.stack([torch.full_like(p, i), p]) for i in range(len(valid)) if len(p := valid[i].nonzero()[:, 0])]


def test_every_patch_is_normalised_over_its_real_pixels_and_padding_is_nought(of: Sequences) -> None:
    found = targets(of, norm_pix=True)
    assert not found[~valid_pixels(of, 16)].any()
    counts = []
    for patch, pixel in _real(of):
        counts.append(len(pixel))
        assert found[patch, pixel].mean().abs() < 1e-3
        # 1e-6 of the variance, 8e-6 here, is the original's own.
        deviation = of.patches[patch, pixel].double().std(correction=1).item() if len(pixel) > 1 else 0.0
        wanted = deviation / (deviation**2 + 1e-6) ** 0.5
        assert found[patch, pixel].std().item() == pytest.approx(wanted, rel=1e-3)
    assert {5, 16, 128, 256} <= set(counts)


def test_whole_patches_are_the_original_s_to_the_last_bit(of: Sequences) -> None:
    whole = valid_pixels(of, 16).all(-1)
    pixels = of.patches[whole]
    original = (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + 1e-6).sqrt()
    assert whole.sum() == 5
    assert torch.equal(targets(of, norm_pix=True)[whole], original)
    assert torch.equal(targets(of, norm_pix=False), of.patches)


def test_what_lies_in_the_padding_changes_nothing(of: Sequences) -> None:
    prediction, masked = torch.rand(of.patches.shape), torch.ones(len(of.image), dtype=torch.bool)
    odd = replace(of, patches=torch.where(valid_pixels(of, 16), of.patches, 7.0))
    for norm_pix in (False, True):
        one, two = (losses(prediction, each, masked, 16, norm_pix) for each in (of, odd))
        assert torch.equal(one, two)


def test_a_patch_of_one_pixel_has_no_deviation_and_is_predicted_as_nought(make_packed: Any) -> None:
    of = sequences(make_packed([(17, 17)])[0], 16)
    assert valid_pixels(of, 16)[3].sum() == 1
    assert not targets(of, norm_pix=True)[3].any()


def test_a_sliver_weighs_as_much_as_a_whole_patch(make_packed: Any) -> None:
    """One whole patch and one of 16 pixels, wrong by 1 and by 3: the mean over patches, not over pixels."""
    of = sequences(make_packed([(16, 17)])[0], 16)
    prediction = of.patches.clone()
    prediction[0] += 1
    prediction[1] += 3
    found = losses(prediction, of, torch.ones(len(of.image), dtype=torch.bool), 16, norm_pix=False)
    assert found[0].item() == pytest.approx((1 + 9) / 2)
