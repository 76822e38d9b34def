"""Encoders of timm's under a head that gives every pixel: what methods share that repair corrupted images."""

from abc import ABC
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmConfig, TimmEncoder
from trainer.models.base import ModelConfig
from trainer.models.encoder import Features
from trainer.models.flops import linear_flops
from trainer.models.with_heads import WithHeads


@final
class ReconstructionHead(nn.Module):
    """Three linear maps with GELU on each token, then a transposed convolution of a patch's side.

    Parameters
    ----------
    width
        Channels of a token.
    patch
        Side of a patch in pixels.
    channels
        Of the images.
    """

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(*(part for _ in range(3) for part in (nn.Linear(width, width), nn.GELU())))
        self.pixels = nn.ConvTranspose2d(width, channels, patch, patch)
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)

    def forward(self, tokens: Tensor, rows: int) -> Tensor:
        """Return images: (B, rows * cols, width) -> (B, channels, H, W)."""
        grid = self.mlp(tokens).transpose(1, 2).unflatten(2, (rows, -1))
        found: Tensor = self.pixels(grid)
        return found


class Repairer(WithHeads, ABC):
    """A vision transformer of timm's, and a head that gives every pixel.

    Parameters
    ----------
    config
        Describes the encoder.

    Raises
    ------
    ArgumentError
        For a model that is no vision transformer of timm's with a class token.
    """

    encoder: TimmEncoder

    def __init__(self, config: ModelConfig) -> None:
        if not isinstance(config, TimmConfig):
            raise ArgumentError("this method is for vision transformers of timm's: use --model timm:NAME")
        encoder = config.encoder()
        vit: Any = encoder.encoder
        if not encoder.layout.class_token or not hasattr(vit, "blocks"):
            raise ArgumentError(
                f"{config.name} is no vision transformer with a class token: choose another --model,"
                " such as timm:vit_small_patch16_224"
            )
        super().__init__(encoder)
        self.reconstruction = ReconstructionHead(encoder.width, encoder.patch, encoder.channels)
        for unused in encoder.own_pooling("token"):
            unused.requires_grad_(False)

    @property
    def all_layers(self) -> Sequence[nn.Module]:
        """The encoder's blocks."""
        vit: Any = self.encoder.encoder
        return [*vit.blocks]

    def check_batching(self, batching: Any) -> None:
        """See `Model`: every view has the encoder's size."""
        for view in getattr(batching, "views", (batching,)):
            self.encoder.check_batching(view)

    def head_flops(self, tokens: int) -> float:
        """See `WithHeads`: of the map from tokens to pixels."""
        return float(tokens * linear_flops(self.reconstruction))

    def repaired(self, tokens: Tensor) -> Tensor:
        """Return the head's images of patch tokens: (B, n, width) -> (B, channels, H, W)."""
        found: Tensor = self.reconstruction(tokens, self.encoder.layout.rows)
        return found

    def last_norm(self, tokens: Tensor) -> Tensor:
        """Return tokens through the encoder's final norm."""
        vit: Any = self.encoder.encoder
        found: Tensor = vit.norm(tokens)
        return found


def tokens_of(features: Features) -> Tensor:
    """Return patch tokens image by image: (S, n, width)."""
    return features.tokens.view(features.places, -1, features.tokens.shape[1])


@contextmanager
def outputs_of(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what blocks give in a forward pass, as it is and in their order."""
    found: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda module, given, out: found.append(out)) for block in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
