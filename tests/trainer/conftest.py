"""Batches of made-up images, a tiny Hiera, and the masked autoencoder written out densely."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import register_model
from timm.models.hiera import Hiera, hiera_tiny_224
from torch import Tensor
from torch.nn import functional as F

from shardkit import BinnedBatch, PackedBatch
from shardkit.dataset.rounding import ceil_div
from shardkit.loader.batch import BatchPosition
from trainer.models.mae import Mae

HERE = BatchPosition(0, 0, 0, 1, True)


@register_model
def hiera_micro(pretrained: bool = False, **changes: Any) -> Hiera:
    """timm's own code with few parameters, by a name that only these tests know."""
    made = hiera_tiny_224(pretrained, **{"embed_dim": 16, "stages": (1, 1, 2, 1), **changes})
    assert isinstance(made, Hiera)
    return made


class Dense:
    """One image through the parameters of a model: plain float64, no packing, no gathering before embedding."""

    def __init__(self, model: Mae) -> None:
        self.c, self.p = model.config, dict(model.named_parameters())

    @staticmethod
    def table(rows: int, cols: int, width: int) -> Tensor:
        """The original's table in float64: columns in the first half, rows in the second; sines before cosines."""

        def encode(place: Any) -> Any:
            omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4))
            angles = np.einsum("n,k->nk", place.reshape(-1), omega)
            return np.concatenate([np.sin(angles), np.cos(angles)], 1)

        x, y = np.meshgrid(np.arange(cols, dtype=np.float64), np.arange(rows, dtype=np.float64))
        return torch.from_numpy(np.concatenate([encode(x), encode(y)], 1))

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.p[f"{name}.weight"], self.p[f"{name}.bias"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.p[f"{name}.weight"], self.p[f"{name}.bias"], self.c.norm_eps)

    def block(self, x: Tensor, name: str, heads: int, share: Tensor | tuple[int, int] = (1, 1)) -> Tensor:
        n, width = x.shape
        q, k, v = (
            self.linear(self.norm(x, f"{name}.norm1"), f"{name}.attn.qkv").view(n, 3, heads, -1).permute(1, 2, 0, 3)
        )
        scores = q @ k.transpose(1, 2) / math.sqrt(width // heads)
        attended = (scores.softmax(-1) @ v).transpose(0, 1).reshape(n, width)
        x = x + self.linear(attended, f"{name}.attn.proj") * share[0]
        hidden = self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        found = self.linear(0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2))), f"{name}.mlp.fc2")
        return x + found * share[1]

    def __call__(self, image: Tensor, size: tuple[int, int], drawn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, mask, prediction); drawn: the noise of its patches."""
        c, p = self.c, self.c.patch
        rows, cols = image.shape[0] // p, image.shape[1] // p
        n = rows * cols
        embedded = F.conv2d(image[None, None], self.p["patch_embed.proj.weight"], self.p["patch_embed.proj.bias"], p)
        x = embedded.flatten(2).transpose(1, 2)[0] + self.table(rows, cols, c.width)
        shuffle = drawn.argsort()
        restore, kept = shuffle.argsort(), int(n * (1 - c.mask_ratio))
        x = torch.cat([self.p["cls_token"][0], x[shuffle[:kept]]])
        for i in range(c.depth):
            x = self.block(x, f"blocks.{i}", c.heads)
        x = self.linear(self.norm(x, "norm"), "decoder_embed")
        filled = torch.cat([x[1:], self.p["mask_token"][0].expand(n - kept, -1)])[restore]
        y = torch.cat([x[:1], filled + self.table(rows, cols, c.decoder_width)])
        for i in range(c.decoder_depth):
            y = self.block(y, f"decoder_blocks.{i}", c.decoder_heads)
        predicted = self.linear(self.norm(y, "decoder_norm"), "decoder_pred")[1:]
        target = image.view(rows, p, cols, p).permute(0, 2, 1, 3).reshape(n, p * p).clone()
        inside = torch.zeros_like(image)
        inside[: size[0], : size[1]] = 1
        inside = inside.view(rows, p, cols, p).permute(0, 2, 1, 3).reshape(n, p * p)
        if c.norm_pix:
            for row, real in zip(target, inside.bool(), strict=True):
                if real.any():
                    row[real] = (row[real] - row[real].mean()) / (row[real].var() + 1e-6) ** 0.5
        mask = torch.ones(n, dtype=torch.float64)
        mask[shuffle[:kept]] = 0
        if c.loss == "all":
            return (predicted - target).square().mean(), mask, predicted
        error = ((predicted - target).square() * inside).sum(-1) / inside.sum(-1).clamp(min=1)
        counted = mask * inside.amax(-1)  # a bin's padding is no patch of the image
        return (error * counted).sum() / counted.sum(), mask, predicted


@pytest.fixture(scope="session")
def dense() -> type[Dense]:
    """The masked autoencoder written out: `dense(model)(image, size, noise)`, `dense.table(rows, cols, width)`."""
    return Dense


@pytest.fixture
def make_packed() -> Callable[..., tuple[PackedBatch, list[Tensor]]]:
    """(sizes, patch, tokens, sequences, seed, pixels) -> (batch, images padded to whole patches).

    pixels: (height, width) -> an image, in place of noise.
    """

    def make(
        sizes: list[tuple[int, int]],
        patch: int = 16,
        tokens: int = 128,
        sequences: int = 6,
        seed: int = 0,
        pixels: Callable[[int, int], Tensor] | None = None,
    ) -> tuple[PackedBatch, list[Tensor]]:
        rng = np.random.default_rng(seed)
        patches, yx = torch.zeros(tokens, patch * patch), torch.zeros(tokens, 2, dtype=torch.int32)
        hw, rows = torch.zeros(sequences, 2, dtype=torch.int32), torch.full((sequences,), -1)
        images, ends = [], [0]
        for number, (height, width) in enumerate(sizes):
            n_rows, n_cols = ceil_div(height, patch), ceil_div(width, patch)
            image = torch.zeros(n_rows * patch, n_cols * patch)
            made = (
                torch.from_numpy(rng.random((height, width), np.float32)) if pixels is None else pixels(height, width)
            )
            image[:height, :width] = made
            own = slice(ends[-1], ends[-1] + n_rows * n_cols)
            patches[own] = image.view(n_rows, patch, n_cols, patch).permute(0, 2, 1, 3).reshape(-1, patch * patch)
            yx[own] = torch.cartesian_prod(torch.arange(n_rows), torch.arange(n_cols)).int()
            hw[number], rows[number] = torch.tensor([height, width]), number
            images.append(image)
            ends.append(own.stop)
        cu = torch.tensor(ends + [tokens] * (sequences + 1 - len(ends)), dtype=torch.int32)
        of = torch.arange(sequences, dtype=torch.int32).repeat_interleave(cu.diff())
        seeds = torch.from_numpy(rng.integers(0, 1 << 62, sequences))
        return PackedBatch(patches, yx, of, cu, hw, rows, seeds, HERE), images

    return make


@pytest.fixture
def make_binned() -> Callable[..., BinnedBatch]:
    """(images, height, width, places) -> batch of these images, padded; places beyond hold none."""

    def make(images: list[Tensor], sizes: list[tuple[int, int]], height: int, width: int, places: int) -> BinnedBatch:
        out = torch.zeros(places, 1, height, width)
        hw, rows = torch.zeros(places, 2, dtype=torch.int64), torch.full((places,), -1)
        for number, (image, size) in enumerate(zip(images, sizes, strict=True)):
            out[number, 0, : image.shape[0], : image.shape[1]] = image
            hw[number], rows[number] = torch.tensor(size), number
        return BinnedBatch(out, hw, rows, torch.arange(places) + 7, HERE)

    return make
