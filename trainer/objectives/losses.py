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
    """Return what is to be predicted: float32 (T, p * p).

    It is the pixels; or, with `norm_pix`, pixels normalised by patch, with 0 where there is padding.
    """
    target = of.patches.float()
    if norm_pix:
        valid = valid_pixels(of, of.patch)
        mean, deviation = moments(target, valid)
        target = (target - mean) / deviation * valid
    return target


def moments(patches: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of each patch's real pixels, as norm_pix takes them.

    Those of whole patches are to the last bit the original's; the variance of a single pixel is 0.

    Parameters
    ----------
    patches
        float (T, p * p).
    valid
        bool (T, p * p), whether a pixel is the image's.

    Returns
    -------
    tuple of Tensor
        Mean, and root of the unbiased variance + 1e-6: (T, 1) each.
    """
    whole, count = valid.all(-1, keepdim=True), valid.sum(-1, keepdim=True)
    mean = (patches * valid).sum(-1, keepdim=True) / count.clamp(min=1)
    square = ((patches - mean) * valid).square().sum(-1, keepdim=True) / (count - 1).clamp(min=1)
    mean = torch.where(whole, patches.mean(-1, keepdim=True), mean)
    return mean, (torch.where(whole, patches.var(-1, keepdim=True), square) + 1e-6).sqrt()


def losses(
    prediction: Tensor, of: Sequences, masked: Tensor, patch: int, norm_pix: bool, over: Loss = "masked"
) -> Tensor:
    """Return each image's mean squared error: float32 (S,).

    Parameters
    ----------
    prediction
        (T, p * p).
    of
        The patches.
    masked
        bool (T,), whether a patch was hidden.
    patch
        Side of a patch in pixels.
    norm_pix
        Whether patches normalised by themselves are predicted.
    over
        masked: hidden patches and real pixels; all: all patches and pixels.
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
