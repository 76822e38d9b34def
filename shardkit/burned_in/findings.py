"""What is known about text in an image: where it is and of what kind, never what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["text", "marker", "unreadable"]
"""text: letters or digits that no list permits. marker: permitted words only. unreadable: a line of letter-like marks
that were not read."""


@dataclass(frozen=True)
class Finding:
    """A line of text in an image.

    Parameters
    ----------
    top, left, height, width : int
        Its box, in pixels of the image.
    kind : {"text", "marker", "unreadable"}
        What it is.
    confidence : float
        0 to 1: that it is text at all.
    """

    top: int
    left: int
    height: int
    width: int
    kind: Kind
    confidence: float
