"""An encoder with a head: scores of classes, from the mean of an image's tokens or from its class token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import Batch, Grey, Model
from trainer.models.batch_norm import BatchNorm
from trainer.models.encoder import Encoder, Features

ENCODER: Final = "encoder."
FC_NORM: Final = "head.fc_norm."
HEAD: Final = "head.fc.weight"
"""Names of parameters: how the encoder's begin, those of the head's norm, and one that only a classifier has."""


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
        scores: Tensor = self.fc(found)
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
        width = encoder.own_width if config.pool == "own" else encoder.width
        self.encoder, self.head = encoder, Head(width, classes, config, encoder.norm_eps)
        for unused in () if config.pool == "own" else encoder.own_pooling(config.pool):
            unused.requires_grad_(False)

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
        return frozenset(f"{ENCODER}{name}" for name in self.encoder.no_weight_decay())

    @property
    def layers(self) -> int:
        """The encoder's: the head is of its last one."""
        return self.encoder.layers

    def layer_of(self, name: str) -> int:
        """See `Model`."""
        return self.encoder.layer_of(name.removeprefix(ENCODER)) if name.startswith(ENCODER) else self.layers

    def stepped(self) -> None:
        """Let the running statistics follow a step."""
        self.encoder.stepped()
        if self.head.batch_norm is not None:
            self.head.batch_norm.stepped()

    @property
    def initial(self) -> str | None:
        """See `Model`: the encoder's."""
        return self.encoder.initial

    @property
    def first_kernel(self) -> str:
        """See `Model`: the encoder's."""
        return self.encoder.first_kernel

    def load_weights(self, state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
        """See `Model`: the encoder's; a head of another program is left out."""
        return self.encoder.load_weights(state, channels)

    def check_batching(self, batching: Any) -> None:
        """See `Model`."""
        self.encoder.check_batching(batching)

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the encoder's, for the head costs next to nothing."""
        return self.encoder.flops(tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`."""
        return self.encoder.run_flops(batch)
