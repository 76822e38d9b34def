"""How an image lies in its bin."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frame:
    """An image of height x width pixels at the top left of a bin of rows x cols; all else in it is background."""

    height: int
    width: int
    rows: int
    cols: int

    def at(self, level: int) -> "Frame":
        """The same at 1/2**level, sides rounded up."""
        return Frame(*(-(-side >> level) for side in (self.height, self.width, self.rows, self.cols)))
