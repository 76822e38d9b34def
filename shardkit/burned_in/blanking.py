"""Painting over text with what surrounds it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from shardkit.burned_in.findings import NAMING, Finding

Pixels = npt.NDArray[np.uint16]
Area = tuple[int, int, int, int]

RING = 2  # pixels around an area that its grey comes from
EDGE = 0.08  # of the span of grey of a text: steps at its outline that mean that it goes on


def blank(pixels: Pixels, findings: Iterable[Finding], *, kinds: tuple[str, ...] = NAMING) -> Pixels:
    """Paint the boxes of findings in the median grey of what lies around them, so that nothing in them is left.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image, which is not changed.
    findings : iterable of Finding
        Of this image.
    kinds : tuple of str
        Which are painted; markers are kept unless they are named.

    Returns
    -------
    ndarray of uint16, (height, width)
        A copy. It differs inside of `areas` only.
    """
    painted = pixels.copy()
    for top, bottom, left, right in areas(pixels, findings, kinds=kinds):
        painted[top:bottom, left:right] = _around(pixels, (top, bottom, left, right))
    return painted


def areas(pixels: Pixels, findings: Iterable[Finding], *, kinds: tuple[str, ...] = NAMING) -> list[Area]:
    """Return (first row, end row, first column, end column) of what `blank` paints.

    A box gets a margin, and grows while sharp steps cross its outline, at most by the height of its letters.
    """
    return [_grown(pixels, finding) for finding in findings if finding.kind in kinds]


def _grown(pixels: Pixels, finding: Finding) -> Area:
    letters = min(finding.height, finding.width)
    margin = max(4, letters // 4)
    height, width = pixels.shape
    top, left = max(finding.top - margin, 0), max(finding.left - margin, 0)
    bottom = min(finding.top + finding.height + margin, height)
    right = min(finding.left + finding.width + margin, width)
    low, high = np.percentile(pixels[top:bottom, left:right], (2, 98))
    least = max(EDGE * float(high - low), 1.0)
    for _ in range(max(letters // RING, 1)):
        before = (top, bottom, left, right)
        if top and _crossed(pixels[max(top - RING, 0) : top, left:right], least):
            top = max(top - RING, 0)
        if bottom < height and _crossed(pixels[bottom : bottom + RING, left:right], least):
            bottom = min(bottom + RING, height)
        if left and _crossed(pixels[top:bottom, max(left - RING, 0) : left].T, least):
            left = max(left - RING, 0)
        if right < width and _crossed(pixels[top:bottom, right : right + RING].T, least):
            right = min(right + RING, width)
        if (top, bottom, left, right) == before:
            break
    return top, bottom, left, right


def _crossed(strip: Pixels, least: float) -> bool:
    """Say whether grey goes up and down along a strip, as where strokes cross it; an edge of the body goes one way."""
    steps = strip[:, 2:].astype(np.int32) - strip[:, :-2]
    return bool((steps >= least).any() and (steps <= -least).any())


def _around(pixels: Pixels, area: Area) -> np.uint16:
    """Return the median of the pixels around an area; of the area itself where it is the whole image."""
    top, bottom, left, right = area
    outer = pixels[max(top - RING, 0) : bottom + RING, max(left - RING, 0) : right + RING]
    ring = np.ones(outer.shape, np.bool_)
    y, x = top - max(top - RING, 0), left - max(left - RING, 0)
    ring[y : y + bottom - top, x : x + right - left] = False
    values = outer[ring]
    return np.uint16(np.median(values if values.size else outer))
