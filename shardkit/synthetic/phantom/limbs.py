"""Arms and legs, drawn with `Canvas`: proportions by eye from anatomy atlases, one function a region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.synthetic.phantom.attenuation import FAR, Canvas, Point, bone_profile


def _limb(c: Canvas, above: float, joint: float, below: float) -> None:
    """Draw the soft-tissue sleeve of a limb that crosses the picture from top to bottom."""
    c.add_flesh(
        (0, -FAR),
        (0, FAR),
        [(0, above), (0.38, above), (0.46, joint * 0.98), (0.5, joint), (0.56, below), (1, 0.8 * below)],
    )


def knee(c: Canvas, rng: np.random.Generator) -> None:
    """Knee from the front, patella over the femur."""
    _limb(c, 0.80, 0.70, 0.68)
    c.add_bone(
        (0.02, -0.10),
        (0.10, -FAR),
        [(0, 0.0), (0.004, 0.30), (0.02, 0.42), (0.08, 0.45), (0.13, 0.36), (0.24, 0.21), (1, 0.19)],
    )
    for side in (-1, 1):  # condyles
        c.add_bone_oval((0.22 * side, -0.16), 0.225, 0.19, 0.15 * side, 2.4, weight=0.45)
    c.add_bone_oval((0.03, -0.42), 0.20, 0.22, weight=0.5)  # patella, seen through the femur
    c.add_bone(
        (0.0, 0.02),
        (0.04, FAR),
        [(0, 0), (0.003, 0.40), (0.015, 0.45), (0.06, 0.44), (0.13, 0.27), (0.24, 0.19), (1, 0.17)],
    )
    for spine in (-0.06, 0.07):  # intercondylar eminence
        c.add_bone_oval((spine, 0.02), 0.035, 0.06, weight=0.6)
    c.add_bone(
        (0.43, 0.22),
        (0.36, FAR),
        [(0, 0), (0.01, 0.07), (0.03, 0.11), (0.09, 0.07), (0.2, 0.055), (1, 0.06)],
        cortex=0.4,
    )


def ankle(c: Canvas, rng: np.random.Generator) -> None:
    """Ankle from the front: mortise, talus, heel."""
    _limb(c, 0.66, 0.62, 0.72)
    c.add_bone(
        (-0.06, -0.05),
        (-0.02, -FAR),
        [(0, 0), (0.004, 0.31), (0.02, 0.35), (0.07, 0.33), (0.17, 0.23), (1, 0.21)],
    )
    c.add_bone(
        (-0.36, 0.10), (-0.28, -0.5), [(0, 0), (0.1, 0.07), (0.4, 0.10), (1, 0.04)], cortex=0.3
    )  # medial malleolus
    c.add_bone(
        (0.40, 0.28),
        (0.36, -FAR),
        [(0, 0), (0.015, 0.09), (0.06, 0.13), (0.12, 0.10), (0.2, 0.08), (1, 0.08)],
        cortex=0.35,
    )
    c.add_bone_oval((0.0, 0.17), 0.31, 0.18, 0.0, 3.2)  # talus under the mortise
    c.add_bone(
        (0.06, 0.30),
        (0.14, 1.05),
        [(0, 0), (0.1, 0.2), (0.4, 0.24), (0.8, 0.27), (0.95, 0.18), (1, 0)],
        cortex=0.10,
        weight=0.45,
    )
    c.add_bone_oval((-0.16, 0.50), 0.22, 0.15, 0.3, weight=0.5)
    c.add_flesh_oval((0, 0.7), 0.70, 0.75, 1.2)


def elbow(c: Canvas, rng: np.random.Generator) -> None:
    """Elbow from the front."""
    _limb(c, 0.66, 0.64, 0.62)
    c.add_bone(
        (0.0, -0.04),
        (-0.02, -FAR),
        [(0, 0), (0.005, 0.32), (0.03, 0.40), (0.06, 0.46), (0.12, 0.30), (0.2, 0.18), (1, 0.17)],
    )
    c.add_bone_oval((0.20, -0.08), 0.15, 0.12, weight=0.5)  # capitulum
    c.add_bone_oval((-0.14, -0.08), 0.19, 0.12, weight=0.5)  # trochlea
    c.add_bone_oval((-0.08, -0.28), 0.15, 0.24, weight=0.55)  # olecranon in its fossa
    c.add_bone(
        (0.20, 0.08),
        (0.16, FAR),
        [(0, 0), (0.004, 0.14), (0.03, 0.16), (0.05, 0.10), (0.12, 0.12), (1, 0.13)],
        cortex=0.35,
    )
    c.add_bone(
        (-0.14, 0.06),
        (-0.24, FAR),
        [(0, 0), (0.004, 0.22), (0.05, 0.21), (0.12, 0.14), (1, 0.11)],
        cortex=0.35,
    )


def _carpals(c: Canvas, y: float, s: float) -> None:
    """Two rows of wrist bones, the upper row at `y`, in a hand of size `s`."""
    for x, dy, width, height in (
        (-0.24, 0.02, 0.10, 0.08),
        (-0.08, -0.02, 0.09, 0.11),
        (0.09, 0.0, 0.09, 0.08),
        (0.25, 0.05, 0.11, 0.08),
        (-0.22, 0.17, 0.09, 0.08),
        (-0.06, 0.20, 0.09, 0.09),
        (0.12, 0.19, 0.10, 0.12),
    ):
        c.add_bone_oval((x * s, y + dy * s), width * s, height * s, 0.3 * x, 2.5, cortex=0.2)


def _forearm(c: Canvas, y: float, s: float) -> None:
    """Distal radius and ulna below the wrist, starting at `y`, leaving the picture."""
    c.add_bone(
        (0.13 * s, y),
        (0.16 * s, y + FAR),
        [
            (0, 0),
            (0.004, 0.22 * s),
            (0.02, 0.25 * s),
            (0.06 * s, 0.24 * s),
            (0.17 * s, 0.15 * s),
            (1, 0.14 * s),
        ],
        cortex=0.3,
    )
    c.add_bone(
        (-0.24 * s, y + 0.02),
        (-0.17 * s, y + FAR),
        [
            (0, 0),
            (0.004, 0.10 * s),
            (0.02, 0.13 * s),
            (0.06 * s, 0.11 * s),
            (0.15 * s, 0.09 * s),
            (1, 0.10 * s),
        ],
        cortex=0.35,
    )


def _digits(
    c: Canvas,
    rng: np.random.Generator,
    s: float,
    root: float,
    rays: Sequence[tuple[float, float, float]],
    shares: Sequence[float],
    thick: float,
) -> None:
    """Rays of a hand or foot: (x of the base, angle, total length); metacarpal and phalanges by `shares`."""
    for base, angle, total in rays:
        total *= float(rng.uniform(0.97, 1.03))
        direction = np.array([np.sin(angle), -np.cos(angle)])
        start = np.array([base * s, root])
        tip = start + direction * total * s
        c.add_flesh(
            _at(start),
            _at(tip + direction * 0.05 * s),
            [(0, 0), (0.25, 0.13 * s), (0.5, 0.15 * s), (0.93, 0.115 * s), (0.98, 0.08 * s), (1, 0)],
        )
        for j, share in enumerate(shares):
            end = start + direction * total * share * s
            r = thick * s * (1 - 0.13 * j)
            c.add_bone(
                _at(start),
                _at(end - direction * 0.018 * s),
                bone_profile(1.30 * r, 0.82 * r, 1.22 * r, 0.14),
                cortex=0.38,
            )
            start = end


def _at(v: npt.NDArray[Any]) -> Point:
    return float(v[0]), float(v[1])


def hand(c: Canvas, rng: np.random.Generator) -> None:
    """Hand with spread fingers."""
    spread = float(rng.uniform(0.8, 1.2))
    rays = [
        (-0.26, -0.30 * spread, 1.12),
        (-0.13, -0.12 * spread, 1.36),
        (0.0, 0.0, 1.45),
        (0.13, 0.12 * spread, 1.36),
    ]
    c.add_flesh_oval((0.0, 0.35), 0.50, 0.50, 0.42, 2.6)
    c.add_flesh((0, 0.3), (0, FAR), [(0, 0), (0.05, 0.22), (0.12, 0.32), (0.2, 0.37), (1, 0.5)])
    _digits(c, rng, 1.0, 0.48, rays, (0.46, 0.27, 0.16, 0.11), 0.072)
    _digits(c, rng, 1.0, 0.56, [(0.27, 0.72 * spread, 0.95)], (0.45, 0.32, 0.23), 0.078)
    _carpals(c, 0.64, 0.92)
    _forearm(c, 0.93, 0.95)


def wrist(c: Canvas, rng: np.random.Generator) -> None:
    """Wrist and the bases of the fingers."""
    s = 1.55
    c.add_flesh((0, -FAR), (0, FAR), [(0, 0.5), (0.40, 0.68), (0.47, 0.64), (0.52, 0.56), (0.6, 0.58), (1, 0.7)])
    rays = [(-0.25, -0.24, 1.15), (-0.13, -0.10, 1.3), (0.0, 0.0, 1.4), (0.13, 0.10, 1.36)]
    _digits(c, rng, s, -0.42, rays, (0.48, 0.27, 0.15, 0.10), 0.075)
    _digits(c, rng, s, -0.30, [(0.27, 0.66, 0.9)], (0.5, 0.3, 0.2), 0.08)
    _carpals(c, -0.22, s * 0.95)
    _forearm(c, 0.27, s)


def foot(c: Canvas, rng: np.random.Generator) -> None:
    """Foot from above."""
    c.add_flesh_oval((0.02, 0.05), 0.50, 0.75, 0.6, 2.6)
    c.add_flesh((0, -0.2), (0.0, 1.50), [(0, 0), (0.3, 0.4), (0.6, 0.40), (0.85, 0.36), (0.95, 0.25), (1, 0)])
    rays = [(-0.17, -0.02, 1.10), (-0.04, 0.06, 1.10), (0.08, 0.13, 1.02), (0.19, 0.21, 0.95)]
    _digits(c, rng, 1.0, 0.18, rays, (0.62, 0.2, 0.1, 0.08), 0.058)
    _digits(c, rng, 1.0, 0.10, [(-0.34, -0.06, 1.02)], (0.56, 0.25, 0.19), 0.11)
    for x, y, a, b in (
        (-0.32, 0.24, 0.12, 0.12),
        (-0.13, 0.27, 0.09, 0.09),
        (0.02, 0.29, 0.09, 0.09),
        (0.20, 0.34, 0.14, 0.13),
        (-0.18, 0.46, 0.20, 0.11),
    ):
        c.add_bone_oval((x, y), a, b, 0.3, 2.6, cortex=0.16)
    c.add_bone_oval((-0.14, 0.66), 0.20, 0.22, 0.2, 2.4)  # talus
    c.add_bone(
        (0.12, 0.42),
        (0.02, 1.36),
        [(0, 0), (0.06, 0.11), (0.35, 0.15), (0.7, 0.20), (0.88, 0.19), (0.97, 0.1), (1, 0)],
        cortex=0.14,
        weight=0.7,
    )
