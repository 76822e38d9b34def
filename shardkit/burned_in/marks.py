"""Loops over pixels that find letter-like marks, compiled by Numba; import it where it is used."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import bool_, int32, int64, types, uint8, uint16, uint32, uint64

from shardkit.compiling import compiled

Pixels = npt.NDArray[np.uint16]
Line = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Tones = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.uint16]
Labels = npt.NDArray[np.int32]
Measures = npt.NDArray[np.int64]
Order = npt.NDArray[np.int64]

_PIXELS, _COUNTS = types.Array(uint16, 2, "C", readonly=True), types.Array(uint16, 3, "C")
_LINE = types.Array(uint16, 1, "C", readonly=True)
_BLOCK = 64  # pixels looked at together for any step at all
SMALLEST, TALLEST = 4, 40  # pixels of a letter's height, in the level where it is found
FULL = 0.12  # of its box, that a letter's pixels fill at least
SHARP = 0.6  # of a letter's outline, that has steps
SHARP_PAIR, EVEN, NEAR = 0.7, 0.3, 0.6  # of two letters alone: SHARP; of their height: how far they differ; their gap


@compiled(_PIXELS, types.Array(uint16, 2, "C"))
def halve_into(pixels: Pixels, half: Pixels) -> None:
    """Write the means of blocks of 2 x 2 pixels, rounded down, to (height // 2, width // 2) pixels."""
    one, two, width = uint64(1), uint64(2), np.uint64(half.shape[1])
    for y in range(half.shape[0]):
        upper, lower, line = pixels[2 * y], pixels[2 * y + 1], half[y]
        for x in range(width):
            total = uint32(upper[two * x]) + uint32(upper[two * x + one])
            line[x] = (total + uint32(lower[two * x]) + uint32(lower[two * x + one])) >> uint32(2)


@compiled(_LINE, _LINE, _LINE, uint64)
def _most(up: Line, line: Line, down: Line, start: np.uint64) -> np.uint16:
    """Return the largest step of a block of a line; indices are unsigned, or the loop is not made one of vectors."""
    most, one = np.uint16(0), np.uint64(1)
    for n in range(np.uint64(_BLOCK)):
        x = start + n
        left, right, above, below = line[x - one], line[x + one], up[x], down[x]
        across = np.uint16(max(left, right) - min(left, right))
        along = np.uint16(max(above, below) - min(above, below))
        most = max(most, max(across, along))
    return most


@compiled(_PIXELS, int64, int64, int64, _COUNTS, types.Array(uint16, 2, "C"))
def count_strokes(pixels: Pixels, least: int, reach: int, cell: int, counts: Counts, steps: Counts) -> None:
    """Count, in each cell, where a step of grey is followed by one back: once by rows and once by columns.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    least : int
        Grey levels of a step, between pixels two apart.
    reach : int
        Most pixels between the steps: the widest stroke or gap.
    cell : int
        Pixels of a cell, each way.
    counts : ndarray of uint16, (rows, columns, 2)
        Zeros; takes the counts by rows and by columns.
    steps : ndarray of uint16, (rows, columns)
        Zeros; takes how many pixels have a step either way.
    """
    height, width = pixels.shape
    above_at, above_sign = np.full(width, -(1 << 30), np.int32), np.zeros(width, np.int8)
    for y in range(height):
        line = pixels[y]
        up, down = pixels[max(y - 1, 0)], pixels[min(y + 1, height - 1)]
        last, sign, row = -(1 << 30), 0, y // cell
        for start in range(1, width - 1, _BLOCK):
            end = min(start + _BLOCK, width - 1)
            if end - start == _BLOCK and _most(up, line, down, np.uint64(start)) < least:
                continue
            for x in range(start, end):
                step, other = np.int32(line[x + 1]) - np.int32(line[x - 1]), np.int32(down[x]) - np.int32(up[x])
                if abs(step) >= least or abs(other) >= least:
                    steps[row, x // cell] += uint16(1)
                if abs(step) >= least:
                    now = 1 if step > 0 else -1
                    if now != sign and x - last <= reach:
                        counts[row, x // cell, 0] += uint16(1)
                    sign, last = now, x
                if abs(other) >= least:
                    now = 1 if other > 0 else -1
                    if now != above_sign[x] and y - above_at[x] <= reach:
                        counts[row, x // cell, 1] += uint16(1)
                    above_sign[x], above_at[x] = now, y


@compiled(_PIXELS, types.Array(bool_, 2, "C", readonly=True), int64, int64, types.Array(uint8, 2, "C"))
def part_tones(pixels: Pixels, apart: Mask, side: int, least: int, tones: Tones) -> None:
    """Say of some pixels whether they are lighter or darker than the middle of those of them that surround them.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        A part of an image.
    apart : ndarray of bool, (height, width)
        The pixels that are not parted, as if they were not there.
    side : int
        Pixels to each side that surround one.
    least : int
        Span of grey levels that surroundings must have.
    tones : ndarray of uint8, (height, width)
        Takes 2 for lighter, 1 for darker, 0 where the surroundings span less and where pixels are not parted.
    """
    height, width = pixels.shape
    across, reach = np.uint64(width), np.uint64(2 * side + 1)
    low, high = np.full((height + 2 * side, width), 65535, np.uint16), np.zeros((height + 2 * side, width), np.uint16)
    some, others = np.full(width + 2 * side, 65535, np.uint16), np.zeros(width + 2 * side, np.uint16)
    for y in range(height):
        for x in range(width):
            some[x + side] = 65535 if apart[y, x] else pixels[y, x]
            others[x + side] = 0 if apart[y, x] else pixels[y, x]
        least_line, most_line = low[y + side], high[y + side]
        for shift in range(reach):  # unsigned, or the inner loop is not made one of vectors
            for x in range(across):
                least_line[x] = min(least_line[x], some[x + shift])
                most_line[x] = max(most_line[x], others[x + shift])
    small_line, large_line = np.empty(width, np.uint16), np.empty(width, np.uint16)
    for y in range(height):
        small_line[:], large_line[:] = 65535, 0
        for other in range(y, y + 2 * side + 1):
            least_line, most_line = low[other], high[other]
            for x in range(across):
                small_line[x] = min(small_line[x], least_line[x])
                large_line[x] = max(large_line[x], most_line[x])
        for x in range(width):
            small, large = np.int32(small_line[x]), np.int32(large_line[x])
            if apart[y, x] or large - small < least:
                tones[y, x] = 0
            else:
                tones[y, x] = 2 if 2 * np.int32(pixels[y, x]) > small + large else 1


@compiled(types.Array(int32, 2, "C", readonly=True), _PIXELS, int64, int64, types.Array(int64, 2, "C"))
def measure(labels: Labels, part: Pixels, sign: int, least: int, found: Measures) -> None:
    """Measure each mark of a part of an image.

    Parameters
    ----------
    labels : ndarray of int32, (height, width)
        0 for the background, else the mark's number from 1.
    part : ndarray of uint16, (height, width)
        The pixels.
    sign : int
        1 where marks are lighter than their background, -1 where they are darker.
    least : int
        Grey levels of a sharp step, from a pixel of the mark to one two apart.
    found : ndarray of int64, (marks, 7)
        Takes first row, end row, first column, end column, pixels, pixels at its outline, and sharp ones of these.
    """
    height, width = labels.shape
    found[:, 0], found[:, 2] = height, width
    found[:, 1], found[:, 3:] = 0, 0
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            if label == 0:
                continue
            mark = found[label - 1]
            mark[0], mark[1] = min(mark[0], y), max(mark[1], y + 1)
            mark[2], mark[3] = min(mark[2], x), max(mark[3], x + 1)
            mark[4] += 1
            if x == 0 or y == 0 or x == width - 1 or y == height - 1:
                continue
            if (
                labels[y, x - 1] != label
                or labels[y, x + 1] != label
                or labels[y - 1, x] != label
                or labels[y + 1, x] != label
            ):
                mark[5] += 1
                here, most = np.int32(part[y, x]), np.int32(0)
                most = max(most, sign * (here - np.int32(part[y, max(x - 2, 0)])))
                most = max(most, sign * (here - np.int32(part[y, min(x + 2, width - 1)])))
                most = max(most, sign * (here - np.int32(part[max(y - 2, 0), x])))
                most = max(most, sign * (here - np.int32(part[min(y + 2, height - 1), x])))
                if most >= least:
                    mark[6] += 1


@compiled(types.Array(int64, 2, "C", readonly=True), types.Array(int64, 1, "C"), types.Array(int64, 1, "C"))
def _follow(found: Measures, which: Order, after: Order) -> None:
    """Find the letter that follows each on its line, -1 where there is none; they are in order of first columns."""
    count = which.size
    taken = np.zeros(count, np.bool_)
    tallest = int64(0)
    for n in which:
        tallest = max(tallest, found[n, 1] - found[n, 0])
    for here in range(count):
        after[here] = -1
        one, best = found[which[here]], int64(1) << 30
        mine = one[1] - one[0]
        for there in range(here + 1, count):
            other = found[which[there]]
            gap = other[2] - one[3]
            if gap > 2 * tallest:
                break
            theirs = other[1] - other[0]
            tall, small = max(mine, theirs), min(mine, theirs)
            if taken[there] or gap > 2 * tall or 10 * gap < -3 * tall or tall > 2 * small or gap >= best:
                continue
            if 10 * (min(one[1], other[1]) - max(one[0], other[0])) >= 7 * small:
                best, after[here] = gap, there
        if after[here] >= 0:
            taken[after[here]] = True


@compiled(types.Array(int64, 2, "C", readonly=True), int64, int64)
def _alike(found: Measures, one: int, other: int) -> bool:
    """Say whether two marks may be initials: of one height, beside each other, and sharp."""
    first, second = found[one], found[other]
    mine, theirs = first[1] - first[0], second[1] - second[0]
    tall, small = max(mine, theirs), min(mine, theirs)
    apart = max(abs(first[0] - second[0]), abs(first[1] - second[1]))
    sharp = first[6] >= SHARP_PAIR * first[5] and second[6] >= SHARP_PAIR * second[5]
    near: bool = apart <= EVEN * tall and second[2] - first[3] <= NEAR * tall
    return sharp and small >= 2 * SMALLEST and near


@compiled(types.Array(int64, 2, "C", readonly=True), int64, types.Array(int64, 1, "C"), types.Array(int64, 1, "C"))
def line_up(found: Measures, fewest: int, lines: Order, letters: Order) -> int:
    """Find which marks are like letters, and which of these stand on one line.

    Parameters
    ----------
    found : ndarray of int64, (marks, 7)
        What `measure` says of each.
    fewest : int
        Letters of a line, at least; a pair of letters that are alike is one, too.
    lines : ndarray of int64, (marks,)
        Takes the line of each mark from 0, and -1 for one that stands on none.
    letters : ndarray of int64, (marks,)
        Takes the letters of each line; two and more that touch are one mark.

    Returns
    -------
    int
        The lines.
    """
    count, fits = found.shape[0], 0
    which, weights = np.empty(count, np.int64), np.empty(count, np.int64)
    for n in range(count):
        lines[n] = -1
        tall, wide, outline = found[n, 1] - found[n, 0], found[n, 3] - found[n, 2], found[n, 5]
        if tall < SMALLEST or tall > TALLEST or 12 * wide < tall or found[n, 4] <= FULL * (tall * wide):
            continue
        touching = wide > 1.5 * tall and outline > 2.2 * (tall + wide)
        if wide > (12 if touching else 2.5) * tall or found[n, 6] < SHARP * max(outline, 1):
            continue
        weights[fits] = max(wide // tall, 1) if touching else 1
        which[fits] = n
        fits += 1
    order = np.argsort(found[which[:fits], 2], kind="mergesort")
    after = np.empty(fits, np.int64)
    _follow(found, which[:fits][order], after)
    follows = np.zeros(fits, np.bool_)
    for n in range(fits):
        if after[n] >= 0:
            follows[after[n]] = True
    number = 0
    for first in range(fits):
        if follows[first]:
            continue
        total, here = 0, first
        while here >= 0:
            total, here = total + weights[order[here]], after[here]
        if total < fewest and (after[first] < 0 or not _alike(found, which[order[first]], which[order[after[first]]])):
            continue
        here = first
        while here >= 0:
            lines[which[order[here]]], here = number, after[here]
        letters[number] = total
        number += 1
    return number


@compiled(
    types.Array(int32, 2, "C", readonly=True), types.Array(bool_, 1, "C", readonly=True), types.Array(bool_, 2, "C")
)
def with_rim(labels: Labels, some: Mask, chosen: Mask) -> None:
    """Choose the pixels of some labels, and those that touch them.

    Parameters
    ----------
    labels : ndarray of int32, (height, width)
        The label of each pixel.
    some : ndarray of bool, (labels,)
        Which labels.
    chosen : ndarray of bool, (height, width)
        Takes the choice.
    """
    height, width = labels.shape
    chosen[:] = False
    for y in range(height):
        for x in range(width):
            if some[labels[y, x]]:
                chosen[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2] = True
