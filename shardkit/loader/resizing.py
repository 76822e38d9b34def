"""Resizing by a triangle as wide as the scale, as `interpolate(antialias=True)` of torch and DALI do it."""

import math

import numpy as np
import numpy.typing as npt

from shardkit.loader import kernels

Pixels = npt.NDArray[np.uint16]


def resized(
    pixels: Pixels, start: tuple[float, float], end: tuple[float, float], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Resize a part of an image.

    Parameters
    ----------
    pixels : ndarray of uint16, (h, w)
        The image. What lies around the part counts, too; beyond the image's edges its last pixels are repeated.
    start, end : tuple of float
        Row and column of the part's corners: edges between pixels, in fractions of them.
    size : tuple of int
        Rows and columns of the result.

    Returns
    -------
    ndarray of float32, size
    """
    out = np.empty(size, np.float32)
    rows, cols = (taps(start[i], end[i], size[i]) for i in range(2))
    kernels.resample(pixels, *rows, *cols, out)
    return out


def taps(start: float, end: float, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return which pixels along an axis make each pixel of the result, and how much they weigh.

    Parameters
    ----------
    start, end : float
        Edges of the part.
    count : int
        Pixels of the result.

    Returns
    -------
    first : ndarray of int64, (count,)
        The first pixel of each sum.
    weights : ndarray of float32, (count, taps)
        Of it and of those after it; they add up to 1.
    """
    scale = (end - start) / count
    radius = max(scale, 1.0)
    middle = start + (np.arange(count) + 0.5) * scale - 0.5
    first = np.ceil(middle - radius).astype(np.int64)
    away = np.abs(first[:, None] + np.arange(math.floor(2 * radius) + 1) - middle[:, None])
    weights = np.maximum(1.0 - away / radius, 0.0)
    return first, (weights / weights.sum(1, keepdims=True)).astype(np.float32)
