"""Which grey levels are black and white in an image that a loader has normalised."""

from dataclasses import dataclass

from torch import Tensor

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


def levels(normalise: str | tuple[float, float]) -> Levels | None:
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
