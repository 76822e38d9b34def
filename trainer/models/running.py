"""Running statistics of batch normalisation over the steps of a run: one set for all processes, undone with a step."""

import torch
from torch import Tensor, nn

from trainer import parallel

_NAMES = ("running_mean", "running_var", "num_batches_tracked")


class Running:
    """Follows the running statistics of all layers in a module.

    Each process normalises by its own micro-batch, and after a step the statistics become the mean over processes.

    Parameters
    ----------
    module
        Whose layers they are.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._before: list[Tensor] | None = None  # as they were before the step

    def begin(self) -> None:
        """Keep what they are, ahead of a micro-batch of training; the first one of a step counts."""
        if self._before is None:
            self._before = [b.clone() for b in self._held()]

    @torch.no_grad()
    def stepped(self) -> None:
        """Average them over processes, on all of them."""
        held = [b for b in self._held() if b.is_floating_point()]
        if held and self._module.training:
            parallel.average(held)
        self._before = None

    @torch.no_grad()
    def skipped(self) -> None:
        """Take back what the step made of them."""
        for now, before in zip(self._held(), self._before or (), strict=False):
            now.copy_(before)
        self._before = None

    def _held(self) -> list[Tensor]:
        return [b for name, b in self._module.named_buffers() if name.endswith(_NAMES)]
