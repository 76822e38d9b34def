"""From a decoded image to its place in a batch, on a CPU: cut out or resized, mirrored, normalised, in one pass.

This is what the DALI graph does on a GPU, in the same order of operations. Each thread that decodes an image paints it,
while its pixels are in the cache, and no memory lies between it and the batch.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit.errors import IntegrityError
from shardkit.loader import kernels
from shardkit.loader.canvas import convert
from shardkit.loader.graph_input import Prepared

_FREE = np.float32(-np.inf), np.float32(np.inf)
_CUT = np.float32(0), np.float32(1)


def paint(room: Tensor, image: Prepared, resize: bool) -> None:
    """Write one view of a decoded image into its room.

    Parameters
    ----------
    room : Tensor of float32, float16 or bfloat16
        On the CPU: (rows, cols) as it is padded, or in blocks, (down, rows, right, cols); see `Batch.lay_out`.
    image : Prepared
        Pixels, and what is shown of them.
    resize : bool
        Whether the batching resizes images.
    """
    pixels: npt.NDArray[Any] = np.ascontiguousarray(image.data)
    part = (*image.start, *image.shape)
    if resize:
        pixels, part = resized(pixels, image.roi_start, image.roi_end, image.size), (0, 0, *image.size)
    elif any(at < 0 or at + length > side for at, length, side in zip(part[:2], part[2:], pixels.shape, strict=True)):
        raise IntegrityError(f"{part[2]} x {part[3]} pixels at {part[:2]} are not all in an image of {pixels.shape}")
    lie = _lie(room)
    height, width = lie[0] * lie[2], lie[1] * lie[3]
    if part[2] > height or part[3] > width:
        raise IntegrityError(f"{part[2]} x {part[3]} pixels do not fit into {height} x {width}")
    scale = np.float32(1) / np.float32(image.std)
    numbers = np.float32(image.mean), scale, _CUT if image.clip else _FREE
    if room.dtype == torch.float32:
        kernels.normalise(pixels, part, image.flip, *numbers, _memory(room), lie)
    else:
        whole = np.empty(height * width, np.float32)
        kernels.normalise(pixels, part, image.flip, *numbers, whole, (height, width, 1, 1, 0, width, 0))
        convert(whole.reshape(room.shape), room)


def load() -> None:
    """Compile the loops, or load what was compiled before: a second that the first batch would wait for."""
    import shardkit.kernels  # noqa: F401 - those of codecs

    pixels = np.zeros((1, 1), np.uint16)
    image = Prepared(pixels, 1, (0, 0), (1, 1), (0.0, 0.0), (1.0, 1.0), (1, 1), (1, 1), flip=False, mean=0.0, std=1.0)
    for resize in (False, True):
        paint(torch.empty(1, 1), image, resize)


def resized(
    pixels: npt.NDArray[Any], start: tuple[float, float], end: tuple[float, float], size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Resize a part of an image, by a triangle as wide as the scale: as torch's `interpolate(antialias=True)` and DALI.

    Parameters
    ----------
    pixels : ndarray of uint16, (h, w)
        The image, contiguous. What lies around the part counts, too; beyond the image's edges its last pixels repeat.
    start, end : tuple of float
        Row and column of the part's corners: edges between pixels, in fractions of them.
    size : tuple of int
        Rows and columns of the result.

    Returns
    -------
    ndarray of float32, size
    """
    out = np.empty(size, np.float32)
    kernels.resize(pixels, float(start[0]), float(end[0]), float(start[1]), float(end[1]), out)
    return out


def _lie(room: Tensor) -> tuple[int, ...]:
    """Return how an image lies in a room: see `kernels.normalise`."""
    if room.dim() == 2:
        (rows, cols), (row, _) = room.shape, room.stride()
        return rows, cols, 1, 1, 0, row, 0
    (deep, rows, wide, cols), (down, row, right, _) = room.shape, room.stride()
    return rows, cols, deep, wide, down, row, right


def _memory(room: Tensor) -> npt.NDArray[np.float32]:
    """Return a room's memory, from its first number to its last."""
    span = 1 + sum((size - 1) * step for size, step in zip(room.shape, room.stride(), strict=True))
    numbers: npt.NDArray[np.float32] = room.as_strided((span,), (1,)).numpy()
    return numbers
