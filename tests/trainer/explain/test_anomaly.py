"""Anomaly maps: every patch hidden in every round, hidden patches only, in packs as alone, with norm_pix, of Hiera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError
from trainer.explain.anomaly import anomaly, drawn, masks_a_round
from trainer.models.hiera import HieraConfig
from trainer.models.mae import Mae, MaeConfig
from trainer.models.masking import draw
from trainer.models.sequences import sequences

SIZES = [(64, 48), (30, 77), (8, 8), (72, 40)]
CONFIG = MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
Packed = Callable[..., tuple[PackedBatch, list[Tensor]]]


def built(config: MaeConfig = CONFIG) -> Mae:
    torch.manual_seed(1)
    return config.build().eval()


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.6, 0.75, 0.9, 0.99])
def test_each_round_hides_every_patch_and_each_mask_as_many_as_in_training(ratio: float, make_packed: Packed) -> None:
    of = sequences(make_packed(SIZES, patch=8, tokens=256)[0], 8)
    a_round, image = masks_a_round(ratio), of.image.long()
    for turn in range(3):
        times = torch.zeros(len(image))
        for part in range(a_round):
            masked = draw(of, ratio, drawn(of, ratio, turn * a_round + part)).masked
            hidden = torch.bincount(image[masked], minlength=6)[:4]
            assert hidden.tolist() == [n - int(n * (1 - ratio)) for n in of.lengths[:4].tolist()]
            times += masked
        assert times[image < 4].min() >= 1
    assert a_round == int(np.ceil(1 / ratio))


def test_fewer_masks_than_a_round_has_would_miss_some(make_packed: Packed) -> None:
    of = sequences(make_packed(SIZES, patch=8, tokens=256)[0], 8)
    one = draw(of, 0.75, drawn(of, 0.75, 0)).masked
    plain = one | draw(replace(of, seeds=of.seeds + 1), 0.75).masked  # two masks that do not know of each other
    assert not plain[of.image < 4].all()


def test_rounds_differ_and_follow_the_seed(make_packed: Packed) -> None:
    of = sequences(make_packed(SIZES, patch=8, tokens=256)[0], 8)
    assert not torch.equal(drawn(of, 0.75, 0), drawn(of, 0.75, 2))
    assert not torch.equal(drawn(of, 0.75, 0), drawn(replace(of, seeds=of.seeds + 1), 0.75, 0))
    assert torch.equal(drawn(of, 0.75, 7), drawn(of, 0.75, 7))


@pytest.mark.parametrize("norm_pix", [False, True])
def test_a_pack_of_mixed_sizes_gives_each_image_the_map_that_it_has_alone(norm_pix: bool, make_packed: Packed) -> None:
    model = built(replace(CONFIG, norm_pix=norm_pix))
    together, images = make_packed(SIZES, patch=8, tokens=256)
    found = anomaly(model, together, 4)
    for slot, (size, picture) in enumerate(zip(SIZES, images, strict=True)):
        alone, _ = make_packed([size], patch=8, tokens=128, pixels=lambda h, w, p=picture: p[:h, :w])
        seeds = alone.seeds.clone()
        seeds[0] = together.seeds[slot]
        wanted = anomaly(model, replace(alone, seeds=seeds), 4)
        for name in ("patches", "losses"):
            grid = found.tokens.grid(getattr(found, name), slot)
            assert torch.allclose(grid, wanted.tokens.grid(getattr(wanted, name), 0), atol=1e-5)


def test_errors_are_means_over_the_masks_that_hid_a_patch(make_packed: Packed) -> None:
    model, (batch, _) = built(), make_packed(SIZES, patch=8, tokens=256)
    of, found = sequences(batch, 8), anomaly(model, batch, 3)  # whole rounds: four
    own = torch.nonzero(of.image == 1).flatten()
    outs = [model(of, drawn(of, 0.75, number)) for number in range(4)]
    for at in own.tolist()[:12]:
        rows, cols = (min(8, side - 8 * int(yx)) for side, yx in zip(SIZES[1], of.yx[at], strict=True))
        target = of.patches[at].view(8, 8)
        hidden = [out.prediction[at].view(8, 8) for out in outs if out.masked[at]]
        errors = torch.stack([(made - target).abs() for made in hidden]).mean(0)[:rows, :cols]
        assert torch.allclose(found.pixels[at].view(8, 8)[:rows, :cols], errors, atol=1e-6)
        assert found.pixels[at].view(8, 8)[rows:].sum() == 0, "padding has no error"
        assert found.patches[at].item() == pytest.approx(errors.mean().item(), rel=1e-4)
        assert found.times[at] == len(hidden)
        every = torch.stack([(out.prediction[at].view(8, 8) - target).abs() for out in outs]).mean(0)[:rows, :cols]
        if len(hidden) < 4:
            assert not torch.allclose(errors, every, atol=1e-6), "visible patches would change it"


def test_with_norm_pix_errors_are_brought_back_to_grey_levels(make_packed: Packed) -> None:
    model = built(replace(CONFIG, norm_pix=True))
    batch, _ = make_packed([(64, 48)], patch=8, tokens=64)
    found = anomaly(model, batch, 2)
    of = sequences(batch, 8)
    deviation = of.patches[:48].std(-1)
    normalised = [model(of, drawn(of, 0.75, n)) for n in range(2)]
    at = 5
    target = (of.patches[at] - of.patches[at].mean()) / (of.patches[at].var() + 1e-6).sqrt()
    hidden = [out.prediction[at] for out in normalised if out.masked[at]]
    error = torch.stack([(made - target).abs() for made in hidden]).mean()
    assert found.patches[at].item() == pytest.approx((error * deviation[at]).item(), rel=1e-3)


def test_hieras_mask_units_are_hidden_whole_and_all_of_them() -> None:
    config = HieraConfig(
        arch="hiera_micro", side=96, decoder_width=32, decoder_depth=1, decoder_heads=2, mask_ratio=0.6
    )
    torch.manual_seed(0)
    model = config.build().eval()
    from tests.trainer.conftest import HERE

    batch = BinnedBatch(
        torch.rand(2, 1, 96, 96), torch.tensor([[96, 96], [80, 96]]), torch.tensor([0, 1]), torch.tensor([3, 4]), HERE
    )
    found = anomaly(model, batch, 4)
    times = found.times.view(2, 3, 2, 3, 2)
    assert times.min() >= 1
    assert torch.equal(times[:, :, :1, :, :1].expand_as(times), times), "one number for all patches of a unit"
    assert [tuple(found.tokens.grid(found.patches, slot).shape) for slot in (0, 1)] == [(6, 6), (5, 6)]


def test_a_model_without_a_decoder_or_that_hides_nothing_is_refused(make_packed: Packed) -> None:
    batch, _ = make_packed([(16, 16)], patch=8, tokens=64)
    with pytest.raises(ArgumentError, match="need a run of a masked autoencoder, with its decoder"):
        anomaly(CONFIG.encoder(), batch, 2)
    with pytest.raises(ArgumentError, match=r"mask-ratio is 0"):
        anomaly(built(replace(CONFIG, mask_ratio=0.0)), batch, 2)
