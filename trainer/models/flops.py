"""Floating-point operations of a masked autoencoder, exact for linear maps and attention, and what a device can do.

Two operations a multiply-add; training is three times the forward pass (backward: twice). MFU counts those that images
need, `image_flops`; HFU those that are run for them, `run_flops`: padding, filler and places without an image too. In
other places HFU means the operations of recomputation as well; ours leaves out what attention computes again in its
backward pass, so that both shares have one peak, and their ratio is what padding costs.
"""

from typing import TYPE_CHECKING, TypeVar

from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.models.masking import cuts, places
from trainer.models.sequences import Sequences

if TYPE_CHECKING:  # it counts its own operations with this module
    from trainer.models.mae import MaeConfig

Count = TypeVar("Count", float, Tensor)

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "A40": 149.7, "L40S": 362.0, "V100": 125.0}
"""Dense half-precision peaks by a part of the device's name, TFLOP/s, of the manufacturer's data sheets."""


def image_flops(config: "MaeConfig", tokens: Count) -> Count:
    """Of one image's forward pass: `tokens` patches of which int(tokens * (1 - mask_ratio)) are visible, and a class
    token. Norms, activations and the loss are left out: under a percent. Numbers, or float64 tensors of them."""
    visible = tokens * (1 - config.mask_ratio) // 1
    embed = 2 * visible * config.patch**2 * config.width
    encoder = config.depth * _block(visible + 1, config.width, config.mlp_ratio)
    into = 2 * (visible + 1) * config.width * config.decoder_width
    decoder = config.decoder_depth * _block(tokens + 1, config.decoder_width, config.mlp_ratio)
    out = 2 * tokens * config.decoder_width * config.patch**2
    return embed + encoder + into + decoder + out


def run_flops(config: "MaeConfig", of: Sequences) -> Tensor:
    """float64 (), of the forward pass of a batch as it is run: whatever lies in its sequences, image or not."""
    encoder, decoder = (cu.diff().double() for cu in cuts(of, config.mask_ratio))
    seen, tokens = places(of, config.mask_ratio), of.image.shape[0]
    embed = 2 * seen * config.patch**2 * config.width  # of places for class tokens too
    into = 2 * seen * config.width * config.decoder_width
    out = 2 * tokens * config.decoder_width * config.patch**2
    first = config.depth * _block(encoder, config.width, config.mlp_ratio).sum()
    second = config.decoder_depth * _block(decoder, config.decoder_width, config.mlp_ratio).sum()
    return embed + first + into + second + out


def _block(tokens: Count, width: int, mlp_ratio: float) -> Count:
    linear = (4 + 2 * mlp_ratio) * width**2  # qkv and output: 4, two layers of the perceptron
    attention = 2 * tokens * width  # scores and their sum of values
    return 2 * tokens * (linear + attention)


def peak_tflops(device_name: str, override: float | None = None) -> float | None:
    """Peak of a device, None where unknown. Raises ArgumentError for an override that is not above 0."""
    if override is not None:
        if override <= 0:
            raise ArgumentError(f"peak_tflops={override} must be above 0")
        return override
    return next((peak for part, peak in PEAK_TFLOPS.items() if part in device_name), None)
