"""In-painting: a masked autoencoder of convolutions. Squares of an image are made 0, and a U-Net predicts all of it.

As the convolutional baseline of Xiao et al. 2023 (WACV), Delving into masked autoencoders for multi-label thorax
disease classification: a U-Net on DenseNet-121.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from shardkit import BinnedBatch, Loader
from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Batch, ModelConfig
from trainer.models.places import count_filled, filled, put_back
from trainer.models.running import Running
from trainer.models.unet import WIDTHS, UnetDecoder
from trainer.models.with_heads import WithHeads
from trainer.objectives import collapse
from trainer.objectives.baseline import mean_image_error
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

_CELL = 16  # pixels of the baseline's tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class InpaintingConfig:
    """In-painting, for convolutional networks of timm's.

    Parameters
    ----------
    mask_ratio
        Share of an image's squares that is hidden; what is shown is rounded down to whole squares.
    unit
        Side of a square in pixels.
    decoder
        Channels of the U-Net's stages, from the deepest feature map; each doubles rows and columns.
    """

    mask_ratio: float = 0.75
    unit: int = 16
    decoder: tuple[int, ...] = WIDTHS

    def __post_init__(self) -> None:
        """Refuse values of which no masks can be made."""
        require("objective.mask_ratio", self.mask_ratio, 0 < self.mask_ratio < 1, "above 0, and below 1")
        require("objective.decoder", self.decoder, min(self.decoder, default=0) >= 1, "channels, 1 or more each")

    def build(self, model: ModelConfig, loader: Loader) -> "Inpainting":
        """Build the objective and its model, with random weights."""
        return Inpainting(InpaintingModel(timm_encoder(model, "inpainting"), self))


def pyramid(encoder: TimmEncoder) -> dict[int, tuple[str, int]]:
    """Return where an encoder's feature maps are above the deepest one: name of the module and channels, by stride.

    Of DenseNets they are taken behind norm and ReLU of the transitions, as the U-Nets of the studies do.

    Raises
    ------
    ArgumentError
        For an encoder without such maps.
    """
    information: Any = getattr(encoder.encoder, "feature_info", ())
    if encoder.layout.order != "NCHW" or encoder.patch & (encoder.patch - 1) or not information:
        raise ArgumentError(
            f"in-painting needs the feature maps of convolutions, which {encoder.name} has not: choose another"
            " --model, such as timm:densenet121"
        )
    found: dict[int, tuple[str, int]] = {}
    modules = dict(encoder.encoder.named_modules())
    for of in getattr(information, "info", information):
        norm = re.sub(r"denseblock(\d+)$", r"transition\1.norm", of["module"])
        if of["reduction"] < encoder.patch:
            found[of["reduction"]] = (norm if norm in modules else of["module"], of["num_chs"])
    return found


@final
class InpaintingModel(WithHeads):
    """An encoder, and a U-Net's decoder on its feature maps.

    Parameters
    ----------
    encoder
        A convolutional network for square images.
    config
        What is hidden.

    Raises
    ------
    ArgumentError
        For an encoder without feature maps, or squares that do not tile the image.
    """

    encoder: TimmEncoder

    def __init__(self, encoder: TimmEncoder, config: InpaintingConfig) -> None:
        super().__init__(encoder)
        check_squares(encoder.side, config.unit, "unit")
        whole = f"a multiple of {encoder.patch}, pixels of the deepest feature map's cells"
        require("model.side", encoder.side, encoder.side % encoder.patch == 0, whole)
        self.config, self.rows = config, encoder.side // config.unit
        self.count = self.rows**2 - int(self.rows**2 * (1 - config.mask_ratio))
        stages, enough = encoder.patch.bit_length() - 1, len(config.decoder) >= encoder.patch.bit_length() - 1
        require("objective.decoder", config.decoder, enough, f"{stages} numbers for {encoder.name}, or more")
        self.pyramid = pyramid(encoder)
        skips = tuple((stride, width) for stride, (_, width) in self.pyramid.items())
        self._decoder = encoder.width, encoder.patch, skips, encoder.channels, config.decoder
        self.decoder = UnetDecoder(encoder.width, encoder.patch, dict(skips), encoder.channels, config.decoder)
        self._running = Running(self.decoder)
        for unused in encoder.own_pooling("mean"):
            unused.requires_grad_(False)

    def forward(self, batch: BinnedBatch) -> PixelOutput:
        """Hide squares, and predict all pixels."""
        hidden = enlarged(hidden_units(batch.seeds, self.rows, self.rows, self.count), self.config.unit)
        with self._kept() as maps:
            features = self.encoder.features(replace(batch, images=batch.images.masked_fill(hidden[:, None], 0)))
        grid = self.encoder.side // self.encoder.patch
        deepest = features.tokens.view(features.places, grid, grid, -1).permute(0, 3, 1, 2)
        prediction = self._decoded(deepest, maps, batch)
        losses = pixel_error(prediction, batch.images, real_pixels(batch))
        found = collapse.of_features(features.mean(), batch.weight)
        return PixelOutput(losses, batch.weight, prediction, hidden, metrics=found)

    def _decoded(self, deepest: Tensor, maps: dict[int, Tensor], batch: BinnedBatch) -> Tensor:
        """Decode the images that there are: in training empty places are in no statistics of batch normalisation."""
        if not self.training:
            return self.decoder(deepest, maps)  # type: ignore[no-any-return]
        self._running.begin()
        count = count_filled(batch)
        if not count:
            self.decoder.eval()
            empty: Tensor = self.decoder(deepest, maps)
            self.decoder.train()
            return empty
        # Where places are empty, the encoder ran, and its maps are, of the others alone.
        own = deepest if count == len(deepest) else deepest[filled(batch)]
        return put_back(self.decoder(own, maps), batch)

    @contextmanager
    def _kept(self) -> Iterator[dict[int, Tensor]]:
        """Keep the encoder's maps, by stride, while it runs."""
        maps: dict[int, Tensor] = {}

        def keep(stride: int) -> Callable[[nn.Module, Any, Tensor], None]:
            return lambda module, given, x: maps.__setitem__(stride, x)

        modules = ((stride, self.encoder.encoder.get_submodule(name)) for stride, (name, _) in self.pyramid.items())
        hooks = [module.register_forward_hook(keep(stride)) for stride, module in modules]
        try:
            yield maps
        finally:
            for hook in hooks:
                hook.remove()

    def stepped(self) -> None:
        """Let the running statistics of encoder and decoder follow a step."""
        super().stepped()
        self._running.stepped()

    def skipped(self) -> None:
        """Leave the running statistics as they were before the step."""
        super().skipped()
        self._running.skipped()

    def flops(self, tokens: Tensor) -> Tensor:
        """See `Model`: the encoder's and the decoder's, which are as many."""
        return self.encoder.flops(tokens) + (tokens > 0) * (3.0 * decoder_flops(self.encoder.side, *self._decoder))

    def run_flops(self, batch: Batch) -> Tensor:
        """See `Model`: the same for every place of a batch."""
        own = 3.0 * decoder_flops(self.encoder.side, *self._decoder)
        return self.encoder.run_flops(batch) + own * len(batch.weight)


@lru_cache
def decoder_flops(
    side: int,
    width: int,
    stride: int,
    skips: tuple[tuple[int, int], ...],
    channels: int,
    widths: tuple[int, ...] = WIDTHS,
) -> int:
    """Return the operations of one image's decoding, a multiply-add being two; arguments as of `UnetDecoder`."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        maps = {at: torch.empty(1, own, side // at, side // at) for at, own in skips}
        decoder = UnetDecoder(width, stride, dict(skips), channels, widths).eval()
        decoder(torch.empty(1, width, side // stride, side // stride), maps)
    return int(counter.get_total_flops())


def pixel_error(prediction: Tensor, images: Tensor, real: Tensor) -> Tensor:
    """Return each image's mean squared error over all its pixels, hidden or not, and over channels: (B,).

    Parameters
    ----------
    prediction
        (B, C, H, W).
    images
        (B, 1, H, W), which are the target of all channels.
    real
        bool (B, H, W), the pixels that count.
    """
    mask = real[:, None].to(torch.promote_types(images.dtype, torch.float32))
    error = ((images - prediction).square() * mask).sum((1, 2, 3))
    return error / mask.sum((1, 2, 3)).clamp(min=1) / prediction.shape[1]


@final
class Inpainting(PixelObjective):
    """In-painting.

    Parameters
    ----------
    model
        Hides, predicts and takes the error.
    """

    model: InpaintingModel
    whole = True

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return (
            "Mean squared error over all pixels of an image, hidden or not, as it is normalised, each image counting"
            " the same; padding does not count. It does not say how useful the features are: only a task with labels"
            " does."
        )

    def baseline(self, open_loader: Callable[[], Loader], batches: int) -> dict[str, float] | None:
        """Measure the mean image's error."""
        return {"mean_image": mean_image_error(open_loader(), _CELL, batches)}
