"""One image as a shard takes it: encoded, decoded and compared; with smaller ones where its codec has none inside."""

from dataclasses import dataclass

import numpy as np

from shardkit.codecs import codec, htj2k
from shardkit.codecs.base import CodestreamCodec, Pixels
from shardkit.codecs.placement import Placement
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import Quarantined

_STRIP = 1 << 17  # pixels


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded image with all its levels.

    Parameters
    ----------
    image : bytes
        The image at full resolution.
    smaller : tuple of bytes
        The image at 1/2, 1/4, ..., where these are not prefixes of it.
    levels : tuple of (int, bytes)
        Length and hash of the bytes that hold each level, level 0 first.
    """

    image: bytes
    smaller: tuple[bytes, ...]
    levels: tuple[tuple[int, bytes], ...]


def encode(pixels: Pixels, bits: int, placement: Placement, name: str, halves: int) -> Encoded:
    """Encode an image in its bin, and decode it again: nothing that does not come back exactly is ever written.

    Parameters
    ----------
    pixels : numpy.ndarray
        Grey levels of shape (height, width), uint16.
    bits : int
        Pixels are below 2**bits.
    placement : Placement
        Where the image lies in its bin.
    name : str
        Name of the codec.
    halves : int
        Smaller images to encode, if the codec has no levels inside.

    Returns
    -------
    Encoded
        The bytes of all levels.

    Raises
    ------
    Quarantined
        The image does not come back exactly.
    """
    how = codec(name)
    images: list[bytes] = []
    for level, smaller in enumerate(_pyramid(pixels, bits, halves)):
        images.append(how.encode(smaller, placement.at(level)))
        back = how.decode(images[-1], 0, bits, placement.at(level))
        if not _equal(back, smaller):
            raise Quarantined("internal_error", f"{name} did not give back the pixels it was given")
    image, *rest = images
    height, width = pixels.shape
    if isinstance(how, CodestreamCodec) and (fault := how.fault(image, height, width, how.prefixes(image))):
        raise Quarantined("internal_error", f"{name} made a stream that no DICOM file may hold: {fault}")
    whole = memoryview(image)
    pieces = images if halves else [whole[:length] for length in how.prefixes(image)]
    return Encoded(image, tuple(rest), tuple((len(piece), fingerprint(piece)) for piece in pieces))


def _equal(one: Pixels, other: Pixels) -> bool:
    """Compare images in strips that stay in a core's cache, as far as the first difference."""
    strip = max(1, _STRIP // max(1, one.shape[-1]))
    pieces = (slice(row, row + strip) for row in range(0, one.shape[0], strip))
    return one.shape == other.shape and all(np.array_equal(one[piece], other[piece]) for piece in pieces)


def _pyramid(pixels: Pixels, bits: int, halves: int) -> list[Pixels]:
    """Return the image and its halves: HTJ2K's levels, so that both kinds of shards give the same pixels at each."""
    stream = htj2k.encode(pixels) if halves else b""
    return [pixels, *(htj2k.decode(stream, level, bits) for level in range(1, halves + 1))]
