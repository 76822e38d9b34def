"""Gaussian blur, along rows and columns."""

import math
from random import Random

import torch
from torch import Tensor

_CUT = 4.0
"""Standard deviations at which the Gaussian ends, as SciPy's does."""


def draw(random: Random, greatest: float) -> tuple[float, float]:
    """Return a standard deviation in pixels for each axis, from 0 to greatest."""
    return random.uniform(0.0, greatest), random.uniform(0.0, greatest)


def blur(image: Tensor, sigma: tuple[float, float]) -> Tensor:
    """Weigh the pixels around each by a Gaussian; beyond its edges the image is mirrored, edge pixels included.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    sigma
        Standard deviations down and across, in pixels.
    """
    for axis, deviation in zip((1, 2), sigma, strict=True):
        weights = kernel(deviation)
        if len(weights) > 1:
            image = _along(image, axis, weights)
    return image


def kernel(sigma: float) -> list[float]:
    """Return the weight of the middle, and of its neighbours on either side, outwards; all together are 1."""
    radius = int(_CUT * sigma + 0.5)
    sizes = [math.exp(-0.5 * (k / sigma) ** 2) if k else 1.0 for k in range(radius + 1)]
    total = sizes[0] + 2 * sum(sizes[1:])
    return [size / total for size in sizes]


def _along(image: Tensor, axis: int, weights: list[float]) -> Tensor:
    side, radius = image.shape[axis], len(weights) - 1
    place = torch.arange(-radius, side + radius, device=image.device).remainder(2 * side)
    padded = image.index_select(axis, torch.minimum(place, 2 * side - 1 - place))
    out = padded.narrow(axis, radius, side) * weights[0]
    for k in range(1, radius + 1):  # sums, because convolutions on a GPU may round to 10 bits
        out.add_(padded.narrow(axis, radius - k, side), alpha=weights[k])
        out.add_(padded.narrow(axis, radius + k, side), alpha=weights[k])
    return out
