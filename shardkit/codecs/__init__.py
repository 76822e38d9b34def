"""Lossless image codecs. Each module has the same four names.

`encode(pixels, frame=None) -> bytes`, `prefixes(data) -> list of int` (byte length of the prefix that holds each level,
level 0 first), `check(data, frame)`, which refuses bytes that claim to be of another image than the frame's, and
`decode(data, level=0, bits=16, frame=None) -> pixels`, where `data` may be that level's prefix.
`frame` says how the image lies in its bin. Only codecs that store whole bins need it, but with it every codec checks
before it decodes, lest the bytes choose how much memory that takes.
"""

from types import ModuleType

from shardkit.codecs import blosc, htj2k, png, raw
from shardkit.errors import ArgumentError

CODECS: dict[str, tuple[ModuleType, str]] = {
    "htj2k": (htj2k, "j2c"),
    "png": (png, "png"),
    "raw": (raw, "npy"),
    "blosc": (blosc, "blosc"),
}
"""Codec name -> (module, extension of its members in a shard)."""


def codec(name: str) -> tuple[ModuleType, str]:
    """(module, file extension). Raises ArgumentError for an unknown name."""
    if name not in CODECS:
        raise ArgumentError(f"unknown codec {name!r}: choose one of {', '.join(CODECS)}")
    return CODECS[name]
