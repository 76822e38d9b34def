"""JPEG: what Pillow and libjpeg decode, lossless bit for bit; a cut file is never filled up with grey."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from shardkit.errors import Dropped, Quarantined
from shardkit.synthetic.image_files import encoded


def shown(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30}, {"optimize": True}])
def test_gray_is_what_pillow_decodes(look: Any, chest: Any, options: dict[str, Any]) -> None:
    data = encoded(chest().astype(np.uint8), "JPEG", **options)
    told, found = look(data)
    assert np.array_equal(found.pixels, shown(data))
    assert (told.bits, found.bits, found.lossy, told.coded_bytes, found.flags) == (8, 8, True, None, ())


def test_colours_are_gray_only_where_they_are_equal(look: Any, chest: Any) -> None:
    gray = chest().astype(np.uint8)
    data = encoded(np.stack([gray] * 3, -1), "JPEG", quality=90)
    _, found = look(data)
    assert np.array_equal(found.pixels, shown(data)[..., 0])
    assert found.flags == ("equal_channels",)
    with pytest.raises(Dropped, match="not_grayscale"):
        look(encoded(np.stack([gray, gray, gray // 2], -1), "JPEG"))
    with pytest.raises(Dropped, match="not_grayscale"):
        look(encoded(np.stack([gray] * 4, -1), "JPEG", "CMYK"))


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_lossless_jpeg_has_the_stored_values(look: Any, chest: Any, bits: int) -> None:
    values = chest(bits=bits)
    data = bytes(imagecodecs.ljpeg_encode(values, bitspersample=bits))
    told, found = look(data)
    assert np.array_equal(found.pixels, values)
    assert (told.bits, found.bits, found.lossy, told.coded_bytes) == (bits, bits, False, len(data))


def test_12_bits_keep_their_range(look: Any, chest: Any) -> None:
    values = chest(bits=12)
    told, found = look(bytes(imagecodecs.jpeg8_encode(values, level=97, bitspersample=12)))
    assert (told.bits, found.bits, found.lossy) == (12, 12, True)
    assert np.abs(found.pixels.astype(int) - values).mean() < 16


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_an_orientation_is_flagged_and_not_followed(look: Any, chest: Any, orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(chest().astype(np.uint8), "JPEG", exif=exif)
    told, found = look(data)
    assert told.flags == (("orientation",) if orientation != 1 else ())
    assert np.array_equal(found.pixels, shown(data))


def test_every_cut_is_quarantined(look: Any, chest: Any) -> None:
    for progressive in (False, True):
        data = encoded(chest().astype(np.uint8), "JPEG", progressive=progressive)
        for kept in (*range(0, 12, 3), *range(20, len(data), 97), len(data) - 2, len(data) - 1):
            for end in (b"", b"\xff\xd9"):  # some writers close what they did not finish
                if kept < len(data) - 2:
                    with pytest.raises(Quarantined):
                        look(data[:kept] + end, name="x.jpg")
    with pytest.raises(Quarantined, match="truncated"):
        look(data[: len(data) // 2])


def test_a_header_that_claims_more_than_its_bytes_hold_is_told_so(look: Any, chest: Any) -> None:
    data = encoded(chest().astype(np.uint8), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    with pytest.raises(Quarantined, match="size_mismatch"):
        look(data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :])
    with pytest.raises(Quarantined, match="bad_value"):
        look(data[:at] + struct.pack(">HH", 0, 90) + data[at + 4 :])


def test_bytes_behind_the_end_are_left_out_and_recorded(look: Any, chest: Any) -> None:
    data = encoded(chest().astype(np.uint8), "JPEG")
    _, found = look(data + b"\0\0thumbnail")
    assert np.array_equal(found.pixels, shown(data))
    assert found.repairs == ("trailing_bytes",)
