"""A batch of several views of each sample, all made from one decoded image."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from shardkit.loader.batch import Batch, BatchItem, BatchPosition, Canvas
from shardkit.loader.collate import BinnedBatch
from shardkit.plan.shapes import MicroBatch

_GOLDEN = -7046029254386353131  # 2**64 / golden ratio, as a signed number: parts the seeds of views


@dataclass(frozen=True, slots=True, repr=False)
class MultiViewBatch(Batch):
    """B samples, several views of each; from `MultiView`.

    Attributes
    ----------
    views : tuple of Tensor of float, (n, B, 1, side, side) each
        One for each `View` of the batching, in its order; 0 where there is no sample.
    rows : Tensor of int64, (B,)
        Manifest row of each sample; -1 without one.
    seeds : Tensor of int64, (B,)
        The plan's seed of each sample; 0 without one.
    position : BatchPosition
        Where the batch stands in the plan.
    """

    views: tuple[Tensor, ...]
    rows: Tensor
    seeds: Tensor
    position: BatchPosition

    def binned(self, number: int) -> BinnedBatch:
        """Return the views of one `View` as a batch of images of one size.

        Parameters
        ----------
        number : int
            Of the `View`, from 0.

        Returns
        -------
        BinnedBatch
            n * B images: the first view of all samples, then the second. Each has a seed of its own.
        """
        images = self.views[number]
        n, _, _, height, width = images.shape
        there = (self.rows >= 0).to(torch.int64)
        sizes = there[:, None] * torch.tensor([height, width], device=there.device)
        before = sum(len(view) for view in self.views[:number])
        parts = torch.arange(before, before + n, device=there.device)[:, None] * _GOLDEN
        return BinnedBatch(
            images=images.flatten(0, 1),
            sizes=sizes.repeat(n, 1),
            rows=self.rows.repeat(n),
            seeds=((self.seeds + parts) * there).flatten(),
            position=self.position,
        )

    @classmethod
    def collate(
        cls,
        micro: MicroBatch,
        items: list[BatchItem | None],
        images: list[Tensor],
        position: BatchPosition,
        canvas: Canvas,
    ) -> Self:
        """See `Batch`."""
        raise NotImplementedError

    def pixels(self, slot: int) -> Tensor:
        """See `Batch`. The first view of the sample."""
        return self.views[0][0, slot, 0]

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = change(value)
        return type(self)(**{**values, "views": tuple(change(view) for view in self.views)})
