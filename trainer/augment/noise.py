"""Gaussian noise, pixel by pixel."""

from random import Random

import torch
from torch import Tensor


def draw(random: Random, greatest: float) -> tuple[float, int]:
    """Return a standard deviation from 0 to greatest, and a seed for the noise."""
    return random.uniform(0.0, greatest), random.getrandbits(32)


def noise(image: Tensor, sigma: float, seed: int) -> Tensor:
    """Add normal noise. The same seed gives other noise on a GPU than on a CPU.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    sigma
        Standard deviation, in grey levels of the image.
    seed
        Of the noise.
    """
    generator = torch.Generator(image.device).manual_seed(seed)
    field = torch.randn(image.shape, dtype=image.dtype, device=image.device, generator=generator)
    return field.mul_(sigma).add_(image)
