"""Losses, predictions and gradients of the published formulas as frozen numbers, for both models and both layouts.

The numbers come from formulas written out in float64, image by image (He et al. 2022; Ryali et al. 2023), on weights
and images that are sines, so that no generator changes them. The formulas are held to the numbers, then the models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.mae import Mae, MaeConfig
from trainer.models.masking import draw, noise
from trainer.models.sequences import from_binned, sequences

SIZES = [(64, 48), (33, 50), (80, 16)]  # whole patches, slivers, a column
MAE = MaeConfig(width=48, depth=2, heads=4, decoder_width=32, decoder_depth=2, decoder_heads=4)
HIERA = HieraConfig(arch="hiera_micro", side=96, decoder_width=32, decoder_depth=1, decoder_heads=4)
STAGES = (  # of hiera_micro's blocks: heads, whether queries are pooled, whether attention sees all units
    (1, False, False), (2, True, False), (4, True, False), (4, False, True), (8, False, True),
)  # fmt: skip
WITHIN = 2e-5  # of the number: losses and positions are float32 in the models

# (loss, prediction, gradient); of the last two the sum of value * cos(0.1 * place), so that order counts.
MAE_NUMBERS = {
    ("packed", False): (3.61197217015, 4.09094638206, 3.03879112165),
    ("packed", True): (5.84967775004, 4.09094638206, 3.77160321702),
    ("binned", False): (3.64475654078, 3.34238040634, 2.94525613729),
    ("binned", True): (5.87520645455, 3.34238040634, 3.61678400484),
}
HIERA_NUMBERS = {
    False: (1.31451867136, 0.962622598971, -5.26508500782),
    True: (2.68328198078, 0.962622598971, -5.24695002387),
}


def _pixels(height: int, width: int) -> Tensor:
    """float32 in about 0..1, waves of many lengths."""
    y, x = torch.arange(height, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    return (0.5 + 0.3 * torch.sin(0.7 * y + 0.03 * y * x) + 0.2 * torch.cos(1.3 * x)).float()


def _settled(model: Any) -> Any:
    """Sines in place of weights, in float64; norms are near 1."""
    for number, (name, p) in enumerate(model.named_parameters()):
        wave = torch.sin(0.37 * torch.arange(p.numel(), dtype=torch.float64) + number).view(p.shape)
        p.data = wave * 0.2 + 1 if "norm" in name and name.endswith("weight") else wave * 0.2
    return model


def _checksum(values: Iterable[Tensor]) -> float:
    flat = torch.cat([value.detach().double().flatten() for value in values])
    return float((flat * torch.cos(0.1 * torch.arange(len(flat), dtype=torch.float64))).sum())


def _numbers(model: nn.Module, loss: Tensor, predictions: list[Tensor]) -> tuple[float, float, float]:
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return loss.item(), _checksum(predictions), _checksum(grads)


# ------------------------------------------------------------------------------------------------- the transformer


def _batch(layout: str, make_packed: Any, make_binned: Any) -> tuple[Any, list[Tensor]]:
    """A batch with a place or more for no image, and its images as the model is given them."""
    packed, images = make_packed(SIZES, tokens=60, sequences=5, pixels=_pixels)
    seeds = torch.arange(5) + 7  # those of a binned batch
    if layout == "packed":
        return replace(packed, seeds=seeds), images
    binned = make_binned(images, SIZES, 96, 64, 4)
    return binned, list(binned.images[: len(SIZES), 0])


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize("layout", ["packed", "binned"])
def test_the_masked_autoencoder_gives_the_published_numbers(
    make_packed: Any, make_binned: Any, dense: Any, layout: str, norm_pix: bool
) -> None:
    model = _settled(Mae(replace(MAE, norm_pix=norm_pix)))
    batch, images = _batch(layout, make_packed, make_binned)
    of = sequences(batch, 16)
    spans = [slice(*of.cu_seqlens[i : i + 2].tolist()) for i in range(len(SIZES))]
    drawn = noise(of)
    written = [
        dense(model)(image.double(), size, drawn[own]) for image, size, own in zip(images, SIZES, spans, strict=True)
    ]
    formula = _numbers(model, torch.stack([loss for loss, _, _ in written]).sum(), [made for _, _, made in written])
    assert formula == pytest.approx(MAE_NUMBERS[layout, norm_pix], rel=1e-8)
    out = model(of)
    found = _numbers(model, out.loss, [out.prediction[own] for own in spans])
    assert found == pytest.approx(formula, rel=WITHIN)


# ----------------------------------------------------------------------------------------------- the hierarchical one


class _DenseHiera:
    """One image through the parameters of a model, as grids of tokens in each visible mask unit."""

    def __init__(self, model: HieraMae, dense: Any) -> None:
        self.p, self.decoder = dict(model.named_parameters()), dense(Mae(replace(MAE, norm_eps=HIERA.norm_eps)))
        self.decoder.p = self.p

    def pooled(self, x: Tensor) -> Tensor:
        """(units, 2 h, 2 w, channels) -> (units, h, w, channels), the greatest of four neighbours."""
        return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def block(self, x: Tensor, name: str, heads: int, pool: bool, everywhere: bool) -> Tensor:
        """(units, h, w, channels) -> the same, or half as high and wide with twice the channels."""
        linear, norm = self.decoder.linear, self.decoder.norm
        before = norm(x, f"{name}.norm1")
        q, k, v = linear(before, f"{name}.attn.qkv").chunk(3, -1)
        skipped = linear(before, f"{name}.proj") if f"{name}.proj.weight" in self.p else x
        if pool:
            q, skipped = self.pooled(q), self.pooled(skipped)
        shape, groups = q.shape, 1 if everywhere else len(x)
        q, k, v = (part.reshape(groups, -1, heads, shape[-1] // heads).transpose(1, 2) for part in (q, k, v))
        share = (q @ k.transpose(2, 3) * (shape[-1] // heads) ** -0.5).softmax(-1)
        x = skipped + linear((share @ v).transpose(1, 2).reshape(shape), f"{name}.attn.proj")
        hidden = linear(norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        out: Tensor = x + linear(F.gelu(hidden), f"{name}.mlp.fc2")
        return out

    def __call__(self, image: Tensor, visible: Tensor, norm_pix: bool) -> tuple[Tensor, Tensor]:
        """(loss, prediction) of a square image; visible: bool (units, units)."""
        p, side, units = self.p, len(image), len(visible)
        shown = image * visible.repeat_interleave(32, 0).repeat_interleave(32, 1)
        tokens = F.conv2d(
            shown[None, None], p["encoder.patch_embed.proj.weight"], p["encoder.patch_embed.proj.bias"], 4, 3
        )
        x = tokens[0].flatten(1).T + p["encoder.pos_embed"][0]
        x = x.view(units, 8, units, 8, -1).transpose(1, 2)[visible]
        stages = []
        for number, (heads, pool, everywhere) in enumerate(STAGES):
            x = self.block(x, f"encoder.blocks.{number}", heads, pool, everywhere)
            stages.append(x)
        for number, kernel in enumerate((4, 2)):  # of the ends of the first two stages
            name = f"multi_scale_fusion_heads.{number}"
            part = F.conv2d(stages[number].permute(0, 3, 1, 2), p[f"{name}.weight"], p[f"{name}.bias"], kernel)
            x = x + part.permute(0, 2, 3, 1)
        x = self.decoder.linear(self.decoder.norm(x, "encoder.head.norm"), "decoder_embed")
        grid = p["mask_token"][0, 0].expand(units, units, 2, 2, -1).clone()
        grid[visible] = x
        y = grid.transpose(1, 2).reshape(4 * units**2, -1) + p["decoder_pos_embed"][0]
        y = self.decoder.block(y, "decoder_blocks.0", HIERA.decoder_heads)
        made = self.decoder.linear(self.decoder.norm(y, "decoder_norm"), "decoder_pred")
        target = F.unfold(image[None, None], 16, stride=16)[0].T
        if norm_pix:
            target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6) ** 0.5
        hidden = ~visible.repeat_interleave(2, 0).repeat_interleave(2, 1).flatten()
        assert len(hidden) == (side // 16) ** 2
        return (made - target)[hidden].square().mean(), made


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_hierarchical_one_gives_the_published_numbers(make_binned: Any, dense: Any, norm_pix: bool) -> None:
    model = _settled(HieraMae(replace(HIERA, norm_pix=norm_pix)))
    images = [_pixels(96, 96), _pixels(96, 96).T.contiguous()]
    batch = make_binned(images, [(96, 96)] * 2, 96, 96, 3)
    visible = ~draw(from_binned(batch, 32), 0.6).masked.view(3, 3, 3)
    assert visible.sum((1, 2)).tolist() == [3, 3, 3]
    written = [
        _DenseHiera(model, dense)(image.double(), of, norm_pix) for image, of in zip(images, visible[:2], strict=True)
    ]
    formula = _numbers(model, written[0][0] + written[1][0], [made for _, made in written])
    assert formula == pytest.approx(HIERA_NUMBERS[norm_pix], rel=1e-8)
    out = model(batch)
    assert _numbers(model, out.loss, [out.prediction[:72]]) == pytest.approx(formula, rel=WITHIN)
