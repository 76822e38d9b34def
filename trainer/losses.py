"""The error of predicted patches, image by image, as all masked autoencoders here count it."""

from typing import Literal

import torch
from torch import Tensor

from trainer.sequences import Sequences, valid_pixels

Loss = Literal["masked", "all"]


def targets(of: Sequences, norm_pix: bool) -> Tensor:
    """float32 (T, p * p): pixels, or pixels normalised by patch (unbiased variance, as the original has it)."""
    target = of.patches.float()
    if norm_pix:
        mean, variance = target.mean(-1, keepdim=True), target.var(-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6).sqrt()
    return target


def losses(
    prediction: Tensor, of: Sequences, masked: Tensor, patch: int, norm_pix: bool, over: Loss = "masked"
) -> Tensor:
    """float32 (S,), each image's mean squared error.

    prediction: (T, p * p). masked: bool (T,). over: hidden patches and real pixels, or all of both.
    """
    square = (prediction.float() - targets(of, norm_pix)).square()
    image, count = of.image.long(), of.weight.shape[0]
    if over == "all":
        error, weight = square.mean(-1), torch.ones_like(image, dtype=torch.float32)
    else:
        valid = valid_pixels(of, patch).float()
        error = (square * valid).sum(-1) / valid.sum(-1).clamp(min=1)
        weight = (masked & valid.any(-1)).float()  # a bin's padding is no patch of the image
    total = torch.zeros(count, device=error.device).index_add(0, image, error * weight)
    number = torch.zeros(count, device=error.device).index_add(0, image, weight)
    return total / number.clamp(min=1)
