"""How an image lies in its bin, and the check that encoded bytes are of that image before memory is given to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardkit.dataset.rounding import halved
from shardkit.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Frame:
    """An image of height x width pixels at the top left of a bin of rows x cols; all else in it is background."""

    height: int
    width: int
    rows: int
    cols: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> "Frame":
        """Of a sample, by its manifest row."""
        return cls(row["height"], row["width"], row["bin_height"], row["bin_width"])

    def at(self, level: int) -> "Frame":
        """The same at 1/2**level, sides rounded up."""
        return Frame(*(halved(side, level) for side in (self.height, self.width, self.rows, self.cols)))


def agree(frame: Frame | None, size: tuple[int, ...], what: str) -> None:
    """Raises IntegrityError unless what encoded bytes claim, or were decoded to, is the frame's image; None for any."""
    if frame is not None and size != (frame.height, frame.width):
        sides = " x ".join(f"{side:,}" for side in size)
        raise IntegrityError(f"{what} of {sides} pixels, and the image has {frame.height:,} x {frame.width:,}")
