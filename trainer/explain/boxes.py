"""Boxes of maps, and how well a map fits a box; all in pixels of level 0."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from trainer.explain.maps import Floats, Map


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of level 0, from edge to edge."""

    top: float
    left: float
    height: float
    width: float

    @property
    def area(self) -> float:
        """Pixels that it covers."""
        return self.height * self.width


def iou(a: Box, b: Box) -> float:
    """Return the area that two boxes share, as a share of what they cover together."""
    high = min(a.top + a.height, b.top + b.height) - max(a.top, b.top)
    wide = min(a.left + a.width, b.left + b.width) - max(a.left, b.left)
    shared = max(high, 0.0) * max(wide, 0.0)
    return shared / (a.area + b.area - shared) if shared else 0.0


def largest(of: Map, threshold: float) -> Box | None:
    """Return the box around the largest component of what is above a threshold; None where nothing is.

    Cells are of one component where they share an edge; the largest has the most cells, the first of equal ones.
    """
    labels, count = ndimage.label(of.values > threshold)
    if not count:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    rows, cols = ndimage.find_objects(labels)[int(sizes.argmax())]
    top, left = of.ys[rows.start], of.xs[cols.start]
    return Box(float(top), float(left), float(of.ys[rows.stop] - top), float(of.xs[cols.stop] - left))


def by_mask(of: Map, box: Box, thresholds: Floats) -> Floats:
    """Return the intersection over union of a box and all that is above a threshold: float64 (thresholds,).

    Cells that the box cuts count by the area on either side. What of the box lies outside the map counts as missed.
    """
    area = np.outer(np.diff(of.ys), np.diff(of.xs))
    inside = np.outer(_overlap(of.ys, box.top, box.top + box.height), _overlap(of.xs, box.left, box.left + box.width))
    above = np.searchsorted(thresholds, of.values.ravel(), side="left")  # thresholds that a cell is above

    def summed(weight: Floats) -> Floats:
        found: Floats = np.bincount(above, weight.ravel(), len(thresholds) + 1)[::-1].cumsum()[::-1][1:]
        return found

    shared, covered = summed(inside), summed(area)
    return np.asarray(shared / (covered + box.area - shared), np.float64)


def _overlap(lines: Floats, start: float, end: float) -> Floats:
    found: Floats = np.clip(np.minimum(lines[1:], end) - np.maximum(lines[:-1], start), 0.0, None)
    return found
