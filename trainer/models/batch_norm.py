"""Features normalised by their statistics over images: the same on any number of processes."""

from typing import final

import torch
from torch import Tensor, nn

from trainer import parallel

_MOMENTUM = 0.1


@final
class BatchNorm(nn.Module):
    """Batch normalisation, without weights of its own unless they are asked for.

    In training a micro-batch, which is a unit of the plan, is normalised by itself. Running statistics are of all
    images of a global step, on all processes, and follow once a step; evaluation uses them. Places without an image
    count in neither.

    Parameters
    ----------
    width
        Channels.
    eps
        Added to the variance.
    affine
        Whether what is normalised has a trained scale and offset.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-6, affine: bool = False) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width)) if affine else None
        self.bias = nn.Parameter(torch.zeros(width)) if affine else None
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))
        self._sums: Tensor | None = None  # no buffer: DDP would overwrite it with the first process's

    def forward(self, x: Tensor, there: Tensor) -> Tensor:
        """Normalise: (S, width) -> (S, width).

        Parameters
        ----------
        x
            Features.
        there
            bool (S,), whether there is an image.
        """
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        if not self.training:
            return self._scaled((x - self.running_mean) / (self.running_var + self.eps).sqrt())
        weight = there.to(x.dtype)[:, None]
        mean = (x * weight).sum(0) / weight.sum().clamp(min=1)
        var = ((x - mean).square() * weight).sum(0) / weight.sum().clamp(min=1)
        self._count(x.detach().double() * weight, weight)
        return self._scaled((x - mean) / (var + self.eps).sqrt())

    def _scaled(self, x: Tensor) -> Tensor:
        return x if self.weight is None or self.bias is None else x * self.weight + self.bias

    def _count(self, x: Tensor, weight: Tensor) -> None:
        new = torch.stack([x.sum(0), x.square().sum(0), weight.double().sum().expand(x.shape[1])])
        self._sums = new if self._sums is None else self._sums + new

    @torch.no_grad()
    def stepped(self) -> None:
        """Follow a step: all processes call it."""
        if self._sums is None:
            return
        (total, squares, number), self._sums = parallel.all_reduce_sum(self._sums), None
        count = number[0]
        mean = total / count.clamp(min=1)
        var = (squares - count * mean.square()) / (count - 1).clamp(min=1)  # as torch: without the sample's bias
        follow = (count > 1) & torch.isfinite(mean + var).all()  # asked on the device, so that nobody waits for it
        for running, new in ((self.running_mean, mean), (self.running_var, var.clamp(min=0))):
            running.lerp_(torch.where(follow, new.to(running), running), _MOMENTUM)

    def skipped(self) -> None:
        """Forget a step that was not taken."""
        self._sums = None
