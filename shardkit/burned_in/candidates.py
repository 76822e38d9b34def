"""Stage one, for all images: boxes of what may be lines of text, by the steps of their strokes and by their letters.

An image is looked at in its own size and halved twice, so that letters of 5 to 160 pixels have 5 to 40 in one of them.
Cells with strokes both across and along are rare in a radiograph; only where they lie together are marks parted from
their background, and those that stand on one line and have about one height are a candidate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Pixels = npt.NDArray[np.uint16]
Counts = npt.NDArray[np.uint16]
Mask = npt.NDArray[np.bool_]
Measures = npt.NDArray[np.int64]

LEVELS = 3
CELL = 8
REACH = 12  # pixels of the widest stroke
STEP, MOST_STEP = 0.15, 0.25  # of the span of grey: the least step that bounds a stroke; the most, where there is noise
SHARP = 0.6  # of a letter's outline, that has such steps
AROUND = 8  # pixels to each side that a mark is parted from
EVEN = 0.25  # of the contrast of letters on a plate: the most that the plate's grey varies
SMALLEST, TALLEST = 4, 40  # pixels of a letter's height, in the level where it is found
FEWEST = 3  # letters of a line


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
    """

    top: int
    left: int
    height: int
    width: int
    upright: bool
    light: bool
    letters: int
    score: float

    @property
    def letter_height(self) -> int:
        """Pixels across its line."""
        return self.height if self.upright else self.width

    def with_margin(self, shape: tuple[int, ...], along: int, across: int) -> Box:
        """Return it with pixels more at both ends of its line and at both sides, within an image of this shape."""
        if not self.upright:
            return self.turned().with_margin(shape[::-1], along, across).turned()
        top, left = max(self.top - across, 0), max(self.left - along, 0)
        bottom = min(self.top + self.height + across, shape[0])
        right = min(self.left + self.width + along, shape[1])
        return replace(self, top=top, left=left, height=bottom - top, width=right - left)

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
    from shardkit.burned_in import marks

    if min(pixels.shape) < CELL:
        return []
    levels = [np.ascontiguousarray(pixels)]
    while len(levels) < LEVELS and min(levels[-1].shape) >= 200:
        half = np.empty((levels[-1].shape[0] // 2, levels[-1].shape[1] // 2), np.uint16)
        marks.halve_into(levels[-1], half)
        levels.append(half)
    span = max(float(np.subtract(*np.percentile(levels[-1], (98, 2)))), 8.0 if bits <= 8 else float(1 << (bits - 5)))
    found: list[Box] = []
    sharp: Counts | None = None
    for depth, level in enumerate(levels):
        least = _least(level, span)
        counts, steps = _strokes(level, least)
        sharp = steps if sharp is None else sharp
        for rows, columns in _areas(level, counts, sharp, depth):
            found.extend(_lines(level[rows, columns], rows.start, columns.start, least, 1 << depth))
    return _distinct(_joined(found))


def _least(level: Pixels, span: float) -> int:
    """Return the grey levels of a step that bounds a stroke: a share of the span, more where an image is noisy."""
    some = level[:: max(level.shape[0] // 64, 1)].astype(np.int32)
    noise = float(np.percentile(np.abs(some[:, 2:] - some[:, :-2]), 98))
    return max(round(min(max(STEP * span, 1.5 * noise), MOST_STEP * span)), 2)


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
    near = ndimage.uniform_filter(counts.astype(np.float32), (3, 3, 0), mode="constant") * 9
    strokes = (near[..., 0] >= 4) & (near[..., 1] >= 4) & (near.sum(-1) >= 14)
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


def _pooled(steps: Counts, depth: int, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return the steps of the image's own size that lie in, or next to, each cell of a level."""
    side = 1 << depth
    sums = np.zeros((shape[0] * side, shape[1] * side), np.float64)
    rows, columns = min(sums.shape[0], steps.shape[0]), min(sums.shape[1], steps.shape[1])
    sums[:rows, :columns] = steps[:rows, :columns]
    sums = sums.reshape(shape[0], side, shape[1], side).sum((1, 3))
    return ndimage.uniform_filter(sums, 3, mode="constant") * 9


def _lines(part: Pixels, top: int, left: int, least: int, scale: int) -> Iterator[Box]:
    """Yield the lines of marks in a part of a level that begins at (top, left); `scale` pixels of the image are one."""
    from shardkit.burned_in import marks

    part = np.ascontiguousarray(part)
    for light, mask, plate in _tones(part, least):
        labels, count = ndimage.label(mask, np.ones((3, 3)))
        found = np.empty((count, 7), np.int64)
        marks.measure(labels.astype(np.int32, copy=False), part, 1 if light else -1, least, found)
        for upright in (True, False):
            boxes = found if upright else found[:, [2, 3, 0, 1, 4, 5, 6]]
            for line, letters, score in _rows_of_letters(boxes):
                y0, y1, x0, x1 = line if upright else line[2:] + line[:2]
                place = slice(y0, y1), slice(x0, x1)
                if plate is not None and not _even(part[place], mask[place], plate[place]):
                    continue
                corner, sides = ((top + y0) * scale, (left + x0) * scale), ((y1 - y0) * scale, (x1 - x0) * scale)
                yield Box(*corner, *sides, upright, light, letters, score)


def _tones(part: Pixels, least: int) -> Iterator[tuple[bool, Mask, Mask | None]]:
    """Yield whether marks are light, where they are, and where the plate is that they stand on, if they do.

    A dark plate in a light image, and the text on it, are all dark against what is around: they are parted once more.
    """
    from shardkit.burned_in import marks

    everywhere = np.zeros(part.shape, np.uint8)
    tones, again = np.empty_like(everywhere), np.empty_like(everywhere)
    marks.part_tones(part, everywhere, 0, AROUND, 2 * least, tones)
    yield True, tones == 2, None
    yield False, tones == 1, None
    for plate in (1, 2):
        others = ndimage.binary_dilation(tones == 3 - plate, np.ones((3, 3)))  # with the soft edge towards them
        marks.part_tones(part, others.astype(np.uint8), 0, AROUND, least, again)
        yield plate == 1, again == 3 - plate, again == plate


def _even(part: Pixels, letters: Mask, plate: Mask) -> bool:
    """Say whether a plate has one grey, beside the soft edges of letters; wires and ribs that cross have none."""
    if not plate.any() or not letters.any():
        return False
    low, high = np.percentile(part[plate], (10, 70))
    return bool(high - low <= EVEN * abs(np.median(part[letters]) - (low + high) / 2))


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
    beside = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    return tall <= 2 * small and beside >= 0.7 * small and other.left - one.left - one.width <= 2 * tall


def _both(one: Box, other: Box) -> Box:
    apart = 2 * shared(one, other) < min(one.height * one.width, other.height * other.width)
    letters = one.letters + other.letters if apart else max(one.letters, other.letters)
    return replace(union(one, other), letters=letters, score=max(one.score, other.score))


def union(one: Box, other: Box) -> Box:
    """Return the first with the least box around both."""
    top, left = min(one.top, other.top), min(one.left, other.left)
    bottom = max(one.top + one.height, other.top + other.height)
    right = max(one.left + one.width, other.left + other.width)
    return replace(one, top=top, left=left, height=bottom - top, width=right - left)


def _distinct(found: list[Box]) -> list[Box]:
    """Keep the best of lines that lie over each other; it takes in those of its direction and about its height."""
    kept: list[Box] = []
    for box in sorted(found, key=lambda b: (-b.letters * b.score, b.top, b.left)):
        for n, other in enumerate(kept):
            if 2 * shared(box, other) >= min(box.height * box.width, other.height * other.width):
                if box.upright == other.upright and box.letter_height <= 1.5 * other.letter_height:
                    kept[n] = union(other, box)
                break
        else:
            kept.append(box)
    return kept


def shared(one: Box, other: Box) -> int:
    """Return the pixels that lie in both."""
    down = min(one.top + one.height, other.top + other.height) - max(one.top, other.top)
    across = min(one.left + one.width, other.left + other.width) - max(one.left, other.left)
    return max(down, 0) * max(across, 0)
