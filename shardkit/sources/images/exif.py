"""The one entry of Exif that is looked at: whether viewers turn or mirror the image. Pixels stay as they are stored."""

from typing import BinaryIO

from shardkit.errors import Verdict
from shardkit.sources.images import ifd

_ORIENTATION = 274


def turned(file: BinaryIO) -> bool:
    """Return whether a TIFF structure, such as Exif is, states another orientation than the stored one.

    Parameters
    ----------
    file : file
        Begins with the byte order; may be empty or hold anything.
    """
    try:
        first = next(ifd.directories(file), None)
    except Verdict:
        return False
    return first is not None and first.one(_ORIENTATION, 1) in range(2, 9)
