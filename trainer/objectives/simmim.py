"""SimMIM: hidden squares' embeddings are one learned token, and a linear map of the features predicts their pixels.

Formulas: Xie et al. 2022, arXiv:2111.09886, and its public code (https://github.com/microsoft/SimMIM, MIT).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any, final

import torch
from torch import Tensor, nn

from shardkit import BinnedBatch, Loader
from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmEncoder
from trainer.models.base import ModelConfig
from trainer.models.flops import linear_flops
from trainer.models.places import filled
from trainer.models.with_heads import ENCODER, WithHeads
from trainer.objectives import collapse
from trainer.objectives.pixels import (
    PixelObjective,
    PixelOutput,
    check_squares,
    enlarged,
    hidden_units,
    real_pixels,
    timm_encoder,
)
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class SimMimConfig:
    """SimMIM, for models of timm's with a patch embedding: vision transformers, Swin.

    Parameters
    ----------
    mask_ratio
        Share of an image's squares that is hidden, rounded up to whole squares.
    unit
        Side of a square in pixels, a multiple of the patch embedding's.
    """

    mask_ratio: float = 0.6
    unit: int = 32

    def __post_init__(self) -> None:
        """Refuse values of which no masks can be made."""
        require("objective.mask_ratio", self.mask_ratio, 0 < self.mask_ratio <= 1, "above 0, and 1 at most")

    def build(self, model: ModelConfig, loader: Loader) -> "SimMim":
        """Build the objective and its model, with random weights."""
        return SimMim(SimMimModel(timm_encoder(model, "simmim"), self))


@final
class SimMimModel(WithHeads):
    """An encoder whose patch embeddings are hidden, and the map from its features to pixels.

    Parameters
    ----------
    encoder
        Square images in, a grid of features out.
    config
        What is hidden.

    Raises
    ------
    ArgumentError
        For an encoder without a patch embedding, or squares that are not whole patches of it or of the image.
    """

    encoder: TimmEncoder

    def __init__(self, encoder: TimmEncoder, config: SimMimConfig) -> None:
        super().__init__(encoder)
        embedding = getattr(encoder.encoder, "patch_embed", None)
        if not isinstance(embedding, nn.Module) or not isinstance(getattr(embedding, "proj", None), nn.Conv2d):
            raise ArgumentError(f"simmim hides patch embeddings, and {encoder.name} has none: choose another model")
        kernel: Any = embedding.proj
        check_squares(encoder.side, config.unit, "unit")
        whole = config.unit % kernel.stride[0] == 0
        require("objective.unit", config.unit, whole, f"a multiple of the model's patches, {kernel.stride[0]} pixels")
        self.config, self.rows = config, encoder.side // config.unit
        self.count = ceil(config.mask_ratio * self.rows**2)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, kernel.out_channels))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        stride = encoder.patch
        self.head = nn.Sequential(
            nn.Conv2d(encoder.width, stride**2 * encoder.channels, 1),
            nn.PixelShuffle(stride),  # channels of one colour lie together, pixels row by row
        )
        for unused in encoder.own_pooling("mean"):
            unused.requires_grad_(False)

    def no_weight_decay(self) -> frozenset[str]:
        """Return what timm names of the encoder, as the method's code does; the mask token decays."""
        return frozenset(f"{ENCODER}{name}" for name in self.encoder.no_weight_decay())

    def head_flops(self, tokens: int) -> float:
        """See `WithHeads`: of the map from features to pixels."""
        return float(tokens * linear_flops(self.head))

    def forward(self, batch: BinnedBatch) -> PixelOutput:
        """Hide squares, and predict all pixels."""
        hidden = hidden_units(batch.seeds, self.rows, self.rows, self.count)
        with _replaced(self.encoder.encoder.patch_embed, self.mask_token, hidden, batch):
            features = self.encoder.features(batch)
        grid = isqrt(len(features.tokens) // features.places)
        maps = features.tokens.view(features.places, grid, grid, -1).permute(0, 3, 1, 2)
        prediction, pixels = self.head(maps), enlarged(hidden, self.config.unit)
        losses = masked_error(prediction, batch.images, pixels & real_pixels(batch), batch.weight)
        found = collapse.of_features(features.mean(), batch.weight)
        return PixelOutput(losses, batch.weight, prediction, pixels, metrics=found)


def masked_error(prediction: Tensor, images: Tensor, hidden: Tensor, weight: Tensor) -> Tensor:
    """Return each image's part of the loss: (B,).

    The mean over images that count is that of the micro-batch, sum |x - x^| m / (sum m + 1e-5) / C: hidden pixels weigh
    the same, whatever image they are of.

    Parameters
    ----------
    prediction
        (B, C, H, W).
    images
        (B, 1, H, W), which are the target of all channels.
    hidden
        bool (B, H, W), the pixels that count.
    weight
        (B,), 1 for an image that counts.
    """
    mask = hidden[:, None].to(torch.promote_types(images.dtype, torch.float32))
    error = ((images - prediction).abs() * mask).sum((1, 2, 3))
    return error * weight.sum().to(error.dtype) / (mask.sum() + 1e-5) / prediction.shape[1]


@contextmanager
def _replaced(embedding: nn.Module, token: Tensor, hidden: Tensor, batch: BinnedBatch) -> Iterator[None]:
    """Have a patch embedding give `token` where a patch is hidden, before positions are added to it.

    Parameters
    ----------
    embedding
        Gives (B, rows * cols, width), or (B, rows, cols, width).
    token
        (1, 1, width).
    hidden
        bool (B, n, n), squares of whole patches.
    batch
        Whose images it may be run on alone, without empty places.
    """

    def replace(module: nn.Module, given: Any, x: Tensor) -> Tensor:
        if x.shape[-1] != token.shape[-1]:
            raise ArgumentError("simmim needs patch embeddings with channels last: choose another model")
        own = hidden if len(x) == len(hidden) else hidden[filled(batch)]
        cells = isqrt(x.shape[1]) if x.ndim == 3 else x.shape[1]
        mask = enlarged(own, cells // own.shape[1]).reshape(*x.shape[:-1], 1)
        return torch.where(mask, token.view(-1).to(x.dtype), x)

    hook = embedding.register_forward_hook(replace)
    try:
        yield
    finally:
        hook.remove()


@final
class SimMim(PixelObjective):
    """SimMIM.

    Parameters
    ----------
    model
        Hides, predicts and takes the error.
    """

    model: SimMimModel

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Mean absolute error over hidden pixels, as the images are normalised; in a micro-batch each hidden pixel"
            " counts the same. It does not say how useful the features are: only a task with labels does."
        )
