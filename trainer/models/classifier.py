"""An encoder with a head: scores of classes, from the mean of an image's tokens or from its class token."""

from dataclasses import dataclass
from typing import Final, Literal, final

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import Batch
from trainer.models.batch_norm import BatchNorm
from trainer.models.encoder import Encoder, Features
from trainer.models.with_heads import ENCODER, WithHeads

FC_NORM: Final = "head.fc_norm."
HEAD: Final = "head.fc.weight"
"""Names of parameters: how those of the head's norm begin, and one that only a classifier has."""


Pool = Literal["mean", "token", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadConfig:
    """What becomes of features.

    Parameters
    ----------
    pool
        mean: the mean of an image's tokens; token: its class token; own: as the encoder's authors pool.
    norm
        A fresh norm after the pooling, in place of the encoder's last one, as fine-tuning of masked autoencoders has it
        (fc_norm).
    std
        Standard deviation of the linear map's first weights.
    batch_norm
        Normalise features by their statistics over images before the linear map, without weights of its own, as probes
        of masked autoencoders do.
    """

    pool: Pool = "mean"
    norm: bool = True
    std: float = 0.02
    batch_norm: bool = False


class Head(nn.Module):
    """Pooling, a norm maybe, and a linear map.

    `offset` and `scale` are mean and deviation of a regression's targets in the training split, so that its scores are
    in the labels' unit; 0 and 1 for other tasks. They lie in checkpoints.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, width: int, classes: int, config: HeadConfig, norm_eps: float = 1e-6) -> None:
        super().__init__()
        self.config = config
        self.fc_norm: nn.Module = nn.LayerNorm(width, eps=norm_eps) if config.norm else nn.Identity()
        self.batch_norm = BatchNorm(width) if config.batch_norm else None
        self.fc = nn.Linear(width, classes)
        nn.init.trunc_normal_(self.fc.weight, std=config.std)
        nn.init.zeros_(self.fc.bias)
        self.register_buffer("offset", torch.zeros(classes))
        self.register_buffer("scale", torch.ones(classes))

    def forward(self, features: Features) -> Tensor:
        """Return scores: (S, classes)."""
        found = self.fc_norm(pooled(features, self.config.pool))
        if self.batch_norm is not None:
            found = self.batch_norm(found, features.there)
        with torch.autocast(found.device.type, enabled=False):  # bfloat16 leaves a few hundred scores, and makes ties
            scores: Tensor = self.fc(found.to(self.fc.weight.dtype))
            return scores * self.scale + self.offset


def pooled(features: Features, how: Pool) -> Tensor:
    """Return one feature an image: (S, width)."""
    if how == "mean":
        return features.mean()
    if how == "own" and features.own is not None:
        return features.own(features.tokens)
    if how == "own" or features.class_token is None:
        raise ArgumentError("this encoder has no class token: use --objective.head.pool mean, or own")
    return features.class_token


@final
class Classifier(WithHeads):
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
        super().__init__(encoder)
        width = encoder.own_width if config.pool == "own" else encoder.width
        self.head = Head(width, classes, config, encoder.norm_eps)
        for unused in () if config.pool == "own" else encoder.own_pooling(config.pool):
            unused.requires_grad_(False)

    def forward(self, batch: Batch) -> Tensor:
        """Return scores of a batch with S places: (S, classes)."""
        return self.head(self.encoder.features(batch))  # type: ignore[no-any-return]

    def no_weight_decay(self) -> frozenset[str]:
        """Return the encoder's names."""
        return frozenset(f"{ENCODER}{name}" for name in self.encoder.no_weight_decay())

    def stepped(self) -> None:
        """Let the running statistics follow a step."""
        super().stepped()
        if self.head.batch_norm is not None:
            self.head.batch_norm.stepped()

    def skipped(self) -> None:
        """Leave the running statistics as they were before the step."""
        super().skipped()
        if self.head.batch_norm is not None:
            self.head.batch_norm.skipped()
