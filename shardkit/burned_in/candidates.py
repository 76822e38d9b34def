"""Stage one, for all images: boxes of what may be lines of text, by the steps of their strokes and by their letters.

An image is looked at in its own size and halved twice, so that letters of 5 to 160 pixels have 5 to 40 in one of them.
Cells with strokes both across and along are rare in a radiograph; only where they lie together are marks parted from
their background, and those that stand on one line and have about one height are a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from shardkit.burned_in.boxes import FEWEST, Box, distinct, joined

Pixels = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Measures = npt.NDArray[np.int64]

LEVELS = 3
CELL = 8
REACH = 12  # pixels of the widest stroke
STEP, MOST_STEP = 0.15, 0.25  # of the span of grey: the least step that bounds a stroke; the most, where there is noise
AROUND = 8  # pixels to each side that a mark is parted from
EVEN = 0.25  # of the contrast of letters on a plate: the most that the plate's grey varies
LETTER = 600  # pixels of a mark, at most: what is more surrounds a plate
INK, LEAST_INK, MOST_INK = 255, 60, 0.2  # grey level of pixels of one level; how many, and what share, are text
FAINT = 0.03  # of the span of grey: the least contrast of text of one level


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
    for plane, extreme in _extremes(levels[0]):
        halves = _halved(plane)
        for box in _searched(halves, [INK // 4] * len(halves), plates=False):
            place = np.s_[box.top : box.top + box.height, box.left : box.left + box.width]
            if _stands_out(pixels[place], extreme, FAINT * span):
                found.append(replace(box, extreme=True))
    return distinct(joined(found))


def _halved(pixels: Pixels) -> list[Pixels]:
    """Return an image, and its halves while they are large enough."""
    from shardkit.burned_in import marks

    levels = [pixels]
    while len(levels) < LEVELS and min(levels[-1].shape) >= 200:
        half = np.empty((levels[-1].shape[0] // 2, levels[-1].shape[1] // 2), np.uint16)
        marks.halve_into(levels[-1], half)
        levels.append(half)
    return levels


def _extremes(pixels: Pixels) -> Iterator[tuple[Pixels, int]]:
    """Yield what has the largest grey level, or the least, and the level: text has no other, whatever lies behind it.

    White letters over bone differ from it by less than a step, but by their one grey level.
    """
    for extreme, light in ((pixels.max(), True), (pixels.min(), False)):
        ink = pixels == extreme
        if LEAST_INK <= np.count_nonzero(ink) <= MOST_INK * ink.size:
            yield (ink if light else ~ink) * np.uint16(INK), int(extreme)


def _stands_out(part: Pixels, extreme: int, least: float) -> bool:
    """Say whether what is not ink differs from it by so much; noise that is cut off there comes near to it."""
    others = part[part != extreme]
    return bool(others.size and abs(extreme - float(np.median(others))) >= least)


def _searched(levels: list[Pixels], leasts: list[int], plates: bool = True) -> Iterator[Box]:
    """Yield lines of marks in an image and its halves; `leasts` are the grey levels of a step in each."""
    sharp: Counts | None = None
    for depth, (level, least) in enumerate(zip(levels, leasts, strict=True)):
        counts, steps = _strokes(level, least)
        sharp = steps if sharp is None else sharp
        for rows, columns in _areas(level, counts, sharp, depth):
            yield from _lines(level[rows, columns], rows.start, columns.start, least, 1 << depth, plates)


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


def _lines(part: Pixels, top: int, left: int, least: int, scale: int, plates: bool) -> Iterator[Box]:
    """Yield the lines of marks in a part of a level that begins at (top, left); `scale` pixels of the image are one."""
    from shardkit.burned_in import marks

    part = np.ascontiguousarray(part)
    for light, mask, plate in _tones(part, least, plates):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        found = np.empty((count, 7), np.int64)
        marks.measure(labels.astype(np.int32, copy=False), part, 1 if light else -1, least, found)
        for upright in (True, False):
            boxes = found if upright else np.ascontiguousarray(found[:, [2, 3, 0, 1, 4, 5, 6]])
            for line, letters, score in _rows_of_letters(boxes):
                y0, y1, x0, x1 = line if upright else line[2:] + line[:2]
                place = slice(y0, y1), slice(x0, x1)
                if plate is not None and not _even(part[place], mask[place], plate[place], light):
                    continue
                corner, sides = ((top + y0) * scale, (left + x0) * scale), ((y1 - y0) * scale, (x1 - x0) * scale)
                yield Box(*corner, *sides, upright, light, letters, score)


def _tones(part: Pixels, least: int, plates: bool) -> Iterator[tuple[bool, Mask, Mask | None]]:
    """Yield whether marks are light, where they are, and where the plate is that they stand on, if they do.

    A dark plate in a light image, and the text on it, are all dark against what is around: they are parted once more.
    """
    from shardkit.burned_in import marks

    tones, again = np.empty(part.shape, np.uint8), np.empty(part.shape, np.uint8)
    others: Mask = np.empty(part.shape, np.bool_)
    marks.part_tones(part, np.zeros(part.shape, np.bool_), AROUND, 3 * least // 2, tones)
    yield True, tones == 2, None
    yield False, tones == 1, None
    for plate in (1, 2) if plates else ():
        labels, _ = ndimage.label(tones == 3 - plate, np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        marks.with_rim(labels.astype(np.int32, copy=False), sizes > LETTER, others)  # the rim is soft
        marks.part_tones(part, others, AROUND, least, again)
        yield plate == 1, again == 3 - plate, again == plate


def _even(part: Pixels, letters: Mask, plate: Mask, light: bool) -> bool:
    """Say whether a plate has one grey, beside the soft edges of letters; wires and ribs that cross have none."""
    if not plate.any() or not letters.any():
        return False
    low, high = np.percentile(part[plate], (5, 60) if light else (40, 95))
    return bool(high - low <= EVEN * abs(np.median(part[letters]) - (low + high) / 2))


def _rows_of_letters(boxes: Measures) -> Iterator[tuple[list[int], int, float]]:
    """Yield box, letters and score of each line among marks, as `marks.measure` describes them."""
    from shardkit.burned_in import marks

    lines, letters = np.empty(len(boxes), np.int64), np.empty(len(boxes), np.int64)
    for number in range(marks.line_up(boxes, FEWEST, lines, letters)):
        line = boxes[lines == number]
        line = line[np.argsort(line[:, 2], kind="stable")]
        count = int(letters[number])
        reach = _reach(boxes, line) if count >= FEWEST else _around_all(line)
        yield reach, count, _score(line, count)


def _around_all(line: Measures) -> list[int]:
    """Return the box of a line's marks."""
    return [int(line[:, 0].min()), int(line[:, 1].max()), int(line[:, 2].min()), int(line[:, 3].max())]


def _reach(boxes: Measures, line: Measures) -> list[int]:
    """Return the box of a line with the marks that lie along it: dots, dashes, accents, letters of unusual shape."""
    y0, y1, x0, x1 = _around_all(line)
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


def _score(boxes: Measures, count: int) -> float:
    """Say how much marks are like letters: many, on one line, with sharp outlines."""
    heights = boxes[:, 1] - boxes[:, 0]
    ends = min(np.std(boxes[:, 1]), np.std(boxes[:, 0])) / np.median(heights)
    sharp = boxes[:, 6] / np.maximum(boxes[:, 5], 1)
    return float(min(count / 8, 1.0) * max(0.0, 1 - 2 * ends) * sharp.mean())
