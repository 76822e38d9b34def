"""Packed and binned batches of made-up images, and a tiny Hiera."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.models import register_model
from timm.models.hiera import Hiera, hiera_tiny_224
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.batch import Place

HERE = Place(0, 0, 0, 1, True)


@register_model
def hiera_micro(pretrained: bool = False, **changes: Any) -> Hiera:
    """timm's own code with few parameters, by a name that only these tests know."""
    made = hiera_tiny_224(pretrained, **{"embed_dim": 16, "stages": (1, 1, 2, 1), **changes})
    assert isinstance(made, Hiera)
    return made


@pytest.fixture
def make_packed() -> Callable[..., tuple[PackedBatch, list[Tensor]]]:
    """(sizes, patch, tokens, sequences, seed) -> (batch, images padded to whole patches)."""

    def make(
        sizes: list[tuple[int, int]], patch: int = 16, tokens: int = 128, sequences: int = 6, seed: int = 0
    ) -> tuple[PackedBatch, list[Tensor]]:
        rng = np.random.default_rng(seed)
        patches, yx = torch.zeros(tokens, patch * patch), torch.zeros(tokens, 2, dtype=torch.int32)
        hw, rows = torch.zeros(sequences, 2, dtype=torch.int32), torch.full((sequences,), -1)
        images, ends = [], [0]
        for number, (height, width) in enumerate(sizes):
            high, wide = -(-height // patch), -(-width // patch)
            image = torch.zeros(high * patch, wide * patch)
            image[:height, :width] = torch.from_numpy(rng.random((height, width), np.float32))
            own = slice(ends[-1], ends[-1] + high * wide)
            patches[own] = image.view(high, patch, wide, patch).permute(0, 2, 1, 3).reshape(-1, patch * patch)
            yx[own] = torch.cartesian_prod(torch.arange(high), torch.arange(wide)).int()
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
