"""The decoder that all masked autoencoders here have; its layers have the names of the public code."""

from abc import ABC
from typing import Protocol

import torch
from torch import Tensor, nn

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

    def with_mask_tokens(self, x: Tensor, source: Tensor) -> Tensor:
        """Put the encoder's outputs where they belong, and the mask token everywhere else.

        Outputs are copied to their places. Were they taken by an index, as elsewhere, from a table that ends in the
        mask token, a GPU would sum its gradient place after place, for all hidden patches.

        Parameters
        ----------
        x
            (E, width), outputs.
        source
            int64 (N,), which output belongs in each place, each of them in one at most; E for the mask token.

        Returns
        -------
        Tensor
            (N, width).
        """
        outputs, places = x.shape[0], source.shape[0]
        place = source.new_full((outputs + 1,), places)  # of each output; those that belong nowhere lie behind the last
        place = place.scatter(0, source, torch.arange(places, device=x.device))[:outputs]
        put = x.new_zeros(places + 1, x.shape[1]).index_copy(0, place, x)[:places]
        return torch.where((source == outputs)[:, None], self.mask_token[0].to(x.dtype), put)
