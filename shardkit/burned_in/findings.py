"""What is known about text in an image: where it is and of what kind, never what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shardkit.dataset.sample_row import Kind, TextColumns

NAMING: tuple[Kind, ...] = ("text", "unreadable")
"""Kinds that may name a patient."""


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


def text_columns(findings: Sequence[Finding]) -> TextColumns:
    """Return the manifest's columns of the lines of text that were found in an image."""
    if not findings:
        return {"text_box": None, "text_kind": None, "text_confidence": None}
    return {
        "text_box": [side for f in findings for side in (f.top, f.left, f.height, f.width)],
        "text_kind": [f.kind for f in findings],
        "text_confidence": [f.confidence for f in findings],
    }
