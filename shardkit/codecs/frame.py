"""How an image lies in its bin, and the check that encoded bytes are of that image before memory is given to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.dataset.rounding import halved
from shardkit.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Frame:
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
    def of(cls, row: Mapping[str, Any]) -> "Frame":
        """Return the frame of a sample, by its manifest row."""
        return cls(row["height"], row["width"], row["bin_height"], row["bin_width"])

    def at(self, level: int) -> "Frame":
        """Return the same at 1/2**level, sides rounded up."""
        return Frame(*(halved(side, level) for side in (self.height, self.width, self.rows, self.cols)))


def agree(frame: Frame | None, size: tuple[int, ...], what: str) -> None:
    """Check that a size is that of the frame's image.

    Parameters
    ----------
    frame : Frame or None
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
    if frame is not None and size != (frame.height, frame.width):
        sides = " x ".join(f"{side:,}" for side in size)
        raise IntegrityError(f"{what} of {sides} pixels, and the image has {frame.height:,} x {frame.width:,}")
