"""A line parted at its wide gaps: a side marker beside a radiographer's initials is one thing, the initials another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from shardkit.burned_in.boxes import Box
from shardkit.burned_in.candidates import AROUND

Pixels = npt.NDArray[np.uint16]

WIDE = 1.0  # of a line's height: the least gap that parts it; between words of most fonts there is less
_HEIGHT = 24  # pixels of a line that is looked at
_SPAN = 0.5  # of a line's span of grey: that of the surroundings of a letter
_LETTER = 2  # pixels of a column of a letter, at least


def pieces(pixels: Pixels, box: Box) -> list[Box]:
    """Return the parts of a line between its wide gaps, from its left or top; the line itself if it has none.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    box : Box
        The line.
    """
    if not box.upright:
        return [piece.turned() for piece in pieces(pixels.T, box.turned())]
    part = pixels[box.top : box.top + box.height, box.left : box.left + box.width]
    ink = _ink(part, box.light)
    inked = np.flatnonzero(ink.sum(0) >= _LETTER)
    if not inked.size:
        return [box]
    rows = np.cumsum(ink[:, inked].sum(1)) / ink[:, inked].sum()
    height = np.searchsorted(rows, 0.97) - np.searchsorted(rows, 0.03) + 1
    gaps = np.flatnonzero(np.diff(inked) > WIDE * height)
    starts, ends = inked[np.append(0, gaps + 1)] - height / 4, inked[np.append(gaps, -1)] + 1 + height / 4
    if len(starts) == 1:
        return [box]
    scale = box.height / _HEIGHT
    sides = [(max(int(start * scale), 0), int(end * scale)) for start, end in zip(starts, ends, strict=True)]
    return [replace(box, left=box.left + start, width=min(end, box.width) - start) for start, end in sides]


def _ink(part: Pixels, light: bool) -> npt.NDArray[np.bool_]:
    """Say of a line of 24 pixels which of them are lighter, or darker, than what is around them."""
    from shardkit.burned_in import marks

    grey = Image.fromarray(part.astype(np.float32))
    size = max(round(part.shape[1] * _HEIGHT / part.shape[0]), 1), _HEIGHT
    small = np.asarray(grey.resize(size, Image.Resampling.BOX)).round().astype(np.uint16)
    low, high = np.percentile(small, (2, 98))
    none, tones = np.zeros(small.shape, np.bool_), np.empty(small.shape, np.uint8)
    marks.part_tones(small, none, AROUND, max(round(_SPAN * (high - low)), 2), tones)
    return np.asarray(tones == (2 if light else 1))
