"""How an image lies in its bin, and the check that encoded bytes are of that image before memory is given to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.dataset.rounding import halved
from shardkit.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Placement:
    """An image at the top left of its bin; the rest of the bin is background.

    Parameters
    ----------
    height, width : int
        Sides of the image in pixels.
    rows, cols : int
        Sides of the bin in pixels.
    """

    height: int
    width: int
    rows: int
    cols: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Placement":
        """Return the placement of a sample, by its manifest row."""
        return cls(row["height"], row["width"], row["bin_height"], row["bin_width"])

    def at(self, level: int) -> "Placement":
        """Return the same at 1/2**level, sides rounded up."""
        return Placement(*(halved(side, level) for side in (self.height, self.width, self.rows, self.cols)))


def agree(placement: Placement | None, size: tuple[int, ...], what: str) -> None:
    """Check that a size is that of the expected image.

    Parameters
    ----------
    placement : Placement or None
        The expected image; None for any.
    size : tuple of int
        Height and width that encoded bytes claim, or that they were decoded to.
    what : str
        Start of the error's sentence.

    Raises
    ------
    IntegrityError
        The sizes differ.
    """
    if placement is not None and size != (placement.height, placement.width):
        sides = " x ".join(f"{side:,}" for side in size)
        raise IntegrityError(f"{what} of {sides} pixels, and the image has {placement.height:,} x {placement.width:,}")
