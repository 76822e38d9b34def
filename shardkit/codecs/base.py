"""What a codec is. A module with these names is one; `shardkit.codecs.CODECS` lists those that shards may have."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from shardkit.codecs.placement import Placement

Pixels = npt.NDArray[np.uint16]

LEVELS = 5
"""Levels that loaders use and `--levels` may ask for: how often an image is halved."""


class Codec(Protocol):
    """Encodes images without loss. `shardkit.testing.codecs.assert_codec` checks all that is said here.

    Attributes
    ----------
    NAME : str
        Name in `--codec` and dataset.json.
    EXTENSION : str
        Extension of the images' names in a tar.
    LEVELS_IN_STREAM : tuple of int
        Fewest and most halvings that a prefix of the bytes holds; (0, 0) where smaller images need bytes of their own.
    NEEDS_PLACEMENT : bool
        Whether the bytes are a whole bin, so that only its `Placement` tells which part of them is the image.
    """

    NAME: str
    EXTENSION: str
    LEVELS_IN_STREAM: tuple[int, int]
    NEEDS_PLACEMENT: bool

    def encode(self, pixels: Pixels, placement: Placement | None = None) -> bytes:
        """Encode an image; equal pixels give equal bytes.

        Parameters
        ----------
        pixels : numpy.ndarray
            Grey levels of shape (height, width), uint16.
        placement : Placement, optional
            Where the image lies in its bin. Codecs that need no placement ignore it.

        Returns
        -------
        bytes
            The encoded image.
        """

    def prefixes(self, data: bytes) -> list[int]:
        """Return how many bytes from the start hold each level.

        Parameters
        ----------
        data : bytes
            The encoded image.

        Returns
        -------
        list of int
            Lengths in bytes, level 0 first, which is all of `data`.

        Raises
        ------
        IntegrityError
            The bytes are not of this codec.
        """

    def check(self, data: bytes, placement: Placement) -> None:
        """Check by headers alone that bytes claim to be an image of the expected size.

        Parameters
        ----------
        data : bytes
            The encoded image.
        placement : Placement
            The image that the manifest describes, in its bin.

        Raises
        ------
        IntegrityError
            They claim to be another image.
        """

    def decode(self, data: bytes, level: int = 0, bits: int = 16, placement: Placement | None = None) -> Pixels:
        """Decode an image at one level.

        Parameters
        ----------
        data : bytes
            The whole encoded image, or the prefix that holds the level.
        level : int
            How many times the image is halved, sides rounded up.
        bits : int
            Pixels are below 2**bits.
        placement : Placement, optional
            The image at level 0, in its bin. With it the bytes are checked before memory is taken for what they claim.

        Returns
        -------
        numpy.ndarray
            Grey levels of shape (ceil(height / 2**level), ceil(width / 2**level)), uint16.

        Raises
        ------
        IntegrityError
            The bytes are damaged, or are another image than the expected one.
        ArgumentError
            This codec never has such a level, or needs a placement.
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
        """Turn the prefix that holds a level into a complete codestream.

        Parameters
        ----------
        prefix : bytes
            Bytes from the start of the image, which hold at least the level.
        level : int
            How many times the image is halved.

        Returns
        -------
        bytes
            A codestream of the image at 1/2**level, which any decoder takes.

        Raises
        ------
        IntegrityError
            The prefix is cut short, or the stream has fewer levels.
        """

    def enough(self, height: npt.ArrayLike, width: npt.ArrayLike, count: npt.ArrayLike) -> bool:
        """Return whether images have as many levels as the transfer syntax asks for.

        Parameters
        ----------
        height, width : array_like of int
            Sides in pixels, of one image or of many.
        count : array_like of int
            How many times the images can be halved.

        Returns
        -------
        bool
            Whether all of them have enough.
        """

    def fault(self, data: bytes, height: int, width: int, lengths: Sequence[int], small: bool = True) -> str | None:
        """Say what keeps bytes from being an image in the transfer syntax. Only headers are read.

        Parameters
        ----------
        data : bytes
            The encoded image.
        height, width : int
            Sides of the image in pixels.
        lengths : sequence of int
            Bytes of the prefixes that hold its levels.
        small : bool
            Whether it must have enough levels, which datasets of earlier versions do not claim.

        Returns
        -------
        str or None
            What is wrong, in words that follow "is no stream: "; None where nothing is.
        """
