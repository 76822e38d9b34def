"""What a codec is. A module with these names is one; `shardkit.codecs.CODECS` lists those that shards may have."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from shardkit.codecs.frame import Frame

Pixels = npt.NDArray[np.uint16]

LEVELS = 5
"""Levels that loaders use and `--levels` may ask for: how often an image is halved."""


class Codec(Protocol):
    """Encodes images without loss. `shardkit.testing.codecs.assert_codec` checks all that is said here.

    Attributes
    ----------
    NAME : str
        As `--codec` and dataset.json have it.
    EXTENSION : str
        Of its members in a tar.
    LEVELS_IN_STREAM : tuple of int
        Fewest and most halvings that a prefix of the bytes holds; (0, 0) where smaller images need bytes of their own.
    NEEDS_FRAME : bool
        Whether the bytes are a whole bin, so that only its `Frame` tells which part of them is the image.
    """

    NAME: str
    EXTENSION: str
    LEVELS_IN_STREAM: tuple[int, int]
    NEEDS_FRAME: bool

    def encode(self, pixels: Pixels, frame: Frame | None = None) -> bytes:
        """(height, width) uint16 -> bytes, the same for equal pixels. frame: how the image lies in its bin."""

    def prefixes(self, data: bytes) -> list[int]:
        """Length of the prefix that holds each level, level 0 first, which is all of it. Raises IntegrityError."""

    def check(self, data: bytes, frame: Frame) -> None:
        """Raises IntegrityError where bytes claim to be of another image than the frame's; reads headers only."""

    def decode(self, data: bytes, level: int = 0, bits: int = 16, frame: Frame | None = None) -> Pixels:
        """The image at 1/2**level, sides rounded up, from all bytes or from that level's prefix; below 2**bits.

        frame: of the whole image; given, the bytes are checked before memory is taken for what they claim.
        Raises IntegrityError for other bytes, ArgumentError for levels or a frame that this codec never has.
        """


@runtime_checkable
class CodestreamCodec(Codec, Protocol):
    """A codec whose bytes are codestreams of a DICOM transfer syntax, which decoders such as DALI take as they are.

    Attributes
    ----------
    TRANSFER_SYNTAX, SYNTAX_NAME : str
        UID and name of the transfer syntax.
    """

    TRANSFER_SYNTAX: str
    SYNTAX_NAME: str

    def standalone(self, prefix: bytes, level: int) -> bytes:
        """The prefix of a level -> a complete codestream of the image at 1/2**level. Raises IntegrityError."""

    def enough(self, height: npt.ArrayLike, width: npt.ArrayLike, count: npt.ArrayLike) -> bool:
        """Whether images of these sides with `count` levels are of the transfer syntax: one, or all of arrays."""

    def fault(self, data: bytes, height: int, width: int, lengths: Sequence[int], small: bool = True) -> str | None:
        """What keeps bytes from being this image in the transfer syntax with these prefixes; None where nothing.

        small: whether it must have enough levels, as datasets of earlier versions do not claim.
        """
