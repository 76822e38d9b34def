"""Images by patch grid: their sizes are checked, and counted in tokens, a chunk at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError

Ints = npt.NDArray[np.int64]

_CHUNK = 1 << 20  # images handled at once: bounds temporary memory to some tens of MB


def check_positive(**arguments: int) -> None:
    """Refuse numbers below 1.

    Raises
    ------
    ArgumentError
        A number is below 1; the message names the argument.
    """
    for name, value in arguments.items():
        if value < 1:
            raise ArgumentError(f"{name} is {value}: give a whole number of at least 1.")


def check_sizes(heights: npt.ArrayLike, widths: npt.ArrayLike) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return sides of images as arrays.

    Parameters
    ----------
    heights, widths : array_like of int
        Sides of the images in pixels, of shape (n,).

    Returns
    -------
    height, width : numpy.ndarray
        The same of an integer type.

    Raises
    ------
    ArgumentError
        They differ in shape, or are no whole numbers of at least 1.
    """
    height, width = np.asarray(heights), np.asarray(widths)
    if height.ndim != 1 or height.shape != width.shape:
        raise ArgumentError(f"heights {height.shape} and widths {width.shape} differ: give flat arrays of one length.")
    for name, sides in (("height", height), ("width", width)):
        if len(sides) and sides.dtype.kind not in "iu":
            raise ArgumentError(f"{name}s are of type {sides.dtype}: give whole pixels as integers.")
        if len(sides) and sides.min() < 1:
            i = int(sides.argmin())
            raise ArgumentError(f"image {i} has the {name} {sides[i]}: leave out images without pixels.")
    return height, width


def grids(heights: npt.NDArray[Any], widths: npt.NDArray[Any], patch: int) -> Iterator[tuple[int, Ints, Ints]]:
    """Give, chunk by chunk: (start, rows, cols) of the images' patch grids."""
    for start in range(0, len(heights), _CHUNK):
        # int64 first: exact ceiling division negates, and an unsigned height would wrap around.
        rows, cols = (a[start : start + _CHUNK].astype(np.int64) for a in (heights, widths))
        yield start, ceil_div(rows, patch), ceil_div(cols, patch)


def count_grids(heights: npt.NDArray[Any], widths: npt.NDArray[Any], patch: int, max_side: int) -> Ints:
    """Count images by patch grid.

    Parameters
    ----------
    heights, widths : numpy.ndarray
        Sides of the images in pixels, of shape (n,).
    patch : int
        Side of a patch in pixels.
    max_side : int
        Largest side of an image in pixels.

    Returns
    -------
    numpy.ndarray
        Images of each grid, at [rows - 1, cols - 1], of shape (N, N), int64.

    Raises
    ------
    ArgumentError
        An image is larger than `max_side`.
    """
    for name, sides in (("height", heights), ("width", widths)):
        if len(sides) and sides.max() > max_side:
            i = int(sides.argmax())
            raise ArgumentError(
                f"image {i} has the {name} {sides[i]}, above the largest side admitted, {max_side}: "
                "leave it out or raise the limit."
            )
    side = ceil_div(max_side, patch)
    counts = np.zeros(side * side, np.int64)
    for _, rows, cols in grids(heights, widths, patch):
        counts += np.bincount((rows - 1) * side + cols - 1, minlength=side * side)
    return counts.reshape(side, side)
