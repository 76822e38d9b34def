"""Floating-point operations of a masked autoencoder, exact for linear maps and attention, and what a device can do.

Two operations a multiply-add; training is three times the forward pass (backward: twice).
"""

from typing import TypeVar

from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.mae import MaeConfig

Count = TypeVar("Count", float, Tensor)

PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "A40": 149.7, "L40S": 362.0, "V100": 125.0}
"""Dense half-precision peaks by a part of the device's name, TFLOP/s, of the manufacturer's data sheets."""


def image_flops(config: MaeConfig, tokens: Count) -> Count:
    """Of one image's forward pass: `tokens` patches of which int(tokens * (1 - mask_ratio)) are visible, and a class
    token. Norms, activations and the loss are left out: under a percent. Numbers, or float64 tensors of them."""
    visible = tokens * (1 - config.mask_ratio) // 1
    embed = 2 * visible * config.patch**2 * config.width
    encoder = config.depth * _block(visible + 1, config.width, config.mlp_ratio)
    into = 2 * (visible + 1) * config.width * config.decoder_width
    decoder = config.decoder_depth * _block(tokens + 1, config.decoder_width, config.mlp_ratio)
    out = 2 * tokens * config.decoder_width * config.patch**2
    return embed + encoder + into + decoder + out


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
