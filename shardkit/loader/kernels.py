"""Compiled loops over pixels: grey levels in, a batch's numbers out, each read and written once.

Formulas are those of the DALI graph, in its order of operations, so that a CPU and a GPU give the same numbers: without
resizing to the last bit.
"""

from typing import Any

import numpy as np

from shardkit.compiling import compiled


@compiled()
def normalise(pixels: Any, part: Any, flip: bool, mean: Any, scale: Any, bounds: Any, out: Any, lie: Any) -> None:
    """Write (grey level - mean) * scale, cut off, into a batch where an image lies there block by block.

    Parameters
    ----------
    pixels : ndarray of uint16 or float32, (h, w)
        An image, contiguous.
    part : tuple of int
        The part of it that is written: top, left, rows, columns.
    flip : bool
        Whether that is mirrored left to right.
    mean, scale : float32
        Of the formula.
    bounds : tuple of float32
        Least and greatest result.
    out : ndarray of float32, (n,)
        The batch's memory, from the image's first pixel on.
    lie : tuple of int
        How it lies there: rows and columns of a block, blocks below one another and side by side; steps in `out` from a
        block to the one below, from a row of a block to the next, and to the block on the right. What blocks cover
        beside the part becomes 0.
    """
    top, left, height, width = part
    rows, cols, deep, wide, down, row, right = lie
    turned = np.empty(width if flip else 0, pixels.dtype)
    low, high = bounds
    last = np.uint64(width - 1)  # unsigned: else indices might be negative, which keeps loops from using wide registers
    for y in range(deep * rows):
        at = (y // rows) * down + (y % rows) * row
        shown = 0
        if y < height:
            line = pixels[top + y][left : left + width]
            if flip:
                for x in range(np.uint64(width)):
                    turned[x] = line[last - x]
                line = turned
            for first in range(0, width, cols):
                shown = min(cols, width - first)
                of, to = np.uint64(first), np.uint64(at)
                for x in range(np.uint64(shown)):
                    out[to + x] = min(max((np.float32(line[of + x]) - mean) * scale, low), high)
                if shown == cols:
                    at += right
                    shown = 0
        for _ in range(width // cols if y < height else 0, wide):
            out[at + shown : at + cols] = 0
            at += right
            shown = 0


@compiled()
def resample(pixels: Any, first_row: Any, row_weights: Any, first_col: Any, col_weights: Any, out: Any) -> None:
    """Weigh pixels along columns, then along rows.

    Parameters
    ----------
    pixels : ndarray of uint16, (h, w)
        An image. Beyond its edges its last pixels are repeated.
    first_row, first_col : ndarray of int64, (rows,), (cols,)
        First pixel of each sum, which may lie before the image.
    row_weights, col_weights : ndarray of float32, (rows, taps), (cols, taps)
        Weights of it and of those after it.
    out : ndarray of float32, (rows, cols)
        The sums.
    """
    height, width = pixels.shape
    rows, cols = out.shape
    reach = col_weights.shape[1]
    left = max(min(first_col[0], width - 1), 0)
    right = max(min(first_col[cols - 1] + reach, width), 1)
    sums = np.empty(right - left, np.float32)
    for y in range(rows):
        sums[:] = 0
        for tap in range(row_weights.shape[1]):
            weight = row_weights[y, tap]
            if weight != 0:
                line = pixels[max(min(first_row[y] + tap, height - 1), 0)][left:right]
                for x in range(right - left):
                    sums[x] += weight * np.float32(line[x])
        target = out[y]
        for x in range(cols):
            total = np.float32(0)
            start = first_col[x] - left
            for tap in range(reach):
                total += col_weights[x, tap] * sums[max(min(start + tap, right - left - 1), 0)]
            target[x] = total
