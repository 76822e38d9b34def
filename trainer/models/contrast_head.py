"""A perceptron on class tokens for a contrast: linear maps, each normalised over the images of a micro-batch."""

from itertools import pairwise
from typing import final

from torch import Tensor, nn
from torch.nn import functional as F

from trainer.models.batch_norm import BatchNorm

_EPS = 1e-5


@final
class ContrastHead(nn.Module):
    """Linear - norm - ReLU - linear - norm - GELU - linear - norm without weights. Linear maps have no offsets.

    Parameters
    ----------
    width
        Channels of a class token.
    hidden
        Channels of the first two maps.
    out
        Channels of the last one.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        sizes = (width, hidden, hidden, out)
        self.maps = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in pairwise(sizes))
        self.norms = nn.ModuleList(BatchNorm(b, _EPS, affine=at < 2) for at, b in enumerate(sizes[1:]))

    def forward(self, tokens: Tensor, there: Tensor) -> Tensor:
        """Return what is compared: (S, width) -> (S, out).

        Parameters
        ----------
        tokens
            Class tokens.
        there
            bool (S,), whether there is an image.
        """
        x = F.relu(self.norms[0](self.maps[0](tokens), there))
        x = F.gelu(self.norms[1](self.maps[1](x), there))
        found: Tensor = self.norms[2](self.maps[2](x), there)
        return found

    def stepped(self) -> None:
        """Let running statistics follow a step: all processes call it."""
        for norm in self.norms:
            norm.stepped()  # type: ignore[operator]

    def skipped(self) -> None:
        """Forget a step that was not taken."""
        for norm in self.norms:
            norm.skipped()  # type: ignore[operator]
