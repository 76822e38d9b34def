"""Stage one, for all images: boxes of what may be lines of text, by the steps of their strokes and by their letters.

An image is looked at in its own size and halved twice, so that letters of 5 to 160 pixels have 5 to 40 in one of them.
Cells with strokes both across and along are rare in a radiograph; only where they lie together are marks parted from
their background, and those that stand on one line and have about one height are a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Pixels = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.uint16]
Measures = npt.NDArray[np.int64]

LEVELS = 3
CELL = 8
REACH = 12  # pixels of the widest stroke
STEP, MOST_STEP = 0.15, 0.25  # of the span of grey: the least step that bounds a stroke; the most, where there is noise
SHARP = 0.6  # of a letter's outline, that has such steps
AROUND = 8  # pixels to each side that a mark is parted from
SMALLEST, TALLEST = 4, 40  # pixels of a letter's height, in the level where it is found
FEWEST = 3  # letters of a line
INK, LEAST_INK, MOST_INK = 255, 60, 0.2  # grey level of pixels of one level; how many, and what share, are text


@dataclass(frozen=True)
class Box:
    """What may be a line of text.

    Parameters
    ----------
    top, left, height, width : int
        Where, in pixels of the image.
    upright : bool
        The line runs across the image, not up or down.
    light : bool
        Its letters are lighter than what is behind them.
    letters : int
        Marks that stand on the line.
    score : float
        0 to 1: how much the marks are like letters.
    extreme : bool
        It was seen only among the pixels of the largest, or the least, grey level.
    """

    top: int
    left: int
    height: int
    width: int
    upright: bool
    light: bool
    letters: int
    score: float
    extreme: bool = False

    def turned(self) -> Box:
        """Return it with rows and columns exchanged: what is true of upright lines is then true of the others."""
        return replace(
            self, top=self.left, left=self.top, height=self.width, width=self.height, upright=not self.upright
        )


def candidates(pixels: Pixels, bits: int) -> list[Box]:
    """Find what may be lines of text: lighter or darker than their background, upright or turned by quarters.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    bits : int
        Its depth.

    Returns
    -------
    list of Box
        The best first; none lies mostly inside another.
    """
    if min(pixels.shape) < CELL:
        return []
    levels = _halved(np.ascontiguousarray(pixels))
    low, high = _quantiles(levels[-1], 0.02, 0.98)
    span = max(float(high - low), 8.0 if bits <= 8 else float(1 << (bits - 5)))
    found = list(_searched(levels, [_least(level, span) for level in levels]))
    for plane in _extremes(levels[0]):
        levels = _halved(plane)
        found.extend(replace(box, extreme=True) for box in _searched(levels, [INK // 4] * len(levels)))
    return _distinct(_joined(found))


def _halved(pixels: Pixels) -> list[Pixels]:
    """Return an image, and its halves while they are large enough."""
    from shardkit.burned_in import marks

    levels = [pixels]
    while len(levels) < LEVELS and min(levels[-1].shape) >= 200:
        half = np.empty((levels[-1].shape[0] // 2, levels[-1].shape[1] // 2), np.uint16)
        marks.halve_into(levels[-1], half)
        levels.append(half)
    return levels


def _extremes(pixels: Pixels) -> Iterator[Pixels]:
    """Yield what has the largest grey level, and what has the least: text has no other, whatever lies behind it.

    White letters over bone differ from it by less than a step, but by their one grey level.
    """
    for extreme, light in ((pixels.max(), True), (pixels.min(), False)):
        ink = pixels == extreme
        if LEAST_INK <= np.count_nonzero(ink) <= MOST_INK * ink.size:
            yield (ink if light else ~ink) * np.uint16(INK)


def _searched(levels: list[Pixels], leasts: list[int]) -> Iterator[Box]:
    """Yield lines of marks in an image and its halves; `leasts` are the grey levels of a step in each."""
    sharp: Counts | None = None
    for depth, (level, least) in enumerate(zip(levels, leasts, strict=True)):
        counts, steps = _strokes(level, least)
        sharp = steps if sharp is None else sharp
        for rows, columns in _areas(level, counts, sharp, depth):
            yield from _lines(level[rows, columns], rows.start, columns.start, least, 1 << depth)


def _least(level: Pixels, span: float) -> int:
    """Return the grey levels of a step that bounds a stroke: a share of the span, more where an image is noisy."""
    some = level[:: max(level.shape[0] // 64, 1)]
    one, other = some[:, 2:], some[:, :-2]
    (noise,) = _quantiles(np.maximum(one, other) - np.minimum(one, other), 0.98)
    return max(round(min(max(STEP * span, 1.5 * noise), MOST_STEP * span)), 2)


def _quantiles(greys: Pixels, *shares: float) -> list[int]:
    """Return the grey levels that these shares lie below; counting them is many times quicker than sorting."""
    upto = np.bincount(greys.ravel()).cumsum()
    return [int(level) for level in np.searchsorted(upto, np.multiply(shares, greys.size), side="right")]


def _strokes(level: Pixels, least: int) -> tuple[Counts, Counts]:
    """Return the strokes of each cell across and along, and its steps."""
    from shardkit.burned_in import marks

    rows, columns = (-(-side // CELL) for side in level.shape)
    counts, steps = np.zeros((rows, columns, 2), np.uint16), np.zeros((rows, columns), np.uint16)
    marks.count_strokes(level, least, REACH, CELL, counts, steps)
    return counts, steps


def _areas(level: Pixels, counts: Counts, sharp: Counts, depth: int) -> Iterator[tuple[slice, slice]]:
    """Yield the parts of an image where cells with strokes lie together, and steps are sharp in its own size."""
    if not counts.any():
        return
    height, width = level.shape
    across, along = _around(counts[..., 0]), _around(counts[..., 1])
    strokes = (across >= 4) & (along >= 4) & (across + along >= 14)
    if not strokes.any():
        return
    if depth:
        strokes &= _pooled(sharp, depth, strokes.shape) >= 6
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    for index, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        if counts[rows, columns][labels[rows, columns] == index].sum() < 24:
            continue
        yield (
            slice(max((rows.start - 1) * CELL, 0), min((rows.stop + 1) * CELL, height)),
            slice(max((columns.start - 1) * CELL, 0), min((columns.stop + 1) * CELL, width)),
        )


def _pooled(steps: Counts, depth: int, shape: tuple[int, ...]) -> npt.NDArray[np.uint32]:
    """Return the steps of the image's own size that lie in, or next to, each cell of a level."""
    side = 1 << depth
    sums = np.zeros((shape[0] * side, shape[1] * side), np.uint32)
    rows, columns = min(sums.shape[0], steps.shape[0]), min(sums.shape[1], steps.shape[1])
    sums[:rows, :columns] = steps[:rows, :columns]
    return _around(sums.reshape(shape[0], side, shape[1], side).sum((1, 3)))


def _around(counts: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """Return the sums of cells and their neighbours; outside there is nothing."""
    padded: npt.NDArray[np.uint32] = np.pad(counts.astype(np.uint32), 1)
    tall: npt.NDArray[np.uint32] = padded[:-2] + padded[1:-1] + padded[2:]
    return tall[:, :-2] + tall[:, 1:-1] + tall[:, 2:]


def _lines(part: Pixels, top: int, left: int, least: int, scale: int) -> Iterator[Box]:
    """Yield the lines of marks in a part of a level that begins at (top, left); `scale` pixels of the image are one."""
    from shardkit.burned_in import marks

    part = np.ascontiguousarray(part)
    tones = np.empty(part.shape, np.uint8)
    marks.part_tones(part, AROUND, 3 * least // 2, tones)
    for tone in (2, 1):
        labels, count = ndimage.label(tones == tone, np.ones((3, 3)))
        found = np.empty((count, 7), np.int64)
        marks.measure(labels.astype(np.int32, copy=False), part, 1 if tone == 2 else -1, least, found)
        for upright in (True, False):
            boxes = found if upright else found[:, [2, 3, 0, 1, 4, 5, 6]]
            for line, letters, score in _rows_of_letters(boxes):
                y0, y1, x0, x1 = line if upright else line[2:] + line[:2]
                corner, sides = ((top + y0) * scale, (left + x0) * scale), ((y1 - y0) * scale, (x1 - x0) * scale)
                yield Box(*corner, *sides, upright, tone == 2, letters, score)


def _rows_of_letters(boxes: Measures) -> Iterator[tuple[list[int], int, float]]:
    """Yield box, letters and score of each line among marks, as `marks.measure` describes them."""
    from shardkit.burned_in import marks

    heights, widths = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    fill = boxes[:, 4] / (heights * widths)
    sharp = boxes[:, 6] / np.maximum(boxes[:, 5], 1)
    joined = (widths > 1.5 * heights) & (boxes[:, 5] > 2.2 * (heights + widths))
    fits = (heights >= SMALLEST) & (heights <= TALLEST) & (fill > 0.12) & (sharp >= SHARP) & (12 * widths >= heights)
    letters = np.flatnonzero(fits & ((widths <= 2.5 * heights) | (joined & (widths <= 12 * heights))))
    letters = letters[np.argsort(boxes[letters, 2], kind="stable")]
    weights = np.where(joined, np.maximum(widths // np.maximum(heights, 1), 1), 1)
    after = np.empty(len(letters), np.int64)
    marks.follow(np.ascontiguousarray(boxes[letters, :4]), after)
    firsts = np.setdiff1d(np.arange(len(letters)), after)
    for first in firsts:
        chain = [int(first)]
        while after[chain[-1]] >= 0:
            chain.append(int(after[chain[-1]]))
        line = letters[chain]
        count = int(weights[line].sum())
        if count >= FEWEST:
            yield _reach(boxes, boxes[line]), count, _score(boxes[line], count, sharp[line])


def _reach(boxes: Measures, line: Measures) -> list[int]:
    """Return the box of a line with the marks that lie along it: dots, dashes, accents, letters of unusual shape."""
    y0, y1, x0, x1 = int(line[:, 0].min()), int(line[:, 1].max()), int(line[:, 2].min()), int(line[:, 3].max())
    tall = y1 - y0
    tops, ends = np.maximum(boxes[:, 0], y0), np.minimum(boxes[:, 1], y1)
    heights = boxes[:, 1] - boxes[:, 0]
    along = boxes[
        (2 * (ends - tops) >= heights)
        & (2 * heights <= 3 * tall)
        & (boxes[:, 4] >= 3)
        & (8 * tall >= boxes[:, 3] - boxes[:, 2])
    ]
    grown = True
    while grown:
        near = along[(along[:, 2] <= x1 + tall) & (along[:, 3] >= x0 - tall)]
        before = (y0, y1, x0, x1)
        if len(near):
            x0, x1 = min(x0, int(near[:, 2].min())), max(x1, int(near[:, 3].max()))
            y0, y1 = min(y0, int(near[:, 0].min())), max(y1, int(near[:, 1].max()))
        grown = (y0, y1, x0, x1) != before
    return [y0, y1, x0, x1]


def _score(boxes: Measures, count: int, sharp: npt.NDArray[np.float64]) -> float:
    """Say how much marks are like letters: many, on one line, with sharp outlines."""
    heights = boxes[:, 1] - boxes[:, 0]
    ends = min(np.std(boxes[:, 1]), np.std(boxes[:, 0])) / np.median(heights)
    return float(min(count / 8, 1.0) * max(0.0, 1 - 2 * ends) * sharp.mean())


def _joined(found: list[Box]) -> list[Box]:
    """Join lines that go on: of one direction and tone, of about one height, next to each other."""
    lines = sorted(found, key=lambda b: b.left if b.upright else b.top)
    joined: list[Box] = []
    for line in lines:
        for n, other in enumerate(joined):
            if _goes_on(other, line):
                joined[n] = _both(other, line)
                break
        else:
            joined.append(line)
    return joined


def _goes_on(one: Box, other: Box) -> bool:
    if one.upright != other.upright or one.light != other.light:
        return False
    if not one.upright:
        return _goes_on(one.turned(), other.turned())
    small, tall = sorted((one.height, other.height))
    shared = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    return tall <= 2 * small and shared >= 0.7 * small and other.left - one.left - one.width <= 2 * tall


def _both(one: Box, other: Box) -> Box:
    apart = 2 * _shared(one, other) < min(one.height * one.width, other.height * other.width)
    letters = one.letters + other.letters if apart else max(one.letters, other.letters)
    return replace(_union(one, other), letters=letters, score=max(one.score, other.score))


def _union(one: Box, other: Box) -> Box:
    """Return the first with the least box around both; it is seen as the other is, too."""
    top, left = min(one.top, other.top), min(one.left, other.left)
    bottom = max(one.top + one.height, other.top + other.height)
    right = max(one.left + one.width, other.left + other.width)
    extreme = one.extreme and other.extreme
    return replace(one, top=top, left=left, height=bottom - top, width=right - left, extreme=extreme)


def _distinct(found: list[Box]) -> list[Box]:
    """Keep the best of lines that lie over each other; it takes in those of its direction and about its height."""
    kept: list[Box] = []
    for box in sorted(found, key=lambda b: (-b.letters * b.score, b.top, b.left)):
        for n, other in enumerate(kept):
            if 2 * _shared(box, other) >= min(box.height * box.width, other.height * other.width):
                if box.upright == other.upright and _height(box) <= 1.5 * _height(other):
                    kept[n] = _union(other, box)
                break
        else:
            kept.append(box)
    return kept


def _height(box: Box) -> int:
    return box.height if box.upright else box.width


def _shared(one: Box, other: Box) -> int:
    """Return the pixels that lie in both."""
    down = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    across = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(down, 0) * max(across, 0)
