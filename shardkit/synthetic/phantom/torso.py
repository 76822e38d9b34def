"""Head, spine, chest, shoulder girdle and breast, drawn with `Canvas`, one function a region."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from shardkit.synthetic.phantom.attenuation import FAR, Canvas, bone_profile


def _thorax(c: Canvas, y: float, s: float, lungs: float) -> None:
    """Rib cage with lungs, heart, diaphragm and spine; the lung apex at `y`, size `s`, air share `lungs`."""
    c.add_flesh_oval((0, y + 1.0 * s), 1.02 * s, 1.75 * s, 1.25 * s, 3.2)
    for side in (-1, 1):
        c.hollow((0.46 * s * side, y + 0.92 * s), 0.40 * s, 0.95 * s, lungs, 0.10 * side, 2.6)
    heart = c.window([(0.16 * s, y + 1.2 * s)], 0.7 * s)
    dx, dy = (
        (c.x[heart] - np.float32(0.14 * s)) / np.float32(0.42 * s),
        (c.y[heart] - np.float32(y + 1.24 * s)) / np.float32(0.40 * s),
    )
    blob = np.clip(1.15 - (dx * dx + dy * dy - 0.6 * dx * dy), 0, 1)
    c.flesh[heart] = np.maximum(c.flesh[heart], np.float32(1.05 * s) * blob**0.35 * (blob > 0))
    c.add_flesh_oval((0.0, y + 0.55 * s), 0.17 * s, 0.75 * s, 1.0 * s, 3.0)  # mediastinum
    for side, top in ((-1, 1.62), (1, 1.70)):  # diaphragm domes, the right one higher
        c.add_flesh_oval((0.48 * s * side, y + (top + 0.75) * s), 0.60 * s, 0.75 * s, 1.2 * s, 2.5)
    c.add_ribs(y + 0.02 * s, 11, 0.185 * s, -0.05, 0.45 / s, 0.92 * s, 0.048 * s, 0.75)
    c.add_ribs(y + 0.50 * s, 7, 0.23 * s, -0.55, -0.1 / s, 0.86 * s, 0.045 * s, 0.40)
    c.hollow((0.0, y - 0.05 * s), 0.06 * s, 0.5 * s, 0.35)  # trachea


def _vertebrae(
    c: Canvas,
    top: float,
    count: int,
    height: float,
    width: float,
    grow: float,
    weight: float,
    curve: float = 0.0,
) -> None:
    """Draw a column of `count` bodies from `top` downwards with discs between, pedicles and spinous processes."""
    for k in range(count):
        h, w = height * grow**k, width * grow**k
        x = curve * float(np.sin(np.pi * (k + 0.5) / count))
        c.add_bone_oval((x, top + h / 2), w, 0.42 * h, 0.0, 5.0, weight=weight)
        for side in (-1, 1):
            c.add_bone_oval((x + 0.62 * w * side, top + 0.36 * h), 0.14 * w, 0.17 * h, cortex=0.45, weight=1.3 * weight)
            c.add_bone(
                (x + 0.7 * w * side, top + 0.42 * h),
                (x + 1.55 * w * side, top + 0.34 * h),
                [(0, 0.12 * h), (0.8, 0.1 * h), (1, 0)],
                cortex=0.3,
                weight=0.6 * weight,
            )
        c.add_bone_oval((x, top + 0.72 * h), 0.10 * w, 0.26 * h, cortex=0.4, weight=weight)
        top += h


def chest(c: Canvas, rng: np.random.Generator) -> None:
    """Whole chest, with clavicles and shoulder blades."""
    _thorax(c, -0.92, 0.98, float(rng.uniform(0.58, 0.72)))
    _vertebrae(c, -1.25, 14, 0.155, 0.10, 1.02, 0.55)
    for side in (-1, 1):
        c.add_bone(
            (0.07 * side, -0.66),
            (0.80 * side, -0.92),
            bone_profile(0.06, 0.045, 0.05),
            bend=-0.05 * side,
            cortex=0.4,
        )
        c.add_bone_oval((0.90 * side, -0.40), 0.20, 0.42, -0.35 * side, 2.4, cortex=0.10, weight=0.35)  # scapula
        c.add_flesh((0.6 * side, -0.8), (1.5 * side, -0.3), [(0, 0.3), (1, 0.4)])


def shoulder(c: Canvas, rng: np.random.Generator) -> None:
    """Shoulder from the front."""
    c.add_flesh_oval((-0.75, 0.75), 1.0, 1.35, 1.5, 2.4)  # trunk
    c.add_flesh((-2.2, -0.35), (0.62, -0.02), [(0, 0.5), (0.5, 0.42), (0.75, 0.40), (0.9, 0.34), (0.97, 0.2), (1, 0)])
    c.add_flesh((0.20, -0.50), (0.58, FAR), [(0, 0), (0.015, 0.2), (0.05, 0.36), (0.12, 0.45), (0.3, 0.42), (1, 0.42)])
    c.hollow((-1.0, 0.75), 0.62, 1.1, 0.62, 0.1, 2.5)  # lung
    for k in range(5):
        c.add_bone(
            (-1.4, 0.05 + 0.3 * k),
            (-0.36 + 0.05 * k, 0.42 + 0.3 * k),
            [(0, 0.06), (1, 0.06)],
            bend=0.12,
            cortex=0.3,
            weight=0.6,
        )
    c.add_bone(
        (-0.34, -0.22),
        (-0.46, 1.10),
        [(0, 0), (0.06, 0.14), (0.2, 0.26), (0.6, 0.22), (1, 0.0)],
        cortex=0.06,
        weight=0.20,
    )  # blade
    c.add_bone(
        (-0.24, -0.20), (-0.50, 1.10), [(0, 0.05), (0.3, 0.05), (1, 0.03)], cortex=0.5, weight=0.9
    )  # its lateral border
    c.add_bone_oval((-0.08, 0.06), 0.08, 0.24, 0.12, 2.2, weight=0.9)  # glenoid
    c.add_bone((-0.28, -0.05), (0.02, -0.18), [(0, 0.06), (0.8, 0.08), (1, 0)], cortex=0.4, weight=0.8)  # coracoid
    c.add_bone(
        (-0.62, -0.34),
        (0.26, -0.36),
        [(0, 0.05), (0.7, 0.07), (0.9, 0.10), (1, 0)],
        bend=0.04,
        cortex=0.3,
        weight=0.7,
    )
    c.add_bone(
        (-1.5, -0.40), (0.06, -0.46), [(0, 0.08), (0.5, 0.07), (0.93, 0.08), (1, 0)], bend=-0.06, cortex=0.35
    )  # clavicle
    c.add_bone_oval((0.20, 0.04), 0.27, 0.28, 0.2, 2.1, weight=0.55)  # humeral head
    c.add_bone(
        (0.26, -0.16),
        (0.52, FAR),
        [(0, 0), (0.012, 0.20), (0.04, 0.27), (0.09, 0.25), (0.18, 0.155), (1, 0.145)],
        cortex=0.32,
    )


def clavicle(c: Canvas, rng: np.random.Generator) -> None:
    """Collar bone, broad picture."""
    c.add_flesh_oval((-0.55, 1.0), 1.2, 1.35, 1.2, 2.4)
    c.add_flesh((-1.6, -0.1), (1.25, 0.25), [(0, 0.5), (0.5, 0.42), (0.8, 0.40), (0.93, 0.28), (1, 0)])
    c.add_flesh((0.86, 0.0), (1.05, FAR), [(0, 0), (0.03, 0.25), (0.1, 0.34), (1, 0.34)])
    c.add_flesh((-1.0, -FAR), (-1.0, 0.2), [(0, 0.5), (1, 0.5)])  # neck
    c.hollow((-0.45, 0.85), 0.42, 0.85, 0.55, 0.25, 2.4)
    for k in range(4):
        c.add_bone(
            (-1.0, 0.02 + 0.24 * k),
            (0.05 + 0.06 * k, 0.32 + 0.26 * k),
            [(0, 0.05), (1, 0.05)],
            bend=-0.18,
            cortex=0.3,
            weight=0.6,
        )
    c.add_bone(
        (-0.86, 0.10),
        (0.70, -0.14),
        [(0, 0), (0.03, 0.10), (0.2, 0.075), (0.5, 0.06), (0.75, 0.065), (0.95, 0.09), (1, 0)],
        bend=0.07,
        cortex=0.38,
    )
    c.add_bone(
        (0.30, 0.06), (0.86, -0.08), [(0, 0), (0.3, 0.06), (0.7, 0.09), (1, 0)], cortex=0.3, weight=0.7
    )  # acromion
    c.add_bone_oval((0.84, 0.28), 0.20, 0.22, 0.1, 2.2, weight=0.9)
    c.add_bone((0.86, 0.10), (1.0, FAR), [(0, 0), (0.03, 0.18), (0.1, 0.13), (1, 0.12)], cortex=0.3, weight=0.8)
    c.add_bone((0.36, 0.0), (0.10, 1.3), [(0, 0), (0.1, 0.16), (0.5, 0.20), (1, 0)], cortex=0.08, weight=0.22)


def scapula(c: Canvas, rng: np.random.Generator) -> None:
    """Shoulder with the blade standing out."""
    shoulder(c, rng)
    c.add_bone((-0.34, -0.20), (-0.58, 1.2), [(0, 0.10), (0.3, 0.24), (1, 0.0)], cortex=0.12, weight=0.35)


def cervical(c: Canvas, rng: np.random.Generator) -> None:
    """Neck from the front, jaw to first ribs."""
    c.add_flesh((0.0, -FAR), (0.0, 0.9), [(0, 0.62), (0.7, 0.60), (0.86, 0.48), (1, 0.62)])
    c.add_flesh_oval((0, 1.75), 1.5, 1.05, 1.2, 2.5)
    c.add_flesh_oval((0, -1.35), 0.80, 0.85, 1.4, 2.6)
    c.add_bone_oval((0, -1.55), 0.72, 0.75, 0, 2.4, cortex=0.10, weight=0.55)  # skull base
    c.add_bone(
        (-0.5, -1.1), (0.5, -1.1), [(0, 0.1), (0.5, 0.14), (1, 0.1)], bend=0.34, cortex=0.3, weight=0.9
    )  # mandible
    _vertebrae(c, -0.86, 7, 0.21, 0.21, 1.035, 0.95, 0.02)
    _vertebrae(c, 0.80, 4, 0.30, 0.20, 1.02, 0.6)
    c.hollow((0, 0.3), 0.075, 0.9, 0.40)
    for side in (-1, 1):
        c.add_bone(
            (0.10 * side, 1.0),
            (1.2 * side, 0.72),
            [(0, 0.09), (1, 0.07)],
            bend=-0.1 * side,
            cortex=0.4,
            weight=0.8,
        )
        for k in range(3):
            c.add_bone(
                (0.25 * side, 0.85 + 0.28 * k),
                (0.95 * side, 1.1 + 0.3 * k),
                [(0, 0.05), (1, 0.05)],
                bend=0.18 * side,
                weight=0.6,
            )


def thoracic(c: Canvas, rng: np.random.Generator) -> None:
    """Thoracic spine, coned."""
    _thorax(c, -1.55, 1.7, 0.6)
    _vertebrae(c, -1.95, 14, 0.255, 0.185, 1.018, 0.75, float(rng.normal(0, 0.03)))


def lumbar(c: Canvas, rng: np.random.Generator) -> None:
    """Lumbar spine with iliac wings and some bowel gas."""
    c.add_flesh((0, -FAR), (0, FAR), [(0, 1.05), (0.5, 0.92), (0.65, 1.08), (1, 1.1)])
    for side in (-1, 1):  # psoas, iliac wings
        c.add_bone(
            (0.24 * side, 1.02),
            (0.98 * side, 0.80),
            [(0, 0.20), (0.5, 0.32), (0.85, 0.30), (1, 0.1)],
            cortex=0.10,
            weight=0.5,
        )
        c.add_bone(
            (0.40 * side, 0.98),
            (0.72 * side, 1.9),
            [(0, 0.15), (0.4, 0.16), (1, 0.3)],
            cortex=0.15,
            weight=0.6,
        )
        for k in range(2):
            c.add_bone(
                (0.2 * side, -1.3 + 0.33 * k),
                (0.95 * side, -0.95 + 0.36 * k),
                [(0, 0.06), (1, 0.04)],
                bend=-0.1 * side,
                weight=0.6,
            )
    for _ in range(5):  # bowel gas
        c.hollow(
            (float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.6, 1.0))),
            float(rng.uniform(0.08, 0.2)),
            float(rng.uniform(0.06, 0.12)),
            0.18,
            float(rng.uniform(0, 3)),
        )
    _vertebrae(c, -1.55, 7, 0.35, 0.235, 1.02, 0.8, float(rng.normal(0, 0.02)))
    c.add_bone((0, 1.05), (0, 1.9), [(0, 0.38), (0.4, 0.30), (1, 0.05)], cortex=0.12, weight=0.55)  # sacrum


def skull(c: Canvas, rng: np.random.Generator) -> None:
    """Skull from the front."""
    c.add_flesh_oval((0, -0.1), 0.72, 0.95, 1.2, 2.3)
    c.add_flesh((0, 0.4), (0, FAR), [(0, 0.5), (0.1, 0.45), (0.3, 0.6), (1, 1.0)])
    c.add_bone_oval((0, -0.22), 0.66, 0.76, 0, 2.2, cortex=0.07, weight=1.0)  # vault
    c.add_bone_oval((0, -0.22), 0.63, 0.73, 0, 2.2, cortex=0.06, weight=0.5)
    for side in (-1, 1):
        c.add_bone_oval((0.23 * side, 0.08), 0.165, 0.145, 0, 2.4, cortex=0.16, weight=0.7)  # orbit
        c.hollow((0.23 * side, 0.08), 0.13, 0.11, 0.30)
        c.hollow((0.22 * side, 0.36), 0.12, 0.12, 0.35)  # maxillary sinus
        c.add_bone(
            (0.12 * side, 0.20),
            (0.50 * side, 0.18),
            [(0, 0.05), (0.5, 0.09), (1, 0.05)],
            bend=0.05 * side,
            weight=0.9,
        )  # petrous
        c.add_bone(
            (0.46 * side, 0.20),
            (0.36 * side, 0.72),
            [(0, 0.05), (0.5, 0.07), (1, 0.07)],
            cortex=0.3,
            weight=0.9,
        )  # ramus
    c.add_bone((-0.38, 0.70), (0.38, 0.70), [(0, 0.06), (0.5, 0.11), (1, 0.06)], bend=0.16, cortex=0.3)  # mandible
    c.hollow((0, -0.12), 0.12, 0.07, 0.30)  # frontal sinus
    c.hollow((0, 0.26), 0.05, 0.14, 0.30)
    for k in range(-4, 5):
        for row in (0.55, 0.67):
            c.add_bone_oval(
                (0.058 * k, row + 0.012 * abs(k) * (1 if row < 0.6 else -0.3)),
                0.026,
                0.055,
                0,
                3,
                cortex=0.4,
                weight=1.5,
            )
    _vertebrae(c, 0.86, 5, 0.2, 0.17, 1.0, 0.5)


def breast(c: Canvas, rng: np.random.Generator) -> None:
    """Breast, cranio-caudal or oblique alike."""
    c.add_flesh_oval((-1.0, 0.05), 1.45, 1.05, 0.55, 2.6)
    c.add_flesh((-1.1, -1.6), (-0.75, 0.3), [(0, 0.45), (0.6, 0.28), (1, 0.0)])  # pectoral muscle
    gland = np.zeros_like(c.flesh)
    for _ in range(40):  # glandular tissue: a cone of lobules that fans out from the nipple
        a, r = float(rng.normal(0, 0.40)), float(rng.uniform(0.05, 1.0))
        box, q = c.oval(
            (0.42 - r * float(np.cos(a)), 0.05 + r * float(np.sin(a))),
            0.16,
            float(rng.uniform(0.04, 0.10)),
            -a,
            2.0,
        )
        gland[box] += np.float32(rng.uniform(0.04, 0.14)) * np.exp(-1.5 * q)
    c.flesh += np.sqrt(ndimage.gaussian_filter(gland, 2)) * (c.flesh > 0.1)
