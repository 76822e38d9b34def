"""The network of MoCo v2: an encoder with its own pooling, and a perceptron (Chen et al. 2020, arXiv:2003.04297)."""

from typing import Any, final

from torch import Tensor, nn
from torch.nn.functional import normalize

from shardkit import BinnedBatch
from trainer.models.classifier import pooled
from trainer.models.encoder import Encoder
from trainer.models.flops import linear_flops
from trainer.models.with_heads import WithHeads
from trainer.objectives.followers import first_view
from trainer.objectives.views import require_views


@final
class MocoNetwork(WithHeads):
    """An encoder and its head: two linear maps with a ReLU between.

    Parameters
    ----------
    encoder
        Its own pooling gives a feature of an image.
    hidden
        Hidden channels of the head; 0 are as many as those of a feature.
    width
        Channels of a query or key.
    """

    def __init__(self, encoder: Encoder, hidden: int, width: int) -> None:
        super().__init__(encoder)
        own = encoder.own_width
        self.head = nn.Sequential(nn.Linear(own, hidden or own), nn.ReLU(), nn.Linear(hidden or own, width))

    def forward(self, view: BinnedBatch) -> tuple[Tensor, Tensor]:
        """Run images of one size.

        Returns
        -------
        tuple of Tensor
            (B, own width), features; (B, width), queries or keys, of length 1.
        """
        found = pooled(self.encoder.features(view), "own")
        return found, normalize(self.head(found), dim=1)

    def head_flops(self, tokens: int) -> float:
        """See `WithHeads`: once a view."""
        return float(linear_flops(self.head))

    def check_batching(self, batching: Any) -> None:
        """See `Model`: there are two views or more, and the encoder's size is that of the first one."""
        require_views(batching, 2, getattr(self.encoder, "side", 224))
        self.encoder.check_batching(first_view(batching))
