"""Integer division that rounds up, for numbers and arrays."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt

Whole = TypeVar("Whole", int, npt.NDArray[np.int64])


def ceil_div(value: Whole, by: int) -> Whole:
    """Divide and round up."""
    return -(-value // by)


def halved(side: Whole, level: int) -> Whole:
    """Return a side of an image at 1/2**level, rounded up."""
    return -(-side >> level)
