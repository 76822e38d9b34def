"""The network of DINO: an encoder, a perceptron, and a map to many outputs (Caron et al. 2021, arXiv:2104.14294)."""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from shardkit import BinnedBatch
from trainer.models.encoder import Encoder, Features
from trainer.models.flops import linear_flops
from trainer.models.with_heads import WithHeads
from trainer.objectives.followers import first_view
from trainer.objectives.views import batched, require_views


class Outputs(nn.Module):
    """A linear map without bias whose rows are v / |v| times a gain (weight normalisation, Salimans and Kingma 2016).

    Parameters
    ----------
    width, outputs
        Channels in and out.
    fixed
        Whether the gain stays 1; else each output learns its own.
    """

    def __init__(self, width: int, outputs: int, fixed: bool) -> None:
        super().__init__()
        self.fixed = fixed
        self.direction = nn.Parameter(nn.Linear(width, outputs, bias=False).weight.detach())
        self.gain = nn.Parameter(torch.ones(outputs, 1), requires_grad=not fixed)

    def forward(self, x: Tensor) -> Tensor:
        """Map: (n, width) -> (n, outputs)."""
        rows = normalize(self.direction, dim=1)
        return linear(x, rows if self.fixed else rows * self.gain)


class DinoHead(nn.Module):
    """A perceptron with GELUs, features of length 1, and their map to outputs.

    Parameters
    ----------
    width
        Channels of the encoder's features.
    hidden, bottleneck, layers
        Hidden channels of the perceptron, its last ones, and how many linear maps it has.
    outputs, fixed
        As of `Outputs`.
    """

    def __init__(self, width: int, hidden: int, bottleneck: int, layers: int, outputs: int, fixed: bool) -> None:
        super().__init__()
        sizes = [width, *[hidden] * (layers - 1), bottleneck]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            parts += [nn.Linear(before, after), nn.GELU()]
        self.mlp = nn.Sequential(*parts[:-1])
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.last = Outputs(bottleneck, outputs, fixed)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: (n, width) -> (n, outputs)."""
        return self.last(normalize(self.mlp(x), dim=-1))  # type: ignore[no-any-return]


@final
class DinoNetwork(WithHeads):
    """An encoder and its head.

    Parameters
    ----------
    encoder
        Gives a feature of an image: its class token, or the mean of its tokens where it has none.
    head
        Makes logits of it.
    """

    def __init__(self, encoder: Encoder, head: DinoHead) -> None:
        super().__init__(encoder)
        self.head = head
        layout = getattr(encoder, "layout", None)
        for unused in encoder.own_pooling("token" if layout is None or layout.class_token else "mean"):
            unused.requires_grad_(False)

    def forward(self, views: Sequence[BinnedBatch]) -> tuple[Tensor, Tensor]:
        """Run views of a sample; those of one size that follow one another go through the encoder together.

        Parameters
        ----------
        views
            V batches of B images.

        Returns
        -------
        tuple of Tensor
            (V, B, width), features; (V, B, outputs), logits.
        """
        groups = [batched(list(same)) for _, same in groupby(views, key=lambda view: view.images.shape)]
        found = torch.cat([feature(self.encoder.features(group)) for group in groups])
        logits, shape = self.head(found), (len(views), len(views[0].rows), -1)
        return found.view(shape), logits.view(shape)

    def head_flops(self, tokens: int) -> float:
        """See `WithHeads`: once a view."""
        return float(linear_flops(self.head) + 2 * self.head.last.direction.numel())

    def check_batching(self, batching: Any) -> None:
        """See `Model`: there are two views or more, and the encoder's size is that of the first one."""
        require_views(batching, 2, getattr(self.encoder, "side", 224))
        self.encoder.check_batching(first_view(batching))


def feature(of: Features) -> Tensor:
    """Return an image's class token, or the mean of its tokens where there is none: (S, width)."""
    return of.mean() if of.class_token is None else of.class_token
