"""Which grey levels are black and white in an image that a loader has normalised."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from shardkit.commands.normalising import normalise_text
from shardkit.errors import ArgumentError

Normalise = str | tuple[float, float]
CUT_OFF = ("percentile", "minmax", "fullscale")
"""Ways to normalise that give 0 to 1."""


@dataclass(frozen=True, slots=True)
class Levels:
    """Two grey levels.

    Attributes
    ----------
    black, white
        As normalised.
    """

    black: float
    white: float

    def scale(self) -> float:
        """Return how many of 8 bit's grey levels, 0 to 255, make 1 of the image's."""
        return 255.0 / max(self.white - self.black, 1e-6)


def levels(normalise: Normalise) -> Levels | None:
    """Return what a way to normalise makes of the least and the greatest grey level; None where each image has its own.

    Parameters
    ----------
    normalise
        As of `shardkit.Loader`.
    """
    if isinstance(normalise, tuple):
        mean, deviation = normalise
        return Levels(-mean / deviation, (1 - mean) / deviation)
    return Levels(0.0, 1.0) if normalise in CUT_OFF else None


def check_levels(normalise: Normalise, members: Mapping[str, Normalise]) -> None:
    """Refuse RandAugment on images that have other levels than it is told.

    Parameters
    ----------
    normalise
        What it is told: the loader's.
    members
        How the images of each member of a mixture are normalised.

    Raises
    ------
    ArgumentError
        Where that gives a member other levels.
    """
    for name, own in members.items():
        if levels(own) != levels(normalise):
            given, wanted = map(normalise_text, (own, normalise))
            raise ArgumentError(
                f"--augment.rand takes black and white to be those of --loader.normalise {wanted}, and the mixture"
                f" normalises {name} by {given}: shardkit mix it without --normalise, or leave --augment.rand out"
            )


def covering(image: Tensor, known: Levels | None) -> Levels:
    """Return levels that no value of an image lies outside of: the known ones, or the image's own beyond them.

    Parameters
    ----------
    image
        float32 (1, rows, cols).
    known
        Of `levels`.
    """
    low, high = (float(value) for value in image.aminmax())
    return Levels(low, high) if known is None else Levels(min(low, known.black), max(high, known.white))
