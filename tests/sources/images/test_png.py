"""PNG: every kind that the standard has, as it is stored; what is cut, damaged or no grey image gets its verdict."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit.errors import Dropped, Quarantined, Verdict
from shardkit.synthetic.image_files import chunk, encoded, png

GRAYS = b"".join(bytes((i, i, i)) for i in range(256))


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_values_are_the_stored_ones_at_every_depth(look: Any, bits: int, interlaced: bool) -> None:
    values = np.random.default_rng(bits).integers(0, 1 << bits, (37, 53)).astype(np.uint16)
    data = png(values, bits, interlaced=interlaced)
    told, found = look(data)
    assert np.array_equal(found.pixels, values)
    assert (told.bits, found.bits, told.coded_bytes) == (bits, bits, len(data))
    assert (told.modality, found.lossy, found.inverted, found.flags) == (None, False, False, ())
    shown = np.asarray(Image.open(io.BytesIO(data))).astype(np.int64)  # Pillow spreads 2 and 4 bits over 8
    assert np.array_equal(shown, values.astype(np.int64) * (255 // ((1 << bits) - 1) if bits in (2, 4) else 1))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("colour", "alpha"), [(2, False), (4, True), (6, True)])
def test_equal_channels_with_opaque_alpha_are_gray_and_flagged(
    look: Any, chest: Any, bits: int, colour: int, alpha: bool
) -> None:
    gray = chest(bits=bits)
    top = np.full_like(gray, (1 << bits) - 1)
    values = np.stack([gray] * (1 if colour == 4 else 3) + [top] * alpha, -1)
    told, found = look(png(values, bits, colour))
    assert np.array_equal(found.pixels, gray)
    assert (found.flags, told.coded_bytes) == (("equal_channels",), None)
    for channel in range(values.shape[2] if colour != 4 else 0):
        other = values.copy()
        other[3, 5, channel] ^= 1
        with pytest.raises(Dropped, match="not_grayscale"):
            look(png(other, bits, colour))


def test_a_transparent_pixel_makes_it_no_gray_image(look: Any, chest: Any) -> None:
    gray = chest()
    clear = np.full_like(gray, 255)
    clear[0, 0] = 254
    with pytest.raises(Dropped, match="transparent"):
        look(png(np.stack([gray, clear], -1), 8, 4))


def test_a_gray_palette_is_gray_and_others_are_not(look: Any, chest: Any) -> None:
    gray = chest()
    _, found = look(png(255 - gray, 8, 3, chunk(b"PLTE", GRAYS[::-1])))
    assert np.array_equal(found.pixels, gray)
    assert found.flags == ("equal_channels",)
    for before in (chunk(b"PLTE", GRAYS[:-1] + b"\xfe"), chunk(b"PLTE", GRAYS) + chunk(b"tRNS", bytes(30))):
        with pytest.raises(Dropped, match="not_grayscale"):
            look(png(np.where(gray > 128, 255, 0), 8, 3, before))


@pytest.mark.parametrize(
    ("before", "flags"),
    [
        (chunk(b"gAMA", struct.pack(">I", 45_455)), ()),
        (chunk(b"iCCP", b"name\0\0" + zlib.compress(b"no profile at all")), ()),
        (chunk(b"tRNS", b"\0\x10"), ("transparent_gray",)),
        (chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\6\0\0\0\0\0\0\0"), ("orientation",)),
        (chunk(b"eXIf", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\1\0\0\0\0\0\0\0"), ()),
    ],
)
def test_what_tells_how_to_show_an_image_does_not_change_its_pixels(
    look: Any, chest: Any, before: bytes, flags: tuple[str, ...]
) -> None:
    gray = chest()
    told, found = look(png(gray, 8, 0, before))
    assert np.array_equal(found.pixels, gray)
    assert told.flags == flags


def test_an_animation_is_several_frames(look: Any, chest: Any) -> None:
    with pytest.raises(Dropped, match="multiframe"):
        look(png(chest(), 8, 0, chunk(b"acTL", struct.pack(">II", 2, 0))))
    gray = chest()
    frames = encoded(gray, "PNG", save_all=True, append_images=[Image.fromarray((255 - gray).astype(np.uint16))])
    with pytest.raises(Dropped, match="multiframe"):
        look(frames)


def test_a_header_that_claims_more_than_its_bytes_hold_is_told_so_before_memory_is_taken(look: Any) -> None:
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 16, 6, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + start + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    with pytest.raises(Quarantined, match="size_mismatch"):
        look(data)


@pytest.mark.parametrize("kept", [1, 8, 20, 33, 40, 500, -1, -4, -12, -13, -20])
def test_a_file_that_is_cut_short_is_quarantined_wherever(look: Any, chest: Any, kept: int) -> None:
    with pytest.raises(Quarantined) as caught:
        look(png(chest(), 8)[:kept], name="x.png")
    assert caught.value.reason in ("truncated", "unknown_format")


def test_a_changed_bit_anywhere_is_noticed(look: Any, chest: Any) -> None:
    data = png(chest(40, 30), 8, 0, chunk(b"tEXt", b"Comment\0of no matter"))
    for at in range(8, len(data), 7):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(Verdict) as caught:
            look(bytes(damaged))
        assert caught.value.verdict == "quarantined", at


def test_bytes_behind_the_end_are_left_out_and_recorded(look: Any, chest: Any) -> None:
    gray = chest()
    _, found = look(png(gray, 8) + b"more")
    assert np.array_equal(found.pixels, gray)
    assert found.repairs == ("trailing_bytes",)
