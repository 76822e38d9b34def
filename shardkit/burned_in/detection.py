"""Text in an image: candidates of stage one, told apart by what stage two reads, or, without it, by their letters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.burned_in import reading
from shardkit.burned_in.candidates import Box, candidates
from shardkit.burned_in.findings import Finding
from shardkit.burned_in.markers import is_marker
from shardkit.burned_in.reading import Reading

Pixels = npt.NDArray[np.uint16]

MOST = 16  # candidates of an image that are read, the most letter-like first
SURE, SURE_OF_FEW = 0.6, 0.8  # confidence of a reading of four characters and more; of two or three, as wires make
EVIDENT, EVIDENT_LETTERS = 0.65, 6  # score and letters of a line that is flagged though it was not read


def find(pixels: Pixels, bits: int, *, read: bool | None = None) -> list[Finding]:
    """Find the lines of text in an image.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    bits : int
        Its depth.
    read : bool, optional
        Read the candidates, which needs the extra `ocr`. By default where it is installed. Without, a line is flagged
        by its letters alone, and markers cannot be told from other text: all are "unreadable".

    Returns
    -------
    list of Finding
        From the top, then from the left. A lone letter is none: a side marker, or nothing that names anybody.

    Raises
    ------
    ArgumentError
        If reading is asked for and the extra is missing.
    """
    reads = reading.available() if read is None else read
    boxes = candidates(pixels, bits)
    found = [_judged(pixels, box) if reads and n < MOST else _unread(box) for n, box in enumerate(boxes)]
    return sorted((f for f in found if f is not None), key=lambda f: (f.top, f.left))


def _judged(pixels: Pixels, box: Box) -> Finding | None:
    """Read a candidate; what is not a marker is read again with its surroundings, as it may be part of one."""
    read = reading.read(pixels, box)
    if not _trusted(read):
        return _unread(box)
    if is_marker(read.text):
        return _finding(box, "marker", read.confidence)
    wider = _wider(pixels, box)
    again = reading.read(pixels, wider)
    if _trusted(again) and len(again.text) > len(read.text) and is_marker(again.text):
        return _finding(wider, "marker", again.confidence)
    return _finding(box, "text", read.confidence)


def _trusted(read: Reading) -> bool:
    """Say whether a reading is of text: two letters or digits, of which it is the surer the fewer there are."""
    characters = sum(c.isalnum() for c in read.text)
    if characters < 2:
        return False
    return read.confidence >= (SURE if characters >= 4 else SURE_OF_FEW)


def _unread(box: Box) -> Finding | None:
    if box.letters < EVIDENT_LETTERS or box.score < EVIDENT:
        return None
    return _finding(box, "unreadable", box.score)


def _wider(pixels: Pixels, box: Box) -> Box:
    """Return the box with four letters' heights more at both ends of its line."""
    more = 4 * (box.height if box.upright else box.width)
    if box.upright:
        left = max(box.left - more, 0)
        return replace(box, left=left, width=min(box.left + box.width + more, pixels.shape[1]) - left)
    top = max(box.top - more, 0)
    return replace(box, top=top, height=min(box.top + box.height + more, pixels.shape[0]) - top)


def _finding(box: Box, kind: Any, confidence: float) -> Finding:
    return Finding(box.top, box.left, box.height, box.width, kind, round(min(max(confidence, 0.0), 1.0), 3))
