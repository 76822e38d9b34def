"""Attention roll-out: against whole matrices in float64, and in packs of mixed sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.errors import ArgumentError
from trainer.explain.rollout import rollout
from trainer.models.backbone import TimmConfig
from trainer.models.base import Model
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig, VitEncoder

SIZES = [(64, 48), (30, 77), (8, 8), (72, 40)]
CONFIG = VitConfig(patch=8, width=32, depth=3, heads=4)
Packed = Callable[..., tuple[PackedBatch, list[Tensor]]]


def encoder() -> VitEncoder:
    torch.manual_seed(2)
    model = CONFIG.encoder()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight.mul_(4)  # type: ignore[union-attr, operator]  # attention that is not all alike
    return model.eval()


def by_matrices(model: VitEncoder, picture: Tensor, size: tuple[int, int], by: str, dense: Any) -> Tensor:
    """Write roll-out out, with matrices of all tokens: (patches,)."""
    made = dense(model)
    rows, cols = picture.shape[0] // 8, picture.shape[1] // 8
    patches = picture.double().view(rows, 8, cols, 8).permute(0, 2, 1, 3).reshape(rows * cols, 64)
    weight = made.p["patch_embed.proj.weight"].flatten(1)
    x = patches @ weight.T + made.p["patch_embed.proj.bias"] + made.table(rows, cols, 32)
    x = torch.cat([made.p["cls_token"][0], x])
    product = torch.eye(len(x), dtype=torch.float64)
    for i in range(CONFIG.depth):
        qkv = made.linear(made.norm(x, f"blocks.{i}.norm1"), f"blocks.{i}.attn.qkv")
        q, k, _ = qkv.view(len(x), 3, 4, -1).permute(1, 2, 0, 3)
        attention = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(-1).mean(0) + torch.eye(len(x))
        product = (attention / attention.sum(-1, keepdim=True)) @ product
        x = made.block(x, f"blocks.{i}", 4)
    return product[0, 1:] if by == "token" else product[1:].mean(0)[1:]


@pytest.mark.parametrize("by", ["token", "mean"])
def test_shares_are_those_of_the_product_of_whole_matrices(
    by: Literal["token", "mean"], make_packed: Packed, dense: Any
) -> None:
    model = encoder()
    batch, images = make_packed(SIZES, patch=8, tokens=256)
    share, tokens = rollout(model, batch, by)
    exact = encoder().double()
    for slot, (size, picture) in enumerate(zip(SIZES, images, strict=True)):
        wanted = by_matrices(exact, picture, size, by, dense).detach()
        found = tokens.grid(share, slot).flatten().double()
        assert torch.allclose(found, wanted, rtol=1e-4)
        assert 0.5 < found.sum() <= 1
    whole = rollout(model, batch, "token" if by == "mean" else "mean")[0]
    assert not torch.allclose(share, whole, rtol=1e-2), "another output, another share"


def test_a_bins_padding_is_left_out(make_packed: Packed, make_binned: Callable[..., BinnedBatch]) -> None:
    packed, images = make_packed(SIZES, patch=8, tokens=256)
    share, tokens = rollout(encoder(), packed, "mean")
    of, places = rollout(encoder(), make_binned(images, SIZES, 80, 80, 5), "mean")
    for slot in range(4):
        assert torch.allclose(places.grid(of, slot), tokens.grid(share, slot), rtol=1e-4)
    assert len(places.of(4)) == 0


def test_a_pre_trained_run_is_rolled_out_whole(make_packed: Packed) -> None:
    torch.manual_seed(0)
    model = MaeConfig(patch=8, width=32, depth=2, heads=4, decoder_width=16, decoder_depth=1, decoder_heads=2).build()
    batch, _ = make_packed(SIZES, patch=8, tokens=256)
    share, tokens = rollout(model.eval(), batch, "mean")
    assert [len(tokens.of(slot)) for slot in range(6)] == [48, 40, 1, 45, 0, 0]
    assert share[tokens.image < 4].min() > 0, "nothing was hidden"
    assert not any(m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize(
    ("name", "method"), [("hiera", "gradcam"), ("vit_tiny_patch16_224", "gradcam"), ("masked hiera", "anomaly")]
)
def test_other_encoders_are_refused_as_not_ours_with_a_method_that_they_have(
    name: str, method: str, make_packed: Packed
) -> None:
    hiera = HieraConfig(arch="hiera_micro", side=96, decoder_width=32, decoder_depth=1, decoder_heads=2)
    made: dict[str, Callable[[], Model]] = {"hiera": hiera.encoder, "masked hiera": hiera.build}
    model = made[name]() if name in made else TimmConfig(name=name, side=96).encoder()
    said = rf"of our own vision transformer only, not of a {type(model).__name__}: use --method {method}"
    with pytest.raises(ArgumentError, match=said):
        rollout(model, make_packed(SIZES, patch=8, tokens=256)[0], "mean")
