"""An encoder with a head: scores of classes, from the mean of an image's tokens or from its class token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import Batch, Model
from trainer.models.encoder import Encoder, Features


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """What becomes of features.

    Parameters
    ----------
    pool
        mean: the mean of an image's tokens; token: its class token.
    norm
        A fresh norm after the pooling, in place of the encoder's last one, as fine-tuning of masked autoencoders has it
        (fc_norm).
    std
        Standard deviation of the linear map's first weights.
    """

    pool: Literal["mean", "token"] = "mean"
    norm: bool = True
    std: float = 0.02


class Head(nn.Module):
    """Pooling, a norm maybe, and a linear map.

    `offset` and `scale` are mean and deviation of a regression's targets in the training split, so that its scores are
    in the labels' unit; 0 and 1 for other tasks. They lie in checkpoints.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, width: int, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        self.fc_norm: nn.Module = nn.LayerNorm(width, eps=1e-6) if config.norm else nn.Identity()
        self.fc = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.fc.weight, std=config.std)
        nn.init.zeros_(self.fc.bias)
        self.register_buffer("offset", torch.zeros(classes))
        self.register_buffer("scale", torch.ones(classes))

    def forward(self, features: Features) -> Tensor:
        """Return scores: (S, classes)."""
        found: Tensor = self.fc(self.fc_norm(pooled(features, self.config.pool)))
        return found * self.scale + self.offset


def pooled(features: Features, how: Literal["mean", "token"]) -> Tensor:
    """Return one feature an image: (S, width)."""
    if how == "mean":
        return features.mean()
    if features.class_token is None:
        raise ArgumentError("this encoder has no class token: use --objective.head.pool mean")
    return features.class_token


@final
class Classifier(Model):
    """Scores of classes.

    Parameters
    ----------
    encoder
        Gives the features.
    classes
        Number of scores of an image.
    config
        Describes the head.
    """

    def __init__(self, encoder: Encoder, classes: int, config: HeadConfig) -> None:
        super().__init__()
        self.encoder, self.head = encoder, Head(encoder.width, classes, config)

    @property
    def patch(self) -> int:
        """Side of a token in pixels."""
        return self.encoder.patch

    @property
    def all_blocks(self) -> Sequence[nn.Module]:
        """The encoder's."""
        return self.encoder.all_blocks

    def forward(self, batch: Batch) -> Tensor:
        """Return scores of a batch with S places: (S, classes)."""
        return self.head(self.encoder.features(batch))  # type: ignore[no-any-return]

    def no_weight_decay(self) -> frozenset[str]:
        """Return the encoder's names."""
        return frozenset(f"encoder.{name}" for name in self.encoder.no_weight_decay())

    def check_batching(self, batching: Any) -> None:
        """See `Model`."""
        self.encoder.check_batching(batching)

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the encoder's, for the head costs next to nothing."""
        return self.encoder.flops(tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`."""
        return self.encoder.run_flops(batch)
