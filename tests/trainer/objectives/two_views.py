"""A small vision transformer by a name that only tests know, and batches of views made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer, vit_tiny_patch16_224
from torch import Tensor

from shardkit import MultiViewBatch
from shardkit.loader.batch import BatchPosition
from trainer.models.backbone import TimmConfig
from trainer.models.base import Channels
from trainer.parallel import World

SIDE, PATCH, WIDTH = 32, 8, 16
ALONE = World(0, 1, torch.device("cpu"))


@register_model
def vit_micro(pretrained: bool = False, **changes: Any) -> VisionTransformer:
    """timm's own code with 12 narrow blocks."""
    own = {"embed_dim": WIDTH, "depth": 12, "num_heads": 2, "patch_size": PATCH}
    made = vit_tiny_patch16_224(pretrained, **{**own, **changes})
    assert isinstance(made, VisionTransformer)
    return made


def micro(channels: Channels = 1, drop_path: float = 0.0) -> TimmConfig:
    """Its description, for images of 32 x 32 pixels."""
    return TimmConfig(name="vit_micro", side=SIDE, channels=channels, drop_path=drop_path)


def batch_of(
    seed: int,
    there: Sequence[bool] = (True, True, True, False),
    at: tuple[int, int, int] = (0, 0, 1),
    last: bool = True,
    dtype: torch.dtype = torch.float64,
) -> MultiViewBatch:
    """Two views of each sample, in places of which some hold none; `at` is step, micro-batch, and their number."""
    drawn = torch.Generator().manual_seed(seed)
    held = torch.tensor(there)
    views = torch.randn(2, len(held), 1, SIDE, SIDE, generator=drawn, dtype=dtype) * held[:, None, None, None]
    rows = torch.where(held, torch.arange(len(held)) + 10 * seed, -1)
    seeds = torch.randint(0, 1 << 62, (len(held),), generator=drawn) * held
    step, number, micros = at
    return MultiViewBatch((views[:1], views[1:]), rows, seeds, BatchPosition(0, step, number, micros, last))


def shaken(model: torch.nn.Module, seed: int = 3) -> None:
    """Draw all weights anew, so that none is 0 or 1 and every term of a loss differs from the others."""
    drawn = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            noise: Tensor = torch.randn(p.shape, generator=drawn).to(p)
            p.copy_(0.25 * noise + (1.0 if p.ndim == 1 else 0.0))
