"""Grad-CAM: against pytorch-grad-cam's values, against timm's own gradients in float64, and in packs of mixed sizes.

`gradcam.npz` holds maps of pytorch-grad-cam 1.5.7 (timm 1.0.31), every eighth row and column from the fourth of 224 x
224: `GradCAM(tiny(pool), [model.blocks[-1].norm1], reshape_transform=tokens without the first, as (B, C, 14, 14))`,
of `ClassifierOutputTarget(0, 2, 4)`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError
from tests.trainer.explain.weights import SIDE, image, ours, tiny
from trainer.explain.gradcam import gradcam, see
from trainer.explain.maps import Frame, fine
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.vit import VitConfig

ORACLE = np.load(Path(__file__).with_name("gradcam.npz"))
SIZES = [(64, 48), (30, 77), (16, 16), (90, 40)]
Packed = Callable[..., tuple[PackedBatch, list[Tensor]]]
Binned = Callable[..., BinnedBatch]


def classifier(pool: Literal["token", "mean"] = "mean", seed: int = 3) -> Classifier:
    """Return a small one with random weights, its head large enough that gradients differ."""
    torch.manual_seed(seed)
    config = VitConfig(patch=16, width=32, depth=3, heads=4)
    made = Classifier(config.encoder(last_norm=pool == "token"), 4, HeadConfig(pool=pool, norm=pool == "mean", std=0.5))
    return made.eval().requires_grad_(False).double()


def by_hand(model: Any, picture: Tensor, number: int) -> Tensor:
    """Return Grad-CAM of timm's model, written out: (rows, cols) of patches."""
    kept: list[Tensor] = []

    def keep(module: Any, given: Any, output: Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    hook = model.blocks[-1].norm1.register_forward_hook(keep)
    model(picture[None, None])[0, number].backward()
    hook.remove()
    gradient = kept[0].grad
    assert gradient is not None
    a, g = kept[0].detach()[0, 1:], gradient[0, 1:]
    return (a * g.mean(0)).sum(1).clamp(min=0).view(picture.shape[0] // 16, -1)


@pytest.mark.parametrize("pool", ["token", "mean"])
@pytest.mark.parametrize("number", [0, 2, 4])
def test_maps_are_those_of_pytorch_grad_cam(pool: Literal["token", "mean"], number: int, make_binned: Binned) -> None:
    seen = see(ours(pool, tiny(pool)), make_binned([image()], [(SIDE, SIDE)], SIDE, SIDE, 1))
    found = fine(seen.tokens.grid(gradcam(seen, torch.tensor([number])), 0), 16, Frame(0, 0, 1, 1, SIDE, SIDE))
    assert found.values.shape == (SIDE, SIDE)
    assert np.abs(found.values[::8, 4::8] - ORACLE[f"{pool}_{number}"]).max() < 2e-5


def test_the_oracles_maps_are_not_all_alike() -> None:
    assert not ORACLE["token_2"].any(), "nothing speaks for the class"
    assert 0 < (ORACLE["token_4"] == 0).mean() < 0.1, "some of it is cut off"
    assert np.abs(ORACLE["token_0"] - ORACLE["mean_0"]).max() > 2e-3


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_tokens_have_the_values_of_timms_own_gradients_in_float64(
    pool: Literal["token", "mean"], make_binned: Binned
) -> None:
    theirs = tiny(pool)
    model = ours(pool, theirs).double()
    batch = make_binned([image().double()], [(SIDE, SIDE)], SIDE, SIDE, 1)
    seen = see(model, BinnedBatch(batch.images.double(), batch.sizes, batch.rows, batch.seeds, batch.position))
    found = seen.tokens.of(0)
    value = gradcam(seen, torch.tensor([4]))[found].view(14, 14)
    wanted = by_hand(theirs.double(), image().double(), 4)
    assert wanted.max() > 0
    assert ((value - wanted).abs().max() / wanted.max()).item() < 1e-5  # positions are float32


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_a_pack_of_mixed_sizes_gives_each_image_the_map_that_it_has_alone(
    pool: Literal["token", "mean"], make_packed: Packed
) -> None:
    model = classifier(pool)
    together, images = make_packed(SIZES, tokens=96)
    classes = torch.tensor([2, 0, 1, 3, 0, 0])
    seen = see(model, _double(together))
    cam = gradcam(seen, classes)
    for slot, (size, picture) in enumerate(zip(SIZES, images, strict=True)):
        alone, _ = make_packed([size], tokens=64, seed=9, pixels=lambda h, w, p=picture: p[:h, :w])
        own = see(model, _double(alone))
        wanted = own.tokens.grid(gradcam(own, classes[slot].repeat(6)), 0)
        found = seen.tokens.grid(cam, slot)
        assert found.shape == (-(-size[0] // 16), -(-size[1] // 16))
        assert torch.allclose(found, wanted, atol=1e-6 * float(wanted.max()) + 1e-12)
    one_by_one = seen.tokens.grid(gradcam(seen, torch.zeros(6, dtype=torch.int64)), 0)
    assert not torch.allclose(one_by_one, seen.tokens.grid(cam, 0)), "another class, another map"


def test_padding_of_a_bin_is_left_out(make_packed: Packed, make_binned: Binned) -> None:
    model = classifier()
    _, images = make_packed(SIZES[:2])
    batch = make_binned(images, SIZES[:2], 96, 96, 3)
    seen = see(model, BinnedBatch(batch.images.double(), batch.sizes, batch.rows, batch.seeds, batch.position))
    assert [len(seen.tokens.of(slot)) for slot in range(3)] == [12, 10, 0]
    assert seen.tokens.grid(gradcam(seen, torch.tensor([1, 1, 0])), 1).shape == (2, 5)


def test_the_features_layer_of_a_mean_is_the_gradient_of_the_head(make_packed: Packed) -> None:
    model = classifier()
    batch, _ = make_packed(SIZES[:1])
    seen = see(model, _double(batch), "features")
    features = model.encoder.features(_double(batch))
    leaf = features.tokens[:12].clone().requires_grad_()
    score = model.head.fc(model.head.fc_norm(leaf.mean(0)))[1]
    weight = torch.autograd.grad(score, leaf)[0].mean(0)
    wanted = (leaf.detach() * weight).sum(1).clamp(min=0)
    assert torch.allclose(gradcam(seen, torch.tensor([1] * 6))[:12], wanted)


def test_a_layer_is_named_from_the_end_and_a_wrong_one_is_refused(make_packed: Packed) -> None:
    model, (batch, _) = classifier(), make_packed(SIZES[:1])
    by_name = gradcam(see(model, _double(batch), "blocks.2.norm1"), torch.zeros(6, dtype=torch.int64))
    assert torch.equal(by_name, gradcam(see(model, _double(batch)), torch.zeros(6, dtype=torch.int64)))
    assert torch.equal(by_name, gradcam(see(model, _double(batch), "blocks[-1].norm1"), torch.zeros(6).long()))
    with pytest.raises(ArgumentError, match=r"no --layer blocks.7: behind '7' there should be one of 0, 1, 2"):
        see(model, batch, "blocks.7")
    with pytest.raises(ArgumentError, match=r"--layer patch_embed.proj does not run on the way"):
        see(model, _double(batch), "patch_embed.proj")


def _double(batch: PackedBatch) -> PackedBatch:
    values = {name: getattr(batch, name) for name in ("yx", "image", "cu_seqlens", "hw", "rows", "seeds", "position")}
    return PackedBatch(batch.patches.double(), **values)
