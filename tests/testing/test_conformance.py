"""The shipped contracts of codecs and shard formats: ours keep them, every way to break one is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.codecs import CODECS, htj2k, raw
from shardkit.errors import IntegrityError
from shardkit.formats import FORMATS, webdataset, zarr
from shardkit.testing.codecs import assert_codec
from shardkit.testing.formats import assert_shard_format


@dataclass
class Changed:
    """A module with some of its names replaced."""

    _of: Any
    _names: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        return self._names[name] if name in self._names else getattr(self._of, name)


def changed(module: Any, **names: Any) -> Any:
    return Changed(module, names)


@pytest.mark.parametrize("name", CODECS)
def test_our_codecs_keep_their_contract(name: str) -> None:
    assert name == CODECS[name].NAME
    assert_codec(CODECS[name])


@pytest.mark.parametrize("name", FORMATS)
def test_our_formats_keep_theirs(name: str, tmp_path: Path) -> None:
    assert name == FORMATS[name].NAME
    assert_shard_format(FORMATS[name], tmp_path)


def _crash(data: bytes, *about: Any) -> Any:
    if len(data) < 40:
        raise IndexError(len(data))
    return raw.decode(data, *about)


def _unchecked(data: bytes, level: int = 0, bits: int = 16, frame: Any = None) -> Any:
    return raw.decode(data, level, bits)


BROKEN_CODECS: dict[str, tuple[Callable[[], Any], str]] = {
    "loses the lowest bit": (lambda: changed(raw, encode=lambda p, f=None: raw.encode(p & 0xFFFE, f)), "exactly"),
    "gives wider numbers": (lambda: changed(raw, decode=lambda *a: raw.decode(*a).astype(np.int32)), "not uint16"),
    "gives a bytearray": (lambda: changed(raw, encode=lambda *a: bytearray(raw.encode(*a))), "not bytes"),
    "says nothing of claims": (lambda: changed(raw, check=lambda data, frame: None), "no IntegrityError"),
    "decodes whatever is claimed": (lambda: changed(raw, decode=_unchecked), "no IntegrityError"),
    "crashes on damage": (lambda: changed(raw, decode=_crash), "IndexError, not IntegrityError"),
    "tells levels it has not": (lambda: changed(raw, LEVELS_IN_STREAM=(1, 3)), "0 levels, and 1 to 3 are told"),
    "cuts prefixes short": (
        lambda: changed(htj2k, prefixes=lambda data: [len(data), *(n - 1 for n in htj2k.prefixes(data)[1:])]),
        "tile-parts",
    ),
    "leaves the range": (
        lambda: changed(htj2k, decode=lambda data, n=0, bits=16, f=None: htj2k.decode(data, n, 16, f)), "range",
    ),
    "claims another syntax": (lambda: changed(htj2k, fault=lambda *a: "its progression is LRCP"), "LRCP"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_CODECS)
def test_a_broken_codec_fails(case: str) -> None:
    make, words = BROKEN_CODECS[case]
    with pytest.raises((AssertionError, IntegrityError), match=words):
        assert_codec(make())


def _everything_kept(sources: Any, targets: Any, rows: Any, capacity: int) -> list[int]:
    for source, target in zip(sources, targets, strict=True):
        target.write_bytes(source.read_bytes())
    return [row["offset"] for row in rows]


BROKEN_FORMATS: dict[str, tuple[Callable[[], Any], str]] = {
    "names leave the dataset": (
        lambda: changed(webdataset, SHARD=re.compile(r"(?s).*(?P<bin>[0-9]{4,6}x[0-9]{4,6}).*")), "SHARD takes",
    ),
    "levels lead to the whole": (lambda: changed(zarr, part=lambda shard, level: shard), "part"),
    "there is no way back": (lambda: changed(zarr, whole=lambda name: (name, 0)), "whole"),
    "images lie at the start": (lambda: changed(webdataset, locate=lambda s, row, n: (row["shard"], 0)), "byte"),
    "rewrite drops nothing": (lambda: changed(webdataset, rewrite=_everything_kept), "rewrite"),
    "verify is content": (lambda: changed(zarr, verify=lambda *a: iter(())), "does not notice"),
    "verify is never content": (lambda: changed(zarr, verify=lambda *a: iter(["bad"])), "sound object"),
    "no codec will do": (lambda: changed(zarr, takes=lambda codec: False), "takes none"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_FORMATS)
def test_a_broken_format_fails(case: str, tmp_path: Path) -> None:
    make, words = BROKEN_FORMATS[case]
    with pytest.raises(AssertionError, match=words):
        assert_shard_format(make(), tmp_path)
