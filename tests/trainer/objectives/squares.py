"""Batches of made-up square images for methods that hide parts of them, and small encoders."""

from __future__ import annotations

import torch

from shardkit import BinnedBatch
from shardkit.loader.batch import BatchPosition
from trainer.models.backbone import TimmConfig
from trainer.models.base import Channels

BEIT = ("embed_dim=32", "depth=2", "num_heads=2", "use_rel_pos_bias=False", "use_shared_rel_pos_bias=True")
SWIN = ("window_size=2", "embed_dim=16", "depths=(1,1,1,1)", "num_heads=(1,1,1,1)")


def shared_bias(channels: Channels = 1, drop_path: float = 0.0, side: int = 96) -> TimmConfig:
    changes = (*BEIT, "init_values=0.1", "global_pool=token")
    return TimmConfig(name="beit_base_patch16_224", side=side, drop_path=drop_path, channels=channels, changes=changes)


def swin(channels: Channels = 1, side: int = 64) -> TimmConfig:
    return TimmConfig(name="swin_base_patch4_window7_224", side=side, channels=channels, changes=SWIN)


def squares(side: int, places: int, empty: tuple[int, ...] = (), seed: int = 0) -> BinnedBatch:
    """Random images; places without one are full of a number that must not show."""
    made = torch.Generator().manual_seed(seed)
    images, rows = torch.randn(places, 1, side, side, generator=made), torch.arange(places)
    sizes, seeds = torch.full((places, 2), side), torch.randint(1 << 62, (places,), generator=made)
    for at in empty:
        images[at], rows[at], sizes[at], seeds[at] = 50.0, -1, 0, 0
    return BinnedBatch(images, sizes, rows, seeds, BatchPosition(0, 0, 0, 1, True))


def in_double(batch: BinnedBatch) -> BinnedBatch:
    return BinnedBatch(batch.images.double(), batch.sizes, batch.rows, batch.seeds, batch.position)
