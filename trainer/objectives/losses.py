"""The error of predicted patches, image by image, as all masked autoencoders here count it.

The unit is the patch, as in He et al. 2022: every hidden patch with a real pixel weighs the same in its image's mean, a
sliver at the edge as much as a whole one, and its own error is the mean over its real pixels.
"""

from typing import Literal

import torch
from torch import Tensor

from trainer.models.sequences import Sequences, valid_pixels

Loss = Literal["masked", "all"]


def targets(of: Sequences, norm_pix: bool) -> Tensor:
    """float32 (T, p * p): pixels, or pixels normalised by patch, and then 0 where there is padding."""
    target = of.patches.float()
    if norm_pix:
        valid = valid_pixels(of, of.patch)
        mean, deviation = moments(target, valid)
        target = (target - mean) / deviation * valid
    return target


def moments(patches: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each patch's real pixels, as norm_pix takes them: (T, 1) each.

    patches: float (T, p * p). valid: bool, likewise. deviation: root of the unbiased variance + 1e-6. Of whole patches
    to the last bit as the original has them; of a single pixel the variance is 0.
    """
    whole, count = valid.all(-1, keepdim=True), valid.sum(-1, keepdim=True)
    mean = (patches * valid).sum(-1, keepdim=True) / count.clamp(min=1)
    square = ((patches - mean) * valid).square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    mean = torch.where(whole, patches.mean(-1, keepdim=True), mean)
    return mean, (torch.where(whole, patches.var(-1, keepdim=True), square) + 1e-6).sqrt()


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
