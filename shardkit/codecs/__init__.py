"""Lossless image codecs, a module each that satisfies `shardkit.codecs.base.Codec`.

`placement` says how an image lies in its bin. Only codecs that store whole bins need it, but with it every codec checks
before it decodes, lest the bytes choose how much memory that takes. A new codec is a module and a line in `CODECS`.
"""

from shardkit.codecs import blosc, htj2k, png, raw
from shardkit.codecs.base import Codec
from shardkit.errors import ArgumentError

CODECS: dict[str, Codec] = {
    htj2k.NAME: htj2k,
    png.NAME: png,
    raw.NAME: raw,
    blosc.NAME: blosc,
}
"""By name, the usual one first."""


def codec(name: str) -> Codec:
    """Return a codec by its name.

    Parameters
    ----------
    name : str
        One of `CODECS`.

    Returns
    -------
    Codec
        The module that encodes and decodes.

    Raises
    ------
    ArgumentError
        There is no codec of this name.
    """
    if name not in CODECS:
        raise ArgumentError(f"unknown codec {name!r}: choose one of {', '.join(CODECS)}")
    return CODECS[name]
