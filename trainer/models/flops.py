"""Floating-point operations of a masked autoencoder, exact for linear maps and attention, and what a device can do.

A multiply-add counts as two operations, and training as three times the forward pass, for the backward pass costs
twice as much. MFU counts the operations that images need, `image_flops`. HFU counts those that are run, `run_flops`:
padding, filler and places without an image, too. Elsewhere HFU includes the operations of recomputation. Ours leaves
out what attention computes again in its backward pass, so that both shares have one peak, and their ratio is what
padding costs.
"""

from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.masking import capacity, cuts
from trainer.models.sequences import Sequences

if TYPE_CHECKING:  # it counts its own operations with this module
    from trainer.models.mae import MaeConfig
    from trainer.models.vit import VitConfig

Count = TypeVar("Count", float, Tensor)

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "A40": 149.7, "L40S": 362.0, "V100": 125.0}
"""Dense half-precision peaks by a part of the device's name, TFLOP/s, of the manufacturer's data sheets."""


def encoder_flops(config: "VitConfig", tokens: Count) -> Count:
    """Return the operations of an encoder's forward pass on all of an image.

    Parameters
    ----------
    config
        The encoder's record.
    tokens
        Number of patches; a class token comes on top. A number, or a float64 tensor of numbers.
    """
    embed = 2 * tokens * config.patch**2 * config.width
    return embed + config.depth * _block(tokens + 1, config.width, config.mlp_ratio)


def encoder_run_flops(config: "VitConfig", of: Sequences) -> Tensor:
    """Return the operations of an encoder's forward pass on all of a batch as it is run: float64 ()."""
    encoder, _ = (cu.diff().double() for cu in cuts(of, 0.0))
    embed = 2 * capacity(of, 0.0) * config.patch**2 * config.width
    return embed + config.depth * _block(encoder, config.width, config.mlp_ratio).sum()


def image_flops(config: "MaeConfig", tokens: Count) -> Count:
    """Return the operations of one image's forward pass.

    Norms, activations and the loss are left out: they are under a percent.

    Parameters
    ----------
    config
        The model's record.
    tokens
        Number of patches, of which int(tokens * (1 - mask_ratio)) are visible; a class token comes on top. A number,
        or a float64 tensor of numbers.
    """
    visible = tokens * (1 - config.mask_ratio) // 1
    into = 2 * (visible + 1) * config.width * config.decoder_width
    decoder = config.decoder_depth * _block(tokens + 1, config.decoder_width, config.mlp_ratio)
    out = 2 * tokens * config.decoder_width * config.patch**2
    return encoder_flops(config, visible) + into + decoder + out


def run_flops(config: "MaeConfig", of: Sequences) -> Tensor:
    """Return the operations of a batch's forward pass as it is run, images or not: float64 ()."""
    encoder, decoder = (cu.diff().double() for cu in cuts(of, config.mask_ratio))
    seen, tokens = capacity(of, config.mask_ratio), of.image.shape[0]
    embed = 2 * seen * config.patch**2 * config.width  # of places for class tokens too
    into = 2 * seen * config.width * config.decoder_width
    out = 2 * tokens * config.decoder_width * config.patch**2
    first = config.depth * _block(encoder, config.width, config.mlp_ratio).sum()
    second = config.decoder_depth * _block(decoder, config.decoder_width, config.mlp_ratio).sum()
    return embed + first + into + second + out


def linear_flops(*modules: nn.Module) -> int:
    """Return the operations of linear maps, and of convolutions without overlap, at one place."""
    kinds = nn.Linear, nn.Conv2d, nn.ConvTranspose2d
    return 2 * sum(m.weight.numel() for module in modules for m in module.modules() if isinstance(m, kinds))


def _block(tokens: Count, width: int, mlp_ratio: float) -> Count:
    linear = (4 + 2 * mlp_ratio) * width**2  # qkv and output: 4, two layers of the perceptron
    attention = 2 * tokens * width  # scores and their sum of values
    return 2 * tokens * (linear + attention)


def peak_tflops(device_name: str, override: float | None = None) -> float | None:
    """Return the peak of a device in TFLOP/s, None where unknown.

    Raises
    ------
    ArgumentError
        For an override that is not above 0.
    """
    if override is not None:
        if override <= 0:
            raise ArgumentError(f"peak_tflops={override} must be above 0")
        return override
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device_name), None)
