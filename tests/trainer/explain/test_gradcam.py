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
from timm.models import ConvNeXt, SwinTransformer, register_model
from timm.models.convnext import convnext_tiny
from timm.models.swin_transformer import swin_tiny_patch4_window7_224
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError
from tests.trainer.explain.weights import SIDE, image, ours, tiny
from trainer.explain.gradcam import gradcam, see
from trainer.explain.maps import Frame, fine
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.hiera import HieraConfig
from trainer.models.vit import VitConfig


@register_model
def swin_micro(pretrained: bool = False, **changes: Any) -> SwinTransformer:
    """timm's own code with few parameters, by a name that only these tests know."""
    small: dict[str, Any] = {"embed_dim": 12, "depths": (1, 1), "num_heads": (2, 2), "window_size": 4}
    made = swin_tiny_patch4_window7_224(pretrained, **{**small, **changes})
    assert isinstance(made, SwinTransformer)
    return made


@register_model
def convnext_micro(pretrained: bool = False, img_size: object = None, **changes: Any) -> ConvNeXt:
    """As above, of any size."""
    made = convnext_tiny(pretrained, **{"depths": (1, 1, 1, 1), "dims": (8, 12, 16, 24), **changes})
    assert isinstance(made, ConvNeXt)
    return made


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


@pytest.mark.parametrize("pool", ["token", "mean"])
def test_a_bins_padding_is_left_out_so_that_maps_are_those_of_a_pack(
    pool: Literal["token", "mean"], make_packed: Packed, make_binned: Binned
) -> None:
    model = classifier(pool)
    packed, images = make_packed(SIZES[:2])
    batch = make_binned(images, SIZES[:2], 96, 96, 3)
    seen = see(model, BinnedBatch(batch.images.double(), batch.sizes, batch.rows, batch.seeds, batch.position))
    assert [len(seen.tokens.of(slot)) for slot in range(3)] == [12, 10, 0]
    cam, own = gradcam(seen, torch.tensor([1, 1, 0])), see(model, _double(packed))
    for slot in (0, 1):
        wanted = own.tokens.grid(gradcam(own, torch.ones(6, dtype=torch.int64)), slot)
        assert torch.allclose(seen.tokens.grid(cam, slot), wanted, atol=1e-6 * float(wanted.max()) + 1e-12)


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


@pytest.mark.parametrize(("name", "pool"), [("resnet10t", "mean"), ("vit_tiny_patch16_224", "own"), ("hiera", "mean")])
def test_models_of_timm_have_the_map_of_their_own_gradients(
    name: str, pool: Literal["mean", "own"], make_binned: Binned
) -> None:
    """Of a convolutional network and Hiera by the last features; of a transformer as of ours."""
    torch.manual_seed(5)
    side, places = 96, 3
    config: Any = HieraConfig(arch="hiera_micro", side=side) if name == "hiera" else TimmConfig(name=name, side=side)
    model = Classifier(config.encoder(last_norm=True), 4, HeadConfig(pool=pool, norm=False, std=0.5))
    model.eval().requires_grad_(False)
    sizes = [(side, side), (60, side)]
    batch = make_binned([torch.rand(size) for size in sizes], sizes, side, side, places)
    seen = see(model, batch)
    cam = gradcam(seen, torch.tensor([1, 2, 0]))
    own: Any = model.encoder
    for slot, number in enumerate((1, 2)):
        picture, grid = batch.images[slot : slot + 1], seen.tokens.grid(cam, slot)
        if pool == "own":
            wanted = _by_block(own.encoder, model, picture, number, side)
        else:
            x = own.layout.tokens(own.encoder.forward_features(picture))[0].detach()
            real = torch.arange(len(x)) < own.layout.cols * -(-sizes[slot][0] * own.layout.rows // side)
            leaf = x[real].requires_grad_()
            gradient = torch.autograd.grad(model.head.fc(leaf.mean(0))[number], leaf)[0]
            wanted = (leaf.detach() * gradient.mean(0)).sum(1).clamp(min=0).view(-1, own.layout.cols)
        assert grid.shape == wanted.shape
        assert torch.allclose(grid, wanted, atol=1e-5 * float(wanted.max()))
    assert len(seen.tokens.of(2)) == 0


@pytest.mark.parametrize(
    ("name", "layer", "channels", "stride"),
    [
        ("swin_micro", "encoder.layers.-1.blocks.-1.norm1", -1, 8),
        ("swin_micro", "encoder.patch_embed.proj", 1, 4),
        ("convnext_micro", "encoder.stages.-1.blocks.-1.norm", -1, 32),
        ("convnext_micro", "encoder.stages.0.blocks.-1.conv_dw", 1, 4),
    ],
)
def test_maps_with_channels_first_and_last_are_found_in_either_kind_of_model(
    name: str, layer: str, channels: int, stride: int, make_binned: Binned
) -> None:
    """Swin has channels last and a convolution within; ConvNeXt has them first, and last within its blocks."""
    torch.manual_seed(6)
    side = 64
    model = Classifier(TimmConfig(name=name, side=side).encoder(), 4, HeadConfig(std=0.5)).eval().requires_grad_(False)
    batch = make_binned([torch.rand(side, side)], [(side, side)], side, side, 1)
    seen = see(model, batch, layer)
    grid = seen.tokens.grid(gradcam(seen, torch.tensor([2])), 0)
    a, g = seen.activations.detach(), torch.autograd.grad(seen.scores[0, 2], seen.activations, retain_graph=True)[0]
    a, g = (x[0].movedim(channels - (channels > 0), -1) for x in (a, g))
    wanted = (a * g.mean((0, 1))).sum(-1).clamp(min=0)
    assert seen.tokens.stride == stride
    assert grid.shape == wanted.shape == (side // stride, side // stride)
    assert wanted.max() > 0
    assert torch.allclose(grid, wanted, atol=1e-6 * float(wanted.max()))


def test_what_is_no_even_grid_over_the_image_is_refused(make_binned: Binned) -> None:
    side = 100
    model = Classifier(TimmConfig(name="resnet10t", side=side).encoder(), 4, HeadConfig()).eval().requires_grad_(False)
    batch = make_binned([torch.rand(side, side)], [(side, side)], side, side, 1)
    assert see(model, batch, "encoder.layer1").tokens.stride == 4
    with pytest.raises(ArgumentError, match=r"layer2 has an output of \(1, 128, 13, 13\), which has no place in an"):
        see(model, batch, "encoder.layer2")


def _by_block(encoder: Any, model: Classifier, picture: Tensor, number: int, side: int) -> Tensor:
    """Return Grad-CAM of the last block's first norm, over the real rows of a picture of 60 or `side` rows."""
    kept: list[Tensor] = []

    def keep(module: Any, given: Any, output: Tensor) -> Tensor:
        kept.append(output.detach().requires_grad_())
        return kept[-1]

    hook = encoder.blocks[-1].norm1.register_forward_hook(keep)
    score = model.head.fc(encoder.forward_head(encoder.forward_features(picture), pre_logits=True))[0, number]
    hook.remove()
    gradient = torch.autograd.grad(score, kept[0])[0][0, 1:]
    rows = side // 16 if picture[0, 0, 60:].any() else 4
    own = rows * side // 16
    return (kept[0].detach()[0, 1 : 1 + own] * gradient[:own].mean(0)).sum(1).clamp(min=0).view(rows, -1)


def test_a_head_that_takes_the_class_token_has_no_map_of_the_features(make_packed: Packed) -> None:
    with pytest.raises(ArgumentError, match="takes the class token and no patch: name another --layer than features"):
        see(classifier("token"), _double(make_packed(SIZES[:1])[0]), "features")


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
