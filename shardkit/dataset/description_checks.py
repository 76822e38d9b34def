"""What a dataset.json must say before anything in it is believed: it may come from anyone."""

import re
from collections.abc import Callable
from typing import Any

from shardkit.codecs import CODECS
from shardkit.codecs.base import LEVELS, CodestreamCodec
from shardkit.dataset.description import MISSING, DatasetDescription
from shardkit.dataset.schema import LARGEST, SIDE, SPLITS
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import FORMATS, form_of
from shardkit.storage.regular import ANEW

_PATCHES = 1 << 13  # a side of a bin: plans hold a table of all grids
_DIGEST = "[0-9a-f]{64}"


def _whole(value: Any, low: int = 0, high: int = LARGEST) -> bool:
    return type(value) is int and low <= value <= high


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(re.fullmatch("[a-z0-9_]{1,64}", k) and _whole(v) for k, v in value.items())


def _pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(_whole(side, 1, 2 * SIDE) for side in value)


def _text(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


_SYNTAXES = [how.TRANSFER_SYNTAX for how in CODECS.values() if isinstance(how, CodestreamCodec)]
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "shard_format": (lambda v: isinstance(v, str) and v in FORMATS, f"one of {', '.join(FORMATS)}"),
    "codec": (lambda v: isinstance(v, str) and v in CODECS, f"one of {', '.join(CODECS)}"),
    "extension": (_text("[a-z0-9]{1,8}"), "an extension"),
    "transfer_syntax": (lambda v: v is None or v in _SYNTAXES, f"null or {' or '.join(_SYNTAXES)}"),
    "patch": (lambda v: _whole(v, 1, SIDE), "a number of pixels"),
    "bins": (lambda v: isinstance(v, list) and 0 < len(v) <= 1 << 16 and all(map(_pair, v)), "a list of two sides"),
    **dict.fromkeys(("samples", "shards", "bytes", "pixels", "tokens", "padded_tokens"), (_whole, "a whole number")),
    "splits": (lambda v: _counts(v) and set(v) <= {*SPLITS}, f"how many samples {', '.join(SPLITS)} have"),
    "verdicts": (lambda v: isinstance(v, dict) and _counts(dict.fromkeys(v, 0)) and all(map(_counts, v.values())),
                 "counts by verdict and reason"),
    "digest": (_text(_DIGEST), "64 hexadecimal digits"),
    "key_fingerprint": (_text("[0-9a-f]{1,128}"), "hexadecimal digits"),
    "arguments": (lambda v: isinstance(v, dict) and _whole(v.get("shard_bytes"), 1)
                  and _whole(v.get("levels", 0), 0, LEVELS), "a build's, shard_bytes and levels among them"),
    "converted_from": (lambda v: v is None or _text(_DIGEST)(v), "64 hexadecimal digits"),
}  # fmt: skip


def checked(content: dict[str, Any], where: str) -> DatasetDescription:
    """Return the record of a dataset.json.

    Parameters
    ----------
    content : dict
        What the file holds, in a format that is read.
    where : str
        The file's name in messages.

    Raises
    ------
    IntegrityError
        A field is missing, or is none that a dataset could have.
    """
    for name, (holds, words) in _FIELDS.items():
        value = content.get(name, MISSING.get(name))
        if not holds(value):
            raise IntegrityError(f"{where}: {name} is {_shown(value)}, and must be {words}; {ANEW}")
    try:
        found = DatasetDescription.from_content(content)
    except ArgumentError as error:  # of the bins
        raise IntegrityError(f"{where}: {str(error).rstrip('.')}; {ANEW}") from None
    form, codec, bins = form_of(found), CODECS[found.codec], found.bins.bins
    for sound, words in (
        (form.takes(codec), f"{form.NAME} shards hold no images of codec {codec.NAME}"),
        (found.extension == codec.EXTENSION, f"images of codec {codec.NAME} have the extension {codec.EXTENSION}"),
        (form.NESTED or "levels" in found.arguments, "arguments lack levels"),
        (sum(found.splits.values()) == found.samples, "its splits have another sum than its samples"),
        (
            max(max(bin.height, bin.width) for bin in bins) <= _PATCHES * found.patch,
            f"a bin's side has more than {_PATCHES:,} patches",
        ),
        (len(bins) == len(content["bins"]), "bins are listed twice"),
    ):
        if not sound:
            raise IntegrityError(f"{where}: {words}; {ANEW}")
    return found


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    text = repr(value) if not isinstance(value, (dict, list)) or len(value) < 8 else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}…"
