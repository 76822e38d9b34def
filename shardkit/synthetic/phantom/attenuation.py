"""Shapes on thickness maps: how much soft tissue and how much bone each ray crosses.

A radiograph is close to a map of attenuation, and attenuation adds along the ray.  So a bone here is a solid
of revolution whose chord length is added to a map; its marrow is a smaller solid subtracted from it, which
leaves the bright cortical rim of a real film for free.  All coordinates are figure coordinates: x to the
right, y down, origin at the middle of the figure, one unit = half the width of a typical figure.  Shapes are
drawn on a coarse grid, each only inside its own window: a hand has nineteen bones and 2.7 Mpx would be slow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import ndimage

F32: TypeAlias = npt.NDArray[np.float32]
Point: TypeAlias = tuple[float, float]
Profile: TypeAlias = Sequence[tuple[float, float]]  # (position along the axis 0..1, radius)

_TABLE = 512  # resolution of a radius profile
FAR = 4.0  # a limb leaves the picture: its axis ends this far from the middle
Box: TypeAlias = tuple[slice, slice]


class Canvas:
    """Two maps, `flesh` and `bone`, float32 (rows, cols), in figure units of thickness."""

    def __init__(self, shape: tuple[int, int], unit: float, centre: Point, angle: float, mirror: bool) -> None:
        """Place a figure: `unit` grid cells per figure unit, `centre` (x, y) in cells, `angle` in radians."""
        self.flesh: F32 = np.zeros(shape, np.float32)
        self.bone: F32 = np.zeros(shape, np.float32)
        self.spongy: F32 = np.zeros(shape, np.float32)  # where trabecular texture shows
        self._unit, self._centre = unit, centre
        side = -1.0 if mirror else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self._to_cells = turn @ np.diag([side, 1.0])
        inverse = np.linalg.inv(self._to_cells).astype(np.float32) / np.float32(unit)
        row = (np.arange(shape[0], dtype=np.float32) - np.float32(centre[1]))[:, None]
        col = (np.arange(shape[1], dtype=np.float32) - np.float32(centre[0]))[None, :]
        self.x: F32 = inverse[0, 0] * col + inverse[0, 1] * row
        self.y: F32 = inverse[1, 0] * col + inverse[1, 1] * row

    def window(self, points: Sequence[Point], margin: float) -> Box:
        """Return the part of the grid within `margin` of `points`; empty slices when it lies outside."""
        cells = (np.asarray(points) @ self._to_cells.T) * self._unit + np.asarray(self._centre)
        low = np.floor(cells.min(0) - margin * self._unit - 1).astype(int)
        high = np.ceil(cells.max(0) + margin * self._unit + 2).astype(int)
        low, high = np.maximum(low, 0), np.maximum(high, 0)
        return slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))

    def _spindle(self, p0: Point, p1: Point, profile: Profile, bend: float) -> tuple[Box, F32, F32]:
        """Window, distance to the axis and radius there, of a solid of revolution along a bent axis."""
        knots, radii = np.array(profile, float).T
        table = np.interp(np.linspace(0, 1, _TABLE), knots, radii)
        table = ndimage.gaussian_filter1d(table, 0.008 * _TABLE, mode="nearest").astype(np.float32)
        box = self.window([p0, p1], float(radii.max()) + abs(bend))
        ax, ay = p1[0] - p0[0], p1[1] - p0[1]
        length = float(np.hypot(ax, ay))
        dx, dy = self.x[box] - np.float32(p0[0]), self.y[box] - np.float32(p0[1])
        along = (dx * np.float32(ax / length) + dy * np.float32(ay / length)) / np.float32(length)
        across = dx * np.float32(ay / length) - dy * np.float32(ax / length)
        away = np.abs(across - np.float32(4 * bend) * along * (1 - along))
        radius = table[np.clip(along * _TABLE, 0, _TABLE - 1).astype(np.int32)]
        radius[(along < 0) | (along > 1)] = 0
        return box, away, radius

    def add_flesh(self, p0: Point, p1: Point, profile: Profile, bend: float = 0.0) -> None:
        """Merge a rounded body into the soft tissue (a smooth maximum: limbs join, they do not add)."""
        box, away, radius = self._spindle(p0, p1, profile, bend)
        self._merge(box, 2 * np.sqrt(np.maximum(radius * radius - away * away, 0)))

    def add_flesh_oval(self, centre: Point, a: float, b: float, depth: float, power: float = 2.0) -> None:
        """Merge an oval body of half axes `a`, `b` and greatest thickness `depth`."""
        box, q = self.oval(centre, a, b, 0.0, power)
        self._merge(box, np.float32(depth) * np.sqrt(np.maximum(1 - q, 0)))

    def _merge(self, box: Box, chord: F32) -> None:
        old = self.flesh[box]
        self.flesh[box] = np.sqrt(np.sqrt(old**4 + chord**4))

    def hollow(self, centre: Point, a: float, b: float, share: float, angle: float = 0.0, power: float = 2.0) -> None:
        """Take `share` of the soft tissue away inside an oval: lung, airway, bowel gas."""
        box, q = self.oval(centre, a, b, angle, power)
        self.flesh[box] *= 1 - np.float32(share) * np.sqrt(np.maximum(1 - q, 0)) ** 0.7

    def add_bone(
        self,
        p0: Point,
        p1: Point,
        profile: Profile,
        bend: float = 0.0,
        cortex: float = 0.25,
        weight: float = 1.0,
    ) -> None:
        """Add a long bone; `cortex` is the thickness of the rim as a share of the profile's median radius."""
        box, away, radius = self._spindle(p0, p1, profile, bend)
        shaft = float(np.median([r for _, r in profile if r > 0]))
        inner = np.maximum(radius - np.float32(cortex * shaft), 0)
        self._deposit(box, _chord(radius, away), _chord(inner, away), weight)

    def add_bone_oval(
        self,
        centre: Point,
        a: float,
        b: float,
        angle: float = 0.0,
        power: float = 2.0,
        cortex: float = 0.12,
        weight: float = 1.0,
    ) -> None:
        """Add an oval bone (carpal, vertebral body with `power` 4 or more, femoral condyle)."""
        box, q = self.oval(centre, a, b, angle, power)
        depth = np.float32(2 * min(a, b))
        inner = depth * np.sqrt(np.maximum(1 - q / np.float32(1 - cortex) ** power, 0)) * np.float32(1 - cortex)
        self._deposit(box, depth * np.sqrt(np.maximum(1 - q, 0)), inner, weight)

    def _deposit(self, box: Box, outer: F32, inner: F32, weight: float) -> None:
        """Outer minus most of the inner: compact bone outside, marrow and trabeculae inside."""
        self.bone[box] += np.float32(weight) * (outer - np.float32(0.72) * inner)
        self.spongy[box] = np.maximum(self.spongy[box], inner)

    def oval(self, centre: Point, a: float, b: float, angle: float, power: float) -> tuple[Box, F32]:
        """Window and (|u/a|^p + |v/b|^p), 1 on the outline."""
        box = self.window([centre], float(np.hypot(a, b)))
        dx, dy = self.x[box] - np.float32(centre[0]), self.y[box] - np.float32(centre[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        u, v = np.abs(dx * cos + dy * sin) / np.float32(a), np.abs(dy * cos - dx * sin) / np.float32(b)
        q = u * u + v * v if power == 2 else u**power + v**power
        return box, q.astype(np.float32, copy=False)  # float32 already, which NumPy does not tell of a power

    def add_ribs(
        self,
        first: float,
        count: int,
        gap: float,
        slope: float,
        curve: float,
        cage: float,
        r: float,
        weight: float,
    ) -> None:
        """Add `count` rib pairs as one periodic family of arcs y = first + k gap + slope |x| + curve x^2."""
        side = np.abs(self.x)
        phase = (self.y - np.float32(first) - np.float32(slope) * side - np.float32(curve) * side * side) / np.float32(
            gap
        )
        k = np.clip(np.round(phase), 0, count - 1)
        away = np.abs(phase - k) * np.float32(gap)
        # A barrel, narrow at the top: ribs end at its wall and at the spine, and look denser at the wall.
        wall = np.float32(cage) * np.sqrt(np.clip((k + 1.2) / np.float32(0.62 * count), 0.0, 1.0))
        inside = np.clip((wall - side) * 25, 0, 1) * np.clip((side - 0.05) * 20, 0, 1)
        rim = 1 + 1.2 * np.clip(1 - (wall - side) / np.float32(0.18), 0, 1) ** 2
        radius = np.full_like(away, r)
        chord = _chord(radius, away) - np.float32(0.72) * _chord(radius * np.float32(0.7), away)
        self.bone += np.float32(weight) * chord * inside * rim


def _chord(radius: F32, away: F32) -> F32:
    """Length of the ray through a cylinder of `radius` at distance `away` from its axis."""
    out: F32 = 2 * np.sqrt(np.maximum(radius * radius - away * away, 0))
    return out


def bone_profile(head: float, shaft: float, foot: float, flare: float = 0.12) -> list[tuple[float, float]]:
    """Draw a long bone: head, waist, foot; both ends close within a few percent of the length."""
    return [
        (0, 0),
        (0.015, 0.75 * head),
        (flare / 2, head),
        (2 * flare, shaft),
        (0.5, 0.92 * shaft),
        (1 - 2 * flare, shaft),
        (1 - flare / 2, foot),
        (0.985, 0.75 * foot),
        (1, 0),
    ]
