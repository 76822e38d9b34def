"""The body regions that can be drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from shardkit.synthetic.phantom import limbs, torso
from shardkit.synthetic.phantom.attenuation import Canvas, Point

Draw: TypeAlias = Callable[[Canvas, np.random.Generator], None]

# region: ((half width, half height of the frame that must fit in the picture), drawer)
REGION_DRAWERS: dict[str, tuple[Point, Draw]] = {
    "knee": ((0.95, 0.75), limbs.knee),
    "shoulder": ((0.95, 0.80), torso.shoulder),
    "ankle": ((0.85, 0.75), limbs.ankle),
    "elbow": ((0.80, 0.70), limbs.elbow),
    "foot": ((0.72, 1.18), limbs.foot),
    "wrist": ((0.82, 0.95), limbs.wrist),
    "hand": ((0.80, 1.10), limbs.hand),
    "cervical spine": ((0.95, 1.0), torso.cervical),
    "clavicle": ((1.05, 0.55), torso.clavicle),
    "thoracic spine": ((0.75, 1.2), torso.thoracic),
    "lumbar spine": ((0.95, 1.2), torso.lumbar),
    "skull": ((0.85, 1.05), torso.skull),
    "ribs": ((1.0, 1.0), torso.chest),
    "scapula": ((0.95, 0.85), torso.scapula),
    "chest": ((1.05, 1.05), torso.chest),
    "breast": ((0.95, 1.2), torso.breast),
}
