"""Batches as the model sees them: one sequence of patches, whatever shape they came in.

A packed batch is one already; a binned batch becomes one of equal sequences, so that both run through the same code.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.dataset.rounding import ceil_div

_SHORT = 512  # tokens: about an image, and few enough pieces for the kernels


@dataclass(frozen=True, slots=True)
class Sequences:
    """T patches in S sequences; both counts are the same in every batch of one batching.

    Attributes
    ----------
    patches : Tensor
        float (T, p * p).
    yx : Tensor
        int32 (T, 2), row and column of a patch in its image's grid.
    image : Tensor
        int32 (T,), sequence that a patch belongs to.
    cu_seqlens : Tensor
        int32 (S + 1,), where sequences begin, and T.
    hw : Tensor
        int32 (S, 2), height and width of each image in pixels.
    grid : Tensor
        int32 (S, 2), rows and columns of patches of each sequence.
    weight : Tensor
        float32 (S,), 0 for filler.
    seeds : Tensor
        int64 (S,), from the plan.
    longest : int
        A bound on the patches of an image, the same in every batch.
    filler : int
        Likewise of a sequence without an image. `shortened` cuts those that follow the last image.
    """

    patches: Tensor
    yx: Tensor
    image: Tensor
    cu_seqlens: Tensor
    hw: Tensor
    grid: Tensor
    weight: Tensor
    seeds: Tensor
    longest: int
    filler: int

    @property
    def lengths(self) -> Tensor:
        """Number of patches of each sequence: int64 (S,)."""
        return self.cu_seqlens.diff().long()

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return math.isqrt(self.patches.shape[1])


def grid_of(sizes: Tensor, patch: int) -> Tensor:
    """Return rows and columns of patches that hold images of these sizes in pixels, integers of any shape."""
    return (sizes + patch - 1) // patch


def from_packed(batch: PackedBatch, patch: int) -> Sequences:
    """Return a packed batch as it is. Where no bound on its images is known, one may be as long as the pack."""
    return Sequences(
        patches=batch.patches,
        yx=batch.yx,
        image=batch.image,
        cu_seqlens=batch.cu_seqlens,
        hw=batch.hw,
        grid=grid_of(batch.hw, patch),
        weight=batch.weight,
        seeds=batch.seeds,
        longest=batch.longest or batch.patches.shape[0],
        filler=batch.patches.shape[0],
    )


def from_binned(batch: BinnedBatch, patch: int) -> Sequences:
    """Return a binned batch: every place of it is a sequence of its bin's patches, padding included."""
    count, _, height, width = batch.images.shape
    rows, cols = height // patch, width // patch
    device = batch.images.device
    patches = batch.images.view(count, rows, patch, cols, patch).permute(0, 1, 3, 2, 4)
    yx = torch.stack(
        torch.meshgrid(
            torch.arange(rows, device=device, dtype=torch.int32),
            torch.arange(cols, device=device, dtype=torch.int32),
            indexing="ij",
        ),
        -1,
    ).view(-1, 2)
    length = rows * cols
    sides = (torch.full((count,), side, device=device, dtype=torch.int32) for side in (rows, cols))
    return Sequences(
        patches=patches.reshape(count * length, patch * patch),
        yx=yx.repeat(count, 1),
        image=torch.arange(count, device=device, dtype=torch.int32).repeat_interleave(length),
        cu_seqlens=torch.arange(count + 1, device=device, dtype=torch.int32) * length,
        hw=batch.sizes.int(),
        grid=torch.stack(list(sides), 1),  # not from a list: copying one to a GPU waits for it
        weight=batch.weight,
        seeds=batch.seeds,
        longest=length,
        filler=length,
    )


def sequences(batch: BinnedBatch | PackedBatch, patch: int) -> Sequences:
    """Return a batch of either kind as sequences."""
    return from_packed(batch, patch) if isinstance(batch, PackedBatch) else from_binned(batch, patch)


def without_padding(batch: BinnedBatch | PackedBatch, patch: int) -> Sequences:
    """Return a batch as sequences of real patches alone, so that an image looks the same packed and binned.

    A bin's padding goes to the end, into one more sequence that holds no image; the shapes are the same in every batch
    of a bin.
    """
    of = sequences(batch, patch)
    if isinstance(batch, PackedBatch):
        return of
    count, image = of.weight.shape[0], of.image.long()
    owner = torch.where(torch.all(of.yx * patch < of.hw[image], 1), image, count)
    order = torch.argsort(owner, stable=True)
    lengths = of.cu_seqlens.new_zeros(count + 1).index_add(0, owner, torch.ones_like(of.image))
    none = of.hw.new_zeros(1, 2)
    return Sequences(
        patches=of.patches[order],
        yx=of.yx[order],
        image=owner[order].int(),
        cu_seqlens=torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
        hw=torch.cat([of.hw, none]),
        grid=torch.cat([grid_of(of.hw, patch), none]),
        weight=torch.cat([of.weight, of.weight.new_zeros(1)]),
        seeds=torch.cat([of.seeds, of.seeds.new_zeros(1)]),
        longest=of.longest,
        filler=len(of.patches),
    )


def shortened(cu_seqlens: Tensor, weight: Tensor, tokens: int) -> Tensor:
    """Cut what follows the last image into short sequences.

    Attention is quadratic in a sequence's length, and on filler nobody needs it.

    Parameters
    ----------
    cu_seqlens
        int (S + 1 or more,), ascending and ending in `tokens`.
    weight
        float (S,), 0 for filler.
    tokens
        Length of all sequences together.

    Returns
    -------
    Tensor
        `cu_seqlens` with ceil(tokens / 512) more cuts, a number that no batch changes.
    """
    count, device = weight.shape[0], weight.device
    last = (torch.arange(1, count + 1, device=device) * (weight > 0)).amax(0, keepdim=True)  # (1,): () would be read
    every = torch.arange(0, ceil_div(tokens, _SHORT), device=device) * _SHORT
    cuts = (cu_seqlens[last] + every).clamp(max=tokens)
    return torch.cat([cu_seqlens, cuts]).sort().values


def bound(longest: int, filler: int) -> int:
    """Return a bound on the sequences that `shortened` left, by bounds on those with an image and without one."""
    return max(longest, min(filler, _SHORT))


def valid_pixels(of: Sequences, patch: int) -> Tensor:
    """Return whether each pixel of the patches is the image's and not padding: bool (T, p * p)."""
    inside = torch.arange(patch, device=of.patches.device)
    limits = of.hw[of.image.long()]
    rows = of.yx[:, :1] * patch + inside < limits[:, :1]
    cols = of.yx[:, 1:] * patch + inside < limits[:, 1:]
    return (rows[:, :, None] & cols[:, None, :]).flatten(1)
