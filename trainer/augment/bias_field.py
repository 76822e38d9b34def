"""A smooth field of brightness: e to a polynomial of the place in the image (Van Leemput et al. 1999)."""

from random import Random

import torch
from torch import Tensor

Coefficients = tuple[tuple[float, ...], ...]
"""[i][j] belongs to (row ** i) * (column ** j), with i + j at most the order."""


def draw(random: Random, order: int, greatest: float) -> Coefficients:
    """Return coefficients, each from -greatest to greatest, of all powers up to an order."""
    return tuple(
        tuple(random.uniform(-greatest, greatest) for _ in range(order + 1 - power)) for power in range(order + 1)
    )


def bias_field(image: Tensor, coefficients: Coefficients) -> Tensor:
    """Multiply an image with its field. Rows and columns count from -1 to 1, at the middle of the outer pixels.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    coefficients
        Of the polynomial. The constant one makes all of the image brighter or darker.
    """
    _, rows, cols = image.shape
    y, x = _from_minus_one(rows, image)[:, None], _from_minus_one(cols, image)[None]
    most = len(coefficients)
    field = image.new_zeros(rows, cols)
    for j in reversed(range(most)):  # Horner's rule: a polynomial of x, whose coefficients are polynomials of y
        of_y = y.new_zeros(rows, 1)
        for i in reversed(range(most - j)):
            of_y = of_y * y + coefficients[i][j]
        field = torch.addcmul(of_y, field, x)
    return field.exp_().mul(image)


def _from_minus_one(side: int, like: Tensor) -> Tensor:
    if side == 1:
        return like.new_zeros(1)
    return torch.linspace(-1.0, 1.0, side, dtype=like.dtype, device=like.device)
