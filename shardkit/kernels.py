"""Loops over the pixels of an image that NumPy would take several passes for, compiled by Numba.

Every result is a whole number or a mask, the same on all machines. Arguments are C-contiguous, and may be read-only.
Import this module where it is used: Numba takes a fifth of a second to load, and a first use compiles for some seconds.
"""

import numpy as np
import numpy.typing as npt
from numba import bool_, types, uint16, uint32

from shardkit.compiling import compiled

Pixels = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.uint32]

_PIXELS, _MASK = types.Array(uint16, 2, "C", readonly=True), types.Array(bool_, 2, "C", readonly=True)
_COUNTS, _RUNS = types.Array(uint32, 1, "C"), types.Array(types.int32, 1, "C")


@compiled(_PIXELS, types.int64, types.int64, types.Array(uint32, 2, "C"), _COUNTS)
def sum_and_count(pixels: Pixels, down: int, across: int, sums: Counts, histogram: Counts) -> None:
    """Sum the blocks of an image, and count its grey levels, in one pass.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    down, across : int
        Pixels of a block.
    sums : ndarray of uint32, (rows, columns)
        Takes the sums of whole blocks; what lies beyond them is only counted.
    histogram : ndarray of uint32, (65536,)
        Counts are added to it.
    """
    height, width = pixels.shape
    rows, columns = sums.shape
    total = np.zeros(columns * across, np.uint32)
    for y in range(height):
        line = pixels[y]
        for x in range(width):
            histogram[line[x]] += np.uint32(1)
        if y >= rows * down:
            continue
        for x in range(total.size):
            total[x] += line[x]
        if y % down == down - 1:
            for column in range(columns):
                block = np.uint32(0)
                for x in range(column * across, (column + 1) * across):
                    block += total[x]
                sums[y // down, column] = block
            total[:] = 0


@compiled(_PIXELS, _MASK, types.int64, _COUNTS)
def count(pixels: Pixels, mask: Mask, side: int, histogram: Counts) -> None:
    """Count the grey levels of some blocks of an image.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    mask : ndarray of bool, (rows, columns)
        True for the blocks. The last ones of a row or column hold the rest of it.
    side : int
        Pixels of a block, each way.
    histogram : ndarray of uint32, (65536,)
        Counts are added to it.
    """
    height, width = pixels.shape
    rows, columns = mask.shape
    for y in range(height):
        wanted, line = mask[min(y // side, rows - 1)], pixels[y]
        column = 0
        while column < columns:
            if not wanted[column]:
                column += 1
                continue
            left = column * side
            while column < columns and wanted[column]:
                column += 1
            right = width if column == columns else column * side
            for x in range(left, right):
                histogram[line[x]] += np.uint32(1)


@compiled(_MASK, bool_, types.Array(bool_, 2, "C"))
def grow(mask: Mask, edge: bool, grown: Mask) -> None:
    """Do a binary dilation by 3 x 3.

    Parameters
    ----------
    mask : ndarray of bool, (rows, columns)
        What grows.
    edge : bool
        What lies outside.
    grown : ndarray of bool, (rows, columns)
        Takes the result.
    """
    rows, columns = mask.shape
    tall = np.empty(columns + 2, np.bool_)
    tall[0] = tall[columns + 1] = edge
    for row in range(rows):
        here = mask[row]
        for column in range(columns):
            tall[column + 1] = here[column]
        for beside in (row - 1, row + 1):
            if 0 <= beside < rows:
                other = mask[beside]
                for column in range(columns):
                    tall[column + 1] |= other[column]
            elif edge:
                tall[:] = True
        for column in range(columns):
            grown[row, column] = tall[column] | tall[column + 1] | tall[column + 2]


@compiled(_RUNS, types.int64)
def _root(parents: npt.NDArray[np.int32], at: int) -> int:
    """Return the first of the runs that one is joined to, and shorten the way there."""
    while parents[at] != at:
        parents[at] = parents[parents[at]]
        at = parents[at]
    return at


@compiled(_MASK)
def parts(mask: Mask) -> npt.NDArray[np.int32]:
    """Find the parts of a mask that hang together by sides of their blocks.

    Parameters
    ----------
    mask : ndarray of bool, (rows, columns)
        The mask.

    Returns
    -------
    ndarray of int32, (4, runs)
        Of each run of True in a row: the row, its first column, the column after its last, and the first run of its
        part, which stands for it.
    """
    rows, columns = mask.shape
    runs = np.empty((4, rows * ((columns + 1) // 2)), np.int32)
    row, left, right, parents = runs[0], runs[1], runs[2], runs[3]
    count = above = 0
    for y in range(rows):
        first, x = count, 0
        while x < columns:
            if not mask[y, x]:
                x += 1
                continue
            row[count], left[count], parents[count] = y, x, count
            while x < columns and mask[y, x]:
                x += 1
            right[count] = x
            while above < first and right[above] <= left[count]:
                above += 1
            at = above
            while at < first and left[at] < x:
                a, b = _root(parents, at), _root(parents, count)
                parents[max(a, b)] = min(a, b)
                at += 1
            count += 1
        above = first
    for at in range(count):
        parents[at] = _root(parents, at)
    return runs[:, :count].copy()


@compiled(types.Array(types.int32, 2, "C"), types.Array(bool_, 1, "C", readonly=True), types.Array(bool_, 2, "C"))
def paint(runs: npt.NDArray[np.int32], wanted: Mask, mask: Mask) -> None:
    """Set the blocks of some parts.

    Parameters
    ----------
    runs : ndarray of int32, (4, runs)
        What `parts` returned.
    wanted : ndarray of bool, (runs,)
        Whether the part that a run stands for is wanted.
    mask : ndarray of bool, (rows, columns)
        Takes True.
    """
    for at in range(runs.shape[1]):
        if wanted[runs[3, at]]:
            mask[runs[0, at], runs[1, at] : runs[2, at]] = True


@compiled(types.Array(types.int32, 2, "C", readonly=True), types.int64, types.int64, types.Array(uint16, 2, "C"))
def shift_and_clip(band: npt.NDArray[np.int32], offset: int, top: int, pixels: Pixels) -> None:
    """Add a number to whole numbers, and cut them off at 0 and another one.

    Parameters
    ----------
    band : ndarray of int32, (height, width)
        The numbers.
    offset, top : int
        What is added, and the greatest result.
    pixels : ndarray of uint16, (height, width)
        Takes the results.
    """
    for y in range(band.shape[0]):
        given, taken = band[y], pixels[y]
        for x in range(given.size):
            taken[x] = min(max(given[x] + offset, 0), top)
