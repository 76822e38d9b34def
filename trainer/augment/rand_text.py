"""timm's text for RandAugment, such as rand-m6-mstd0.5-inc1, as a record."""

import math
import re
from dataclasses import dataclass, replace

from shardkit.errors import ArgumentError
from trainer.values import require

_UNIFORM = 100.0  # timm: a greater deviation means any magnitude up to m
_MEANT = "a text with p from 0 to 1 and a whole n from 1"
_PART = re.compile(r"(m|n|p|mstd|mmax|inc)([0-9]+(?:\.[0-9]+)?|(?<=mstd)inf)")


@dataclass(frozen=True, slots=True)
class RandPolicy:
    """How often and how much images are changed (Cubuk et al. 2019, arXiv:1909.13719, with timm's options).

    Attributes
    ----------
    operations
        Number of operations that are chosen for each image, n.
    chance
        Probability that each of them acts, p.
    magnitude
        Mean magnitude, m.
    deviation
        Standard deviation of the magnitude, mstd; infinite: evenly from 0 to m.
    greatest
        Greatest magnitude, mmax; 0 there is timm's default.
    increasing
        Whether a greater magnitude is always a greater change, inc.
    """

    operations: int = 2
    chance: float = 0.5
    magnitude: float = 10.0
    deviation: float = 0.0
    greatest: float = 10.0
    increasing: bool = False


def from_text(text: str) -> RandPolicy:
    """Read a text: rand, then options in any order.

    Raises
    ------
    ArgumentError
        For a text that says something else.
    """
    name, *parts = text.split("-")
    found = [_PART.fullmatch(part) for part in parts]
    if name != "rand" or not all(found):
        raise ArgumentError(
            f"--augment.rand {text} is none of RandAugment's texts: write rand-m6-mstd0.5-inc1, of m, n, p, mstd, mmax"
            " and inc"
        )
    policy = RandPolicy()
    for key, value in (part.groups() for part in found if part is not None):
        number = float(value)
        match key:
            case "m":
                policy = replace(policy, magnitude=number)
            case "n":
                require("augment.rand", text, number >= 1 and number.is_integer(), _MEANT)
                policy = replace(policy, operations=int(number))
            case "p":
                require("augment.rand", text, number <= 1, _MEANT)
                policy = replace(policy, chance=number)
            case "mstd":
                policy = replace(policy, deviation=math.inf if number > _UNIFORM else number)
            case "mmax":
                policy = replace(policy, greatest=number or RandPolicy().greatest)
            case "inc":
                policy = replace(policy, increasing=bool(number))
    return policy
