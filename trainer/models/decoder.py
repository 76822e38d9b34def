"""The decoder that all masked autoencoders here have; its layers have the names of the public code."""

from abc import ABC
from typing import Protocol

import torch
from torch import nn

from trainer.models.base import Model
from trainer.models.blocks import Block, check_blocks
from trainer.values import require


class DecoderConfig(Protocol):
    """What a model's record says of its decoder."""

    @property
    def decoder_width(self) -> int:
        """Number of channels."""

    @property
    def decoder_depth(self) -> int:
        """Number of blocks."""

    @property
    def decoder_heads(self) -> int:
        """Number of attention heads in a block."""

    @property
    def norm_eps(self) -> float:
        """Number added to a norm's variance."""


def check_decoder(config: DecoderConfig) -> None:
    """Refuse values of which no decoder can be made; one without blocks is a linear map.

    Raises
    ------
    ArgumentError
        For such values.
    """
    check_blocks("decoder_", config.decoder_width, config.decoder_heads)
    require("model.decoder_depth", config.decoder_depth, config.decoder_depth >= 0, "0 or more")


class MaskedAutoencoder(Model, ABC):
    """A model that predicts every patch from the encoder's output and, where a patch was hidden, a mask token."""

    def add_decoder(self, width: int, config: DecoderConfig, mlp_ratio: float) -> None:
        """Make the decoder's layers; the order in which they are made decides what random weights they get.

        Parameters
        ----------
        width
            Channels of the encoder.
        config
            The model's record.
        mlp_ratio
            Hidden channels of a perceptron, in widths.
        """
        c = config
        self.decoder_embed = nn.Linear(width, c.decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, c.decoder_width))
        self.decoder_blocks = nn.ModuleList(
            Block(c.decoder_width, c.decoder_heads, mlp_ratio, c.norm_eps) for _ in range(c.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(c.decoder_width, eps=c.norm_eps)
        self.decoder_pred = nn.Linear(c.decoder_width, self.patch**2)
