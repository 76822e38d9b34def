"""TIFF: strips and tiles, compressed or not, of both orders of bytes; pages are frames; polarity as DICOM has it."""

from __future__ import annotations

import io
import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from shardkit.errors import Dropped, Quarantined
from shardkit.synthetic import image_files
from shardkit.synthetic.image_files import encoded


def tiff(values: Any, **options: Any) -> bytes:
    """A file as libtiff writes it."""
    return bytes(imagecodecs.tiff_encode(values, **options))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("bits", [8, 16])
def test_strips_have_the_stored_values_as_pillow_reads_them(
    look: Any, chest: Any, bits: int, compression: str | None
) -> None:
    values = chest(bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    data = encoded(values, "TIFF", compression=compression)
    told, found = look(data)
    assert np.array_equal(found.pixels, values)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), values)
    assert (told.bits, found.bits, found.lossy) == (bits, bits, False)
    assert told.coded_bytes == (len(data) if compression else None)


@pytest.mark.parametrize("options", [{"tile": (32, 32)}, {"bigtiff": True}, {"predictor": True}])
def test_tiles_and_large_files_have_the_stored_values(look: Any, chest: Any, options: dict[str, Any]) -> None:
    values = chest(bits=16)
    for compression in ("none", "lzw", "zstd"):
        if options != {"predictor": True} or compression != "none":
            _, found = look(tiff(values, compression=compression, **options))
            assert np.array_equal(found.pixels, values)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_orders_of_bytes_and_both_polarities_are_read(look: Any, chest: Any, order: Any, bits: int) -> None:
    values = chest(bits=bits).astype(np.uint8 if bits == 8 else np.uint16)
    data = image_files.tiff(values, order)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), values)
    assert np.array_equal(look(data)[1].pixels, values)
    told, found = look(image_files.tiff(values, order, white_is_zero=True))
    assert (told.photometric, found.inverted) == ("MONOCHROME1", True)
    assert np.array_equal(found.pixels, (1 << bits) - 1 - values.astype(int))  # over the whole range


def test_signed_values_are_shifted_by_half_of_the_range(look: Any, chest: Any) -> None:
    values = chest(bits=12).astype(np.int16) - 1000
    told, found = look(tiff(values))
    assert (told.signed, found.bits) == (True, 16)
    assert np.array_equal(found.pixels, values.astype(int) + 32768)


def test_words_of_32_bits_are_taken_where_16_hold_their_values(look: Any, chest: Any) -> None:
    values = chest(bits=16).astype(np.uint32)
    assert np.array_equal(look(tiff(values))[1].pixels, values)
    with pytest.raises(Quarantined, match="bad_value"):
        look(tiff(values << 4))


def test_colours_and_palettes_are_gray_where_their_channels_are_equal(look: Any, chest: Any) -> None:
    gray = chest().astype(np.uint8)
    colours = np.stack([gray] * 3, -1)
    palette = io.BytesIO()
    Image.fromarray(gray).convert("P").save(palette, "TIFF")
    planes = tiff(np.moveaxis(colours, -1, 0).copy(), photometric="rgb", planarconfig="separate")
    for data in (encoded(colours, "TIFF"), palette.getvalue(), planes):
        _, found = look(data)
        assert np.array_equal(found.pixels, gray)
        assert found.flags == ("equal_channels",)
    colours[..., 1] //= 2
    with pytest.raises(Dropped, match="not_grayscale"):
        look(encoded(colours, "TIFF"))
    with pytest.raises(Dropped, match="not_integer_pixels"):
        look(tiff(gray.astype(np.float32)))


def test_a_bit_a_pixel_is_an_image_of_one_bit(look: Any, chest: Any) -> None:
    mask = chest() > 90
    told, found = look(encoded(mask, "TIFF"))
    assert (told.bits, found.bits) == (1, 1)
    assert np.array_equal(found.pixels, mask)


def test_pages_are_frames_where_each_is_asked_for(look: Any, chest: Any) -> None:
    pages = [chest(seed=seed).astype(np.uint8) for seed in range(3)]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=[Image.fromarray(page) for page in pages[1:]])
    assert look.parts(data) == [None]
    with pytest.raises(Dropped, match=r"multiframe.*--frames each"):
        look(data)
    assert look.parts(data, frames="each") == [0, 1, 2]
    for number, page in enumerate(pages):
        assert np.array_equal(look(data, part=number, frames="each")[1].pixels, page)


def test_a_thumbnail_among_the_pages_is_no_frame(look: Any, chest: Any) -> None:
    page, small = chest(), chest(20, 30)
    data = tiff(page)
    offset = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[offset : offset + 2])[0]
    following = offset + 2 + 12 * count
    other = tiff(small, subfiletype=1)
    shift = len(data)
    moved = _moved(other, shift)
    start = struct.unpack("<I", other[4:8])[0] + shift
    joined = data[:following] + struct.pack("<I", start) + data[following + 4 :] + moved
    assert Image.open(io.BytesIO(joined)).size == page.shape[::-1]
    told, found = look(joined)
    assert (told.height, told.width) == page.shape
    assert np.array_equal(found.pixels, page)


def _moved(data: bytes, shift: int) -> bytes:
    """Return a little-endian file of one page whose offsets count from `shift` bytes before it."""
    out = bytearray(data)
    offset = struct.unpack("<I", data[4:8])[0]
    for at in range(offset + 2, offset + 2 + 12 * struct.unpack("<H", data[offset : offset + 2])[0], 12):
        tag, kind, count = struct.unpack("<HHI", data[at : at + 8])
        size = count * {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}.get(kind, 1)
        if size > 4 or tag == 273:
            out[at + 8 : at + 12] = struct.pack("<I", struct.unpack("<I", data[at + 8 : at + 12])[0] + shift)
    return bytes(out)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_every_cut_is_quarantined(look: Any, chest: Any, compression: str | None) -> None:
    data = encoded(chest(bits=16), "TIFF", compression=compression)
    for kept in (0, 1, 3, 7, 8, 60, len(data) // 2, len(data) - 1):
        with pytest.raises(Quarantined):
            look(data[:kept], name="x.tif")
    with pytest.raises(Quarantined, match="truncated"):  # before it is decoded
        look(data[:-1])


def test_what_a_page_claims_is_compared_with_its_bytes(look: Any, chest: Any) -> None:
    data = bytearray(encoded(chest(bits=16), "TIFF"))
    offset = struct.unpack("<I", data[4:8])[0]
    for at in range(offset + 2, len(data) - 12, 12):
        if struct.unpack("<H", data[at : at + 2])[0] in (256, 257):
            data[at + 8 : at + 10] = struct.pack("<H", 60_000)
    with pytest.raises(Quarantined, match="size_mismatch"):
        look(bytes(data))


@pytest.mark.parametrize("offset", [10_000, 1 << 62, (1 << 64) - 1])
def test_a_page_that_lies_beyond_the_file_is_missing(look: Any, chest: Any, offset: int) -> None:
    data = tiff(chest(bits=16), bigtiff=True)
    with pytest.raises(Quarantined, match="truncated"):
        look(data[:8] + struct.pack("<Q", offset + len(data) if offset < 1 << 62 else offset) + data[16:])


def test_pages_that_lead_back_to_themselves_are_told(look: Any, chest: Any) -> None:
    data = bytearray(encoded(chest(bits=16), "TIFF"))
    offset = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[offset : offset + 2])[0]
    data[offset + 2 + 12 * count : offset + 6 + 12 * count] = struct.pack("<I", offset)
    with pytest.raises(Quarantined, match="decode_error"):
        look(bytes(data))
