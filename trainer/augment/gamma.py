"""Contrast by a power of the grey levels."""

import math
from random import Random

from torch import Tensor


def draw(random: Random, greatest: float) -> float:
    """Return an exponent, e to a number from -greatest to greatest."""
    return math.exp(random.uniform(-greatest, greatest))


def gamma(image: Tensor, exponent: float) -> Tensor:
    """Raise the size of each value to a power, and keep its sign, as torchio does.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    exponent
        Above 1, what lies between 0 and 1 gets darker.
    """
    return image.abs().pow_(exponent).copysign_(image)
