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
def taps(start: Any, end: Any, count: int) -> Any:
    """Return which pixels along an axis make each pixel of a resized image, and how much they weigh.

    They weigh as much as a triangle as wide as the scale, at least one pixel each way, has where they lie.

    Parameters
    ----------
    start, end : float
        Edges of what is shown, in pixels.
    count : int
        Pixels of the result.

    Returns
    -------
    first : ndarray of int64, (count,)
        The first pixel of each sum; it may lie before the image.
    weights : ndarray of float32, (count, taps)
        Of it and of those after it; they add up to 1.
    """
    scale = (end - start) / count
    radius = max(scale, 1.0)
    first = np.empty(count, np.int64)
    weights = np.empty((count, int(np.floor(2 * radius)) + 1), np.float32)
    for at in range(count):
        middle = start + (at + 0.5) * scale - 0.5
        first[at] = int(np.ceil(middle - radius))
        total = 0.0
        for tap in range(weights.shape[1]):
            total += max(1.0 - abs(first[at] + tap - middle) / radius, 0.0)
        for tap in range(weights.shape[1]):
            weights[at, tap] = max(1.0 - abs(first[at] + tap - middle) / radius, 0.0) / total
    return first, weights


@compiled()
def resize(pixels: Any, top: Any, bottom: Any, left: Any, right: Any, out: Any) -> None:
    """Resize a part of an image: weigh its pixels along columns, then along rows.

    Parameters
    ----------
    pixels : ndarray of uint16, (h, w)
        The image, contiguous. Beyond its edges its last pixels are repeated.
    top, bottom, left, right : float
        Edges of the part, in pixels.
    out : ndarray of float32, (rows, cols)
        Takes the result.
    """
    height, width = pixels.shape
    rows, cols = out.shape
    first_row, row_weights = taps(top, bottom, rows)
    first_col, col_weights = taps(left, right, cols)
    reach = col_weights.shape[1]
    begin = max(min(first_col[0], width - 1), 0)
    count = max(min(first_col[cols - 1] + reach, width), 1) - begin
    sums = np.empty(count, np.float32)
    for y in range(rows):
        sums[:] = 0
        for tap in range(row_weights.shape[1]):
            weight = row_weights[y, tap]
            if weight != 0:
                line = pixels[max(min(first_row[y] + tap, height - 1), 0)][begin : begin + count]
                for x in range(np.uint64(count)):
                    sums[x] += weight * np.float32(line[x])
        target = out[y]
        for x in range(cols):
            total = np.float32(0)
            start = first_col[x] - begin
            for tap in range(reach):
                total += col_weights[x, tap] * sums[max(min(start + tap, count - 1), 0)]
            target[x] = total
