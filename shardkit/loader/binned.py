"""A batch of images of one size."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from torch import Tensor

from shardkit.loader.batch import Batch, BatchItem, BatchPosition, Slots
from shardkit.loader.canvas import Canvas
from shardkit.plan.shapes import MicroBatch, Shape


@dataclass(frozen=True, slots=True, repr=False)
class BinnedBatch(Batch):
    """B images of one size; from all batchings but `Packed`.

    Attributes
    ----------
    images : Tensor of float, (B, 1, H, W)
        Images, padded with 0 at the bottom and right.
    sizes : Tensor of int64, (B, 2)
        True rows and columns of each; 0 x 0 for a slot that holds no image.
    rows : Tensor of int64, (B,)
        Manifest row of each; -1 without an image.
    seeds : Tensor of int64, (B,)
        The plan's seed of each crop; 0 without an image.
    position : BatchPosition
        Where the batch stands in the plan.
    kept : Slots or None
        What `slots` gives without waiting for a GPU: those who change rows or seeds change it, too, or leave it out.
    """

    images: Tensor
    sizes: Tensor
    rows: Tensor
    seeds: Tensor
    position: BatchPosition
    kept: Slots | None = field(default=None, compare=False)

    @classmethod
    def lay_out(
        cls, micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
    ) -> tuple[Self, list[Tensor]]:
        """See `Batch`. Crop i lies in slot i."""
        shape = micro.shape
        assert isinstance(shape, Shape)
        out = canvas.empty((shape.images, 1, shape.height, shape.width))
        sizes = np.zeros((shape.images, 2), np.int64)
        rows = np.full(shape.images, -1, np.int64)
        seeds = np.zeros(shape.images, np.int64)
        rooms = []
        for slot in range(shape.images):
            item = items[slot] if slot < len(items) else None
            if item is None:
                canvas.clear(out[slot])
                continue
            rooms.append(out[slot, 0])
            sizes[slot] = micro.crops.out_height[item.crop], micro.crops.out_width[item.crop]
            rows[slot], seeds[slot] = item.row, micro.crops.seed[item.crop].astype(np.int64)
        return cls(out, canvas.send(sizes), canvas.send(rows), canvas.send(seeds), position, Slots(rows, seeds)), rooms

    def pixels(self, slot: int) -> Tensor:
        """See `Batch`."""
        height, width = self.sizes[slot].tolist()
        return self.images[slot, 0, :height, :width]
