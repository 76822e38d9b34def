"""Text in an image: candidates of stage one, told apart by what stage two reads, or, without it, by their letters."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.burned_in import reading
from shardkit.burned_in.boxes import Box, shared, union
from shardkit.burned_in.candidates import candidates
from shardkit.burned_in.findings import Finding
from shardkit.burned_in.markers import is_marker
from shardkit.burned_in.pieces import pieces
from shardkit.burned_in.reading import Reading
from shardkit.extras import has_ocr

Pixels = npt.NDArray[np.uint16]

MOST = 16  # candidates of an image that are read, the most letter-like first
SURE, SURE_OF_FEW = 0.6, 0.8  # confidence of a reading of four characters and more; of two or three, as wires make
SURE_OF_PAIR = 0.9  # of two letters alone
RINGS = frozenset("O0oI1l")  # what rings and clips are read as
EVIDENT, EVIDENT_LETTERS = 0.65, 6  # score and letters of a line that is flagged though it was not read
FAIR, FAIR_LETTERS, HINT = 0.45, 4, 0.3  # of one that is flagged if something was read, and how surely
HALF_SURE = 0.4  # confidence of four characters, or two that are not Latin, which are flagged but not called text
LONGER = 3  # times that a text is looked for beyond its ends


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
    if not (boxes := candidates(pixels, bits)):
        return []
    reads = has_ocr() if read is None else read
    found: list[Finding] = []
    for n, box in enumerate(boxes):
        found += _judged(pixels, box) if reads and n < MOST else _unread(box)
    return sorted(found, key=lambda f: (f.top, f.left))


def _judged(pixels: Pixels, box: Box) -> list[Finding]:
    """Read a candidate and its surroundings, as more may belong to it, and tell markers from what is beside them."""
    read = reading.read(pixels, box)
    if box.is_pair and not _initials(read):
        return _mirrored(pixels, box)
    if not _trusted(read):
        return _unread(box, read)
    for _ in range(LONGER):
        wider = box.with_margin(pixels.shape, 4 * box.letter_height, 0)
        again = reading.read(pixels, wider, read.turned)
        if not _trusted(again) or len(again.text) <= len(read.text):
            break
        longer = _read_part(box, wider, again)
        if is_marker(read.text) and not is_marker(again.text):
            return [_finding(box, "marker", read.confidence), *_beside(pixels, box, longer, again.turned)]
        box, read = longer, again
    if is_marker(read.text):
        return [_finding(box, "marker", read.confidence)]
    return _parted(pixels, box, read)


def _mirrored(pixels: Pixels, box: Box) -> list[Finding]:
    """Read two letters from behind: letters of lead are mirrored in an image that is shown as seen from the other side.

    What is not read surely is too little to flag, and a permitted word needs no finding.
    """
    read = reading.read(pixels[:, ::-1], box.mirrored(pixels.shape[1]))
    return [_finding(box, "text", read.confidence)] if _initials(read) and not is_marker(read.text) else []


def _beside(pixels: Pixels, marker: Box, line: Box, turned: bool) -> list[Finding]:
    """Find the text on a line beyond a marker, where a gap parts them. A lone letter there, or half a one, is none."""
    found = []
    for piece in pieces(pixels, line):
        read = reading.read(pixels, piece, turned)
        if not shared(piece, marker) and read.confidence >= SURE_OF_FEW and _trusted(read):
            found.append(_finding(piece, "marker" if is_marker(read.text) else "text", read.confidence))
    return found


def _parted(pixels: Pixels, box: Box, read: Reading) -> list[Finding]:
    """Return the parts of a line of text that wide gaps part, if markers are among them; else the line."""
    parts = pieces(pixels, box)
    if len(parts) == 1:
        return [_alone(pixels, box, read)]
    reads = [reading.read(pixels, part, read.turned) for part in parts]
    lone = sum(sum(c.isalnum() for c in each.text) <= 1 for each in reads)  # two such letters may be initials
    stays = [
        each.confidence >= SURE_OF_FEW and is_marker(each.text) and (len(each.text) > 1 or lone == 1) for each in reads
    ]
    if not any(stays):
        return [_finding(box, "text", read.confidence)]
    found = []
    for stay, run in groupby(zip(stays, parts, reads, strict=True), key=lambda each: each[0]):
        some = list(run)
        sure = min(each.confidence for _, _, each in some) if stay else read.confidence
        found.append(_finding(reduce(union, (part for _, part, _ in some)), "marker" if stay else "text", sure))
    return found


def _alone(pixels: Pixels, box: Box, read: Reading) -> Finding:
    """Call a line text, unless it is a marker when it is read with what is above and below: feet, accents, shadows."""
    taller = box.with_margin(pixels.shape, 0, max(box.letter_height // 2, 2))
    again = reading.read(pixels, taller, read.turned)
    if again.confidence >= SURE_OF_FEW and len(again.text) >= len(read.text) and is_marker(again.text):
        return _finding(taller, "marker", again.confidence)
    return _finding(box, "text", read.confidence)


def _read_part(box: Box, wider: Box, read: Reading) -> Box:
    """Return the box with that part of the wider one where characters were read, and half a letter more."""
    if not box.upright:
        return _read_part(box.turned(), wider.turned(), read).turned()
    more = box.height // 2
    left = min(max(wider.left + int(read.begin * wider.width) - more, wider.left), box.left)
    end = min(wider.left + int(read.end * wider.width) + more, wider.left + wider.width)
    return replace(box, left=left, width=max(end, box.left + box.width) - left)


def _trusted(read: Reading) -> bool:
    """Say whether a reading is of text: two letters or digits, of which it is the surer the fewer there are."""
    characters = sum(c.isalnum() for c in read.text)
    if characters < 2:
        return False
    return read.confidence >= (SURE if characters >= 4 else SURE_OF_FEW)


def _initials(read: Reading) -> bool:
    """Say whether a reading is surely of two letters or three, and not of rings."""
    characters = [c for c in read.text if c.isalnum()]
    return 2 <= len(characters) <= 3 and read.confidence >= SURE_OF_PAIR and not RINGS.issuperset(characters)


def _unread(box: Box, read: Reading | None = None) -> list[Finding]:
    """Flag what could not be read, if its letters are evident, or fair and half known to the recogniser.

    Noise that is cut off at the largest grey level has many letters, and is not flagged unless it is read.
    """
    if box.extreme:
        return []
    evident = box.letters >= EVIDENT_LETTERS and box.score >= EVIDENT
    if read is not None:  # other scripts are read as something else
        characters = sum(not c.isspace() for c in read.text)
        foreign = sum(c.isalnum() and not c.isascii() for c in read.text)
        evident |= read.confidence >= HALF_SURE and (characters >= 4 or foreign >= 2)
        evident |= read.confidence >= HINT and box.letters >= FAIR_LETTERS and box.score >= FAIR
    return [_finding(box, "unreadable", box.score)] if evident else []


def _finding(box: Box, kind: Any, confidence: float) -> Finding:
    return Finding(box.top, box.left, box.height, box.width, kind, round(min(max(confidence, 0.0), 1.0), 3))
