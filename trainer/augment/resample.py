"""Affine maps of an image onto one of the same size, with bilinear interpolation.

Coordinates are in pixels from the top left corner: the first pixel's middle is (.5, .5). A map says for each place of
the result where in the image it comes from: row = a y + b x + c, column = d y + e x + f.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

Map = tuple[tuple[float, float, float], tuple[float, float, float]]


def resample(image: Tensor, where: Map, fill: float) -> Tensor:
    """Return the image as it looks through a map.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    where
        From places of the result to places of the image.
    fill
        What lies outside of the image.
    """
    down, across = where
    y, x = _from_minus_one(down, 0, image), _from_minus_one(across, 1, image)
    grid = torch.stack((x, y), -1)  # in torch's order
    out = F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=False)[0]
    return out.masked_fill_((y.abs_() > 1).logical_or_(x.abs_() > 1), fill)


def _from_minus_one(where: tuple[float, float, float], axis: int, image: Tensor) -> Tensor:
    """Place in the image of each pixel of the result, along an axis: float32 (rows, cols), -1 and 1 at the edges."""
    of_row, of_col, shift = (2 * number / image.shape[1 + axis] for number in where)
    y, x = (torch.arange(0.5, side, dtype=torch.float64, device=image.device) for side in image.shape[1:])
    return (y * of_row + (shift - 1)).to(image.dtype)[:, None] + (x * of_col).to(image.dtype)


def about_centre(matrix: tuple[tuple[float, float], tuple[float, float]], rows: int, cols: int) -> Map:
    """Return the map that a matrix of (row, column) is, with the image's centre in its place.

    Parameters
    ----------
    matrix
        From the result to the image.
    rows, cols
        Size of both.
    """
    y, x = rows / 2, cols / 2
    (a, b), (d, e) = matrix
    return (a, b, y - a * y - b * x), (d, e, x - d * y - e * x)


def rotation(degrees: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the matrix that turns an image counter-clockwise, for `about_centre`."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (cos, sin), (-sin, cos)
