"""Compiled loops over pixels: grey levels in, a batch's numbers out, each read and written once.

Formulas are those of the DALI graph, in its order of operations, so that a CPU and a GPU give the same numbers: without
resizing to the last bit.
"""

from typing import Any

import numpy as np

from shardkit.compiling import compiled
from shardkit.loader.nontemporal import FLOATS, LINE, copy, settle, store


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
    low, high = bounds
    lines = 0  # of the caches, in a row of a block
    if out.ctypes.data % LINE == 0 and (cols | down | row | right) % FLOATS == 0:
        lines = cols // FLOATS
    ready = np.zeros(wide * cols, np.float32)
    for y in range(deep * rows):
        if y < height:
            _levels(pixels, top + y, left, width, flip, mean, scale, low, high, ready)
        elif y == height:
            ready[:] = 0
        at, of = (y // rows) * down + (y % rows) * row, 0
        for _ in range(wide):
            if lines:
                for line in range(lines):
                    store(out, at + line * FLOATS, ready, of + line * FLOATS)
            else:
                copy(out, at, ready, of, cols)
            at, of = at + right, of + cols
    settle()


@compiled()
def _levels(
    pixels: Any, y: int, left: int, width: int, flip: bool, mean: Any, scale: Any, low: Any, high: Any, ready: Any
) -> None:
    """Make the numbers of a row; a function of its own, for within another compilers lose sight of what may overlap."""
    # Unsigned: else indices might be negative, which keeps loops from using wide registers.
    count, first, at = np.uint64(width), np.uint64(left), np.uint64(y)
    if flip:
        for x in range(count):
            level = np.float32(pixels[at, first + x])
            ready[count - np.uint64(1) - x] = min(max((level - mean) * scale, low), high)
    else:
        for x in range(count):
            ready[x] = min(max((np.float32(pixels[at, first + x]) - mean) * scale, low), high)


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
    places = (first_col - first_col[0]).astype(np.uint64)
    turned = np.ascontiguousarray(col_weights.T)
    begin = max(min(first_col[0], width - 1), 0)
    before = max(begin - first_col[0], 0)
    count = max(min(first_col[cols - 1] + reach, width), 1) - begin
    sums = np.empty(max(first_col[cols - 1] - first_col[0] + reach, before + count), np.float32)
    for y in range(rows):
        sums[:] = 0
        for tap in range(row_weights.shape[1]):
            if row_weights[y, tap] != 0:
                line = max(min(first_row[y] + tap, height - 1), 0)
                _add_line(pixels, line, begin, count, row_weights[y, tap], sums, before)
        sums[:before] = sums[before]
        sums[before + count :] = sums[before + count - 1]
        _weigh(sums, places, turned, out, y)


@compiled()
def _add_line(pixels: Any, line: int, begin: int, count: int, weight: Any, sums: Any, before: int) -> None:
    """Add a part of an image's row, weighed."""
    y, of, to = np.uint64(line), np.uint64(begin), np.uint64(before)
    for x in range(np.uint64(count)):
        sums[to + x] += weight * np.float32(pixels[y, of + x])


@compiled()
def _weigh(sums: Any, places: Any, weights: Any, out: Any, line: int) -> None:
    """Make a row of the result, of all first taps, then of all second ones: each loop in wide registers."""
    y = np.uint64(line)
    for x in range(np.uint64(out.shape[1])):
        out[y, x] = weights[0, x] * sums[places[x]]
    for tap in range(1, weights.shape[0]):
        t = np.uint64(tap)
        for x in range(np.uint64(out.shape[1])):
            out[y, x] += weights[t, x] * sums[places[x] + t]
