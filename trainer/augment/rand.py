"""RandAugment: some operations by chance, of a magnitude; what timm 1.0 draws, for images of 16 bits."""

from random import Random

from torch import Tensor

from trainer.augment.levels import Levels, covering
from trainer.augment.rand_operations import LEVELLED, MOVING, PLAIN, apply
from trainer.augment.rand_text import RandPolicy

NAMES = (*PLAIN, *LEVELLED, *MOVING)
_TEN = 10.0  # the magnitude that arguments are told for
_SIGNED = {"Rotate": 30.0, "ShearX": 0.3, "ShearY": 0.3, "TranslateX": 0.45, "TranslateY": 0.45}
_BLENDED = ("Color", "Contrast", "Brightness", "Sharpness")

Operations = tuple[tuple[str, float], ...]
"""Name and argument of each."""


def draw(random: Random, policy: RandPolicy) -> Operations:
    """Return the operations that act on an image, one after another."""
    acting = []
    for _ in range(policy.operations):
        name = NAMES[random.randrange(len(NAMES))]
        acts, magnitude, sign = random.random() < policy.chance, _magnitude(random, policy), random.random() < 0.5
        if acts:
            acting.append((name, argument(name, magnitude, -1 if sign else 1, policy.increasing)))
    return tuple(acting)


def _magnitude(random: Random, policy: RandPolicy) -> float:
    even = policy.deviation == float("inf")
    drawn = random.uniform(0.0, policy.magnitude) if even else random.gauss(policy.magnitude, policy.deviation)
    return min(max(drawn, 0.0), policy.greatest)


def argument(name: str, magnitude: float, sign: int, increasing: bool) -> float:
    """Return what a magnitude means for an operation.

    Parameters
    ----------
    name
        Of the operation.
    magnitude
        0 to 10, or more.
    sign
        1 or -1, for operations that go two ways.
    increasing
        Whether a greater magnitude is always a greater change.
    """
    share = magnitude / _TEN
    if name in _SIGNED:
        return sign * share * _SIGNED[name]
    if name in _BLENDED:
        return max(0.1, 1 + sign * share * 0.9) if increasing else share * 1.8 + 0.1
    if name == "Posterize":
        bits = int(share * 4)
        return max(4 - bits, 0) if increasing else bits
    if name == "Solarize":
        threshold = min(256, int(share * 256))
        return 256 - threshold if increasing else threshold
    return min(128, int(share * 110)) if name == "SolarizeAdd" else 0.0


def rand(image: Tensor, operations: Operations, known: Levels | None) -> Tensor:
    """Run operations on an image. Where none acts, it stays as it is, to the last bit.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    operations
        Of `draw`.
    known
        What black and white are in it, of `levels`; the image's own least and greatest value where they lie beyond, or
        where this is not known. What comes from outside of the image gets the image's grey level 0.
    """
    if not operations:
        return image
    black_white = covering(image, known)
    scale = black_white.scale()
    out, fill = (image - black_white.black).mul_(scale), -black_white.black * scale
    for name, value in operations:
        out = apply(name, out, value, fill)
    return out.div_(scale).add_(black_white.black)
