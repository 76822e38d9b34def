"""What objectives on several views of a sample share."""

from abc import ABC
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shardkit import BinnedBatch, MultiViewBatch
from shardkit.errors import ArgumentError
from trainer.models.base import Model
from trainer.models.sequences import grid_of
from trainer.models.with_heads import WithHeads
from trainer.objectives.base import Objective


def views_of(batch: Any, least: int = 1) -> list[BinnedBatch]:
    """Return a batch's views one by one: B images each, in the order of the batching.

    Parameters
    ----------
    batch
        From `MultiView`, or images of one size, which are one view.
    least
        Number of views that the objective needs.

    Raises
    ------
    ArgumentError
        Where there are fewer.
    """
    found = [batch] if isinstance(batch, BinnedBatch) else []
    if isinstance(batch, MultiViewBatch):
        for number, images in enumerate(batch.views):
            whole, count = batch.binned(number), images.shape[1]
            found += [_part(whole, slice(i * count, (i + 1) * count)) for i in range(len(images))]
    if len(found) < least:
        raise too_few(least, 224)
    return found


def too_few(least: int, side: int) -> ArgumentError:
    """Return the error that a batching shows too few views, with an example of a side that shows enough."""
    return ArgumentError(
        f"this objective needs {least} views of a sample: use --loader.batching"
        f" multiview:views={side}:n={least}:crop=0.4/1.0 with its batch_size and per_step"
    )


def require_views(batching: Any, least: int, side: int) -> None:
    """Refuse a batching with too few views, before a step is run.

    Raises
    ------
    ArgumentError
        With what to use in its place, for a model with images of `side` pixels.
    """
    if sum(view.n for view in getattr(batching, "views", ())) < least:
        raise too_few(least, side)


def _part(batch: BinnedBatch, at: slice) -> BinnedBatch:
    kept = None if batch.kept is None else batch.kept.at(at)
    return BinnedBatch(batch.images[at], batch.sizes[at], batch.rows[at], batch.seeds[at], batch.position, kept)


class ViewObjective(Objective, ABC):
    """An objective on square views: what its batches cost."""

    shardable = False

    def tokens(self, batch: Any) -> tuple[Tensor, Tensor]:
        """See `Objective`: those of all views."""
        found = [self._of_one(view) for view in views_of(batch)]
        return torch.stack([own for own, _ in found]).sum(0), torch.stack([run for _, run in found]).sum()

    def _of_one(self, view: BinnedBatch) -> tuple[Tensor, Tensor]:
        own = grid_of(view.sizes, self.patch).double().prod(1) * view.weight
        return own, own.new_full((), view.images.numel() // view.images.shape[1] // self.patch**2)

    def cost(self, number: int) -> float:
        """Return what a view costs, in operations of training the encoder on it: a pass without gradients is a third.

        Parameters
        ----------
        number
            Of the view, from 0.
        """
        return 1.0

    def head_flops(self, number: int, tokens: int) -> float:
        """Return the operations of all heads in training on one image of a view of so many tokens.

        Parameters
        ----------
        number
            Of the view, from 0.
        tokens
            Of the view.
        """
        heads = self.model.head_flops(tokens) if isinstance(self.model, WithHeads) else 0.0
        return 3.0 * self.cost(number) * heads

    def own_flops(self, batch: Any) -> Tensor:
        """See `Objective`: of encoder and heads on all views, each of its own size."""
        found = []
        for number, view in enumerate(views_of(batch)):
            own, _ = self._of_one(view)
            heads = self.head_flops(number, grid_tokens(view, self.patch))
            found.append(self.cost(number) * self._body.view_flops(view, own) + (own > 0) * heads)
        return torch.stack(found).sum(0)

    def run_flops(self, batch: Any) -> Tensor:
        """See `Objective`: as `own_flops`, empty places too."""
        found = []
        for number, view in enumerate(views_of(batch)):
            heads = self.head_flops(number, grid_tokens(view, self.patch)) * len(view.rows)
            found.append(self.cost(number) * self._body.run_flops(view) + heads)
        return torch.stack(found).sum()

    @property
    def _body(self) -> Model:
        return self.model.encoder if isinstance(self.model, WithHeads) else self.model


def grid_tokens(view: BinnedBatch, patch: int) -> int:
    """Return the tokens of one image of a view."""
    return view.images.shape[2] * view.images.shape[3] // patch**2


def batched(views: Sequence[BinnedBatch]) -> BinnedBatch:
    """Put views of one size after one another in one batch."""
    kept = [view.kept for view in views if view.kept is not None]
    return BinnedBatch(
        images=torch.cat([view.images for view in views]),
        sizes=torch.cat([view.sizes for view in views]),
        rows=torch.cat([view.rows for view in views]),
        seeds=torch.cat([view.seeds for view in views]),
        position=views[0].position,
        kept=kept[0].joined(kept) if len(kept) == len(views) else None,
    )
