"""The two hashes of the manifest: of stored bytes, and of an image's pixels."""

import numpy as np
import numpy.typing as npt
import xxhash

DIGEST_BYTES = 16
"""Length of either."""


def fingerprint(data: bytes | memoryview) -> bytes:
    """Return the XXH3-128 of a member or of a prefix of it.

    It tells damaged bytes from sound ones (by accident wrong once in 10**38) at many GB/s, so that a loader can afford
    to check all it reads. It guards against no forger; the dataset's digest, a SHA-256, covers it.
    """
    return xxhash.xxh3_128_digest(data)


def pixel_hash(pixels: npt.NDArray[np.uint16], bits: int) -> bytes:
    """Return the XXH3-128 of shape, depth and little-endian values: equal only for equal images.

    It is not cryptographic, because it tells images apart (by accident wrong once in 10**38) and guards no one; SHA-256
    would cost a tenth of the conversion.
    """
    digest = xxhash.xxh3_128(f"{pixels.shape[0]} {pixels.shape[1]} {bits} ".encode())
    digest.update(np.ascontiguousarray(pixels, "<u2").data)
    return digest.digest()
