"""A batch of several views of each sample, all made from one decoded image."""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from shardkit.loader.batch import Batch, BatchItem, BatchPosition, Slots
from shardkit.loader.binned import BinnedBatch
from shardkit.loader.canvas import Canvas
from shardkit.plan.multi_view import ViewsShape
from shardkit.plan.shapes import MicroBatch
from shardkit.plan.views import apart
from shardkit.terminal import reprs


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
    kept : Slots or None
        As of `BinnedBatch`.
    """

    views: tuple[Tensor, ...]
    rows: Tensor
    seeds: Tensor
    position: BatchPosition
    kept: Slots | None = field(default=None, compare=False)

    def binned(self, number: int) -> BinnedBatch:
        """Return the views of one `View` as a batch of images of one size.

        Parameters
        ----------
        number : int
            Of the `View`, from 0.

        Returns
        -------
        BinnedBatch
            n * B images: the first view of all samples, then the second. Each has the seed that the plan gives it.
        """
        images = self.views[number]
        n, _, _, height, width = images.shape
        there = (self.rows >= 0).to(torch.int64)
        sizes = torch.stack([there * height, there * width], 1)
        before = sum(len(view) for view in self.views[:number])
        parts = torch.arange(before, before + n, device=there.device)[:, None] * apart(1)
        return BinnedBatch(
            images=images.flatten(0, 1),
            sizes=sizes.repeat(n, 1),
            rows=self.rows.repeat(n),
            seeds=((self.seeds + parts) * there).flatten(),
            position=self.position,
            kept=self._kept_of(range(before, before + n)),
        )

    def _kept_of(self, views: range) -> Slots | None:
        """Return the slots of some views, one after another, with the same seeds as on the device."""
        if self.kept is None:
            return None
        parts = np.array([apart(number) for number in views], np.int64)[:, None]
        seeds = (self.kept.seeds + parts) * self.kept.there
        return Slots(np.tile(self.kept.rows, len(views)), seeds.ravel())

    @classmethod
    def lay_out(
        cls, micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
    ) -> tuple[Self, list[Tensor]]:
        """See `Batch`. Sample i lies in place i."""
        shape, crops = micro.shape, micro.crops
        assert isinstance(shape, ViewsShape)
        rows, seeds = np.full(shape.images, -1, np.int64), np.zeros(shape.images, np.int64)
        for place, item in enumerate(items):
            if item is not None:
                rows[place], seeds[place] = item.row, crops.seed[item.crop].astype(np.int64)
        views, rooms = [], []
        for view in shape.views:
            out = canvas.empty((view.n, shape.images, 1, view.side, view.side))
            for number in range(view.n):
                for place, row in enumerate(rows.tolist()):
                    if row < 0:
                        canvas.clear(out[number, place])
                    else:
                        rooms.append(out[number, place, 0])
            views.append(out)
        return cls(tuple(views), canvas.send(rows), canvas.send(seeds), position, Slots(rows, seeds)), rooms

    def pixels(self, slot: int) -> Tensor:
        """See `Batch`. The first view of the sample."""
        return self.every_view(slot)[0]

    def every_view(self, slot: int) -> list[Tensor]:
        """See `Batch`."""
        return [view[number, slot, 0] for view in self.views for number in range(len(view))]

    def record_stream(self, stream: Any) -> None:
        """See `Batch`."""
        for tensor in (*self.views, self.rows, self.seeds):
            tensor.record_stream(stream)

    def _facts(self) -> reprs.Facts:
        sizes = "; ".join(str(tuple(view.shape)) for view in self.views)
        return {"views": f"{str(self.views[0].dtype).removeprefix('torch.')} {sizes}", **Batch._facts(self)}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = change(value)
        return type(self)(**{**values, "views": tuple(change(view) for view in self.views)})
