"""What a header claims costs no memory."""

from __future__ import annotations

import random
import struct
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from shardkit.build import isolation
from shardkit.build.scan import scan_part
from shardkit.config import Rules
from shardkit.sources import FileTree, image_source


def _claims(length: int, rest: bytes) -> bytes:
    """A tiny file whose second element claims to be `length` bytes long."""
    meta = b"\x02\x00\x00\x00UL\x04\x00\x1a\x00\x00\x00\x02\x00\x10\x00UI\x12\x001.2.840.10008.1.2\x00"
    first = b"\x08\x00\x05\x00\x0a\x00\x00\x00ISO_IR 100"
    return bytes(128) + b"DICM" + meta + first + b"\x08\x00\x18\x00" + struct.pack("<I", length) + rest


@pytest.mark.parametrize("count", [-1, None, 10, 4 << 30])
def test_a_read_allocates_no_more_than_the_file_holds(tmp_path: Path, count: Any) -> None:
    """None, which `io` allows and `BinaryIO` has no type for, is a read to the end, too."""
    (tmp_path / "x").write_bytes(bytes(range(100)))
    tracemalloc.start()
    with FileTree(str(tmp_path)).open(b"x", 100) as file:
        assert file.read(count) == bytes(range(10 if count == 10 else 100))
        file.seek(95)
        assert file.read(count) == bytes(range(95, 100))
        assert file.read(count) == b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_no_tiny_file_is_beyond_the_memory_limit_whatever_it_claims(tmp_path: Path) -> None:
    chance = random.Random(1)
    for number in range(128):
        claimed = chance.choice([0xFFFFFFF0, 1 << 31, 1 << 30, chance.randrange(1 << 32)])
        (tmp_path / f"{number:03d}").write_bytes(_claims(claimed, chance.randbytes(number)))
    source = image_source(str(tmp_path))
    try:
        found = scan_part(source, list(source.list()), Rules(), 1, 512 << 20, 30.0)
    finally:
        isolation.close_children()
    reasons = Counter(row.reason for file in found for _, row in file.images)
    assert "memory_limit" not in reasons, reasons
