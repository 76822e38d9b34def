"""Stochastic depth of timm's models, drawn from the plan's seeds: the same on any number of processes."""

from typing import final

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from trainer.models.masking import hashed


@final
class Drawn:
    """What the places of a forward pass are drawn from: the seeds of its images, and how often it was drawn before."""

    def __init__(self) -> None:
        self._seeds: Tensor | None = None
        self._calls = 0

    def begin(self, seeds: Tensor) -> None:
        """Begin a forward pass on images of these seeds: int64 (B,)."""
        self._seeds, self._calls = seeds, 0

    def kept(self, count: int, rate: float) -> Tensor | None:
        """Draw which images the next residual branch acts on.

        Parameters
        ----------
        count
            Length of the branch's first dimension.
        rate
            Share of the images that it leaves as they are.

        Returns
        -------
        Tensor or None
            bool (B,); None where the dimension is not that of the images.
        """
        if self._seeds is None or len(self._seeds) != count:
            return None
        place = torch.full_like(self._seeds, -2 - self._calls)  # as `trainer.models.blocks.kept` has them
        self._calls += 1
        return hashed(self._seeds, place) >= rate


@final
class PlannedDropPath(DropPath):
    """timm's stochastic depth (Huang et al. 2016), drawn from seeds.

    Parameters
    ----------
    of
        The layer in whose place it is.
    drawn
        What it is drawn from.
    """

    def __init__(self, of: DropPath, drawn: Drawn) -> None:
        super().__init__(of.drop_prob, of.scale_by_keep)
        self.train(of.training)
        self._drawn = drawn

    def forward(self, x: Tensor) -> Tensor:
        """Leave a branch out, or make up for the others: (B, ...) -> (B, ...)."""
        if not self.drop_prob or not self.training:
            return x
        if (kept := self._drawn.kept(len(x), self.drop_prob)) is None:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        scale = 1 / (1 - self.drop_prob) if self.scale_by_keep else 1.0
        return x * (kept.to(x.dtype) * scale).view(-1, *[1] * (x.ndim - 1))


def planned(model: nn.Module) -> Drawn:
    """Put `PlannedDropPath` in place of all of a model's stochastic depth; return what it is drawn from."""
    drawn = Drawn()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is DropPath:
                setattr(parent, name, PlannedDropPath(child, drawn))
    return drawn
