"""The kinds of batches that a loader hands out, and how images become them. `BATCHES` says what each shape becomes."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from shardkit.dataset.rounding import ceil_div
from shardkit.loader.batch import Batch, BatchItem, BatchPosition
from shardkit.loader.binned import BinnedBatch
from shardkit.loader.canvas import Canvas
from shardkit.loader.multi_view import MultiViewBatch
from shardkit.plan.multi_view import ViewsShape
from shardkit.plan.shapes import BatchShape, MicroBatch, Pack, Shape


@dataclass(frozen=True, slots=True, repr=False)
class PackedBatch(Batch):
    """Images of any size as one sequence of T patches of p x p pixels; T and S are the same in every batch.

    Tokens left over form a sequence of their own after the images; it and the empty ones after it have hw 0 x 0, row -1
    and weight 0.

    Attributes
    ----------
    patches : Tensor of float, (T, p * p)
        Patch by patch, each row by row; an image's edge patches are padded with 0.
    yx : Tensor of int32, (T, 2)
        Row and column of each patch in its image.
    image : Tensor of int32, (T,)
        Sequence that each patch belongs to.
    cu_seqlens : Tensor of int32, (S + 1,)
        Where sequences begin, ending in T.
    hw : Tensor of int32, (S, 2)
        Pixels of each image.
    rows : Tensor of int64, (S,)
        Manifest row of each; -1 without an image.
    seeds : Tensor of int64, (S,)
        The plan's seed of each crop; 0 without an image.
    position : BatchPosition
        Where the batch stands in the plan.
    longest : int
        A bound on the patches of an image, the same in every batch; 0 where none but T is known. The sequence of what
        is left over may be longer.
    """

    patches: Tensor
    yx: Tensor
    image: Tensor
    cu_seqlens: Tensor
    hw: Tensor
    rows: Tensor
    seeds: Tensor
    position: BatchPosition
    longest: int = 0

    @classmethod
    def lay_out(
        cls, micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
    ) -> tuple[Self, list[Tensor]]:
        """See `Batch`. Images follow one another; crops without one leave no gap."""
        shape, patch = micro.shape, micro.patch
        assert isinstance(shape, Pack)
        tokens, sequences = shape.tokens, shape.images + 1
        patches = canvas.empty((tokens, patch * patch))
        yx = np.zeros((tokens, 2), np.int32)
        hw = np.zeros((sequences, 2), np.int32)
        rows = np.full(sequences, -1, np.int64)
        seeds = np.zeros(sequences, np.int64)
        ends, rooms = list[int](), list[Tensor]()
        at = 0
        for item in (item for item in items if item is not None):
            height, width = int(micro.crops.out_height[item.crop]), int(micro.crops.out_width[item.crop])
            down, across = ceil_div(height, patch), ceil_div(width, patch)
            end, number = at + down * across, len(ends)
            rooms.append(patches[at:end].view(down, across, patch, patch).permute(0, 2, 1, 3))
            yx[at:end, 0], yx[at:end, 1] = np.repeat(np.arange(down), across), np.tile(np.arange(across), down)
            hw[number] = height, width
            rows[number], seeds[number] = item.row, micro.crops.seed[item.crop].astype(np.int64)
            ends.append(end)
            at = end
        canvas.clear(patches[at:])
        cu_seqlens = np.full(sequences + 1, tokens, np.int32)
        cu_seqlens[: len(ends) + 1] = [0, *ends]
        image_of = np.repeat(np.arange(sequences, dtype=np.int32), np.diff(cu_seqlens))
        send = canvas.send
        places = send(yx), send(image_of), send(cu_seqlens)
        return cls(patches, *places, send(hw), send(rows), send(seeds), position, shape.longest), rooms

    def pixels(self, slot: int) -> Tensor:
        """See `Batch`."""
        start, end = self.cu_seqlens[slot : slot + 2].tolist()
        height, width = self.hw[slot].tolist()
        side = math.isqrt(self.patches.shape[1])
        down, across = ceil_div(height, side), ceil_div(width, side)
        grid = self.patches[start:end].view(down, across, side, side)
        return grid.permute(0, 2, 1, 3).reshape(down * side, across * side)[:height, :width]


Loaded = BinnedBatch | PackedBatch | Any
"""What a loader hands out, for type checkers: these two, or `MultiViewBatch` or a `Batch` that somebody adds."""

BATCHES: dict[type[BatchShape], type[Batch]] = {
    Shape: BinnedBatch,
    Pack: PackedBatch,
    ViewsShape: MultiViewBatch,
}
"""Kinds of batches by the shape that the plan gives their micro-batches."""


def lay_out(
    micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
) -> tuple[Batch, list[Tensor]]:
    """Make a batch of the kind that belongs to a micro-batch's shape, with room for images: see `Batch.lay_out`."""
    return BATCHES[type(micro.shape)].lay_out(micro, items, position, canvas)


def collate(
    micro: MicroBatch,
    items: list[BatchItem | None],
    images: list[Tensor],
    position: BatchPosition,
    canvas: Canvas,
) -> Batch:
    """Make a batch and put images into it.

    Parameters
    ----------
    micro, items, position, canvas
        See `Batch.lay_out`.
    images : list of Tensor
        Pixels of those items that are not None, in the order of the rooms that they go into: float32 (1, rows, cols) on
        the device, padded with 0 to the shape's `padded_size`; or of the room's shape and type. They may be changed.
    """
    batch, rooms = lay_out(micro, items, position, canvas)
    for room, image in zip(rooms, images, strict=True):
        canvas.put(room, image)
    return batch
