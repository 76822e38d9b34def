"""Bytes that claim to be of another image, or of another kind, are refused before memory is given to them."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest

from shardkit.codecs import CODECS, blosc, htj2k, png, raw, swallowed
from shardkit.codecs.placement import Placement
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats import zarr_arrays

HEIGHT, WIDTH = 50, 40
FRAME = Placement(HEIGHT, WIDTH, 64, 48)
PIXELS = np.random.default_rng(3).integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint16)
LITTLE = 1 << 20  # bytes that a refusal may take


def _npy(values: npt.NDArray[np.generic]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    return buffer.getvalue()


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def _siz(offset: int, new: bytes) -> bytes:
    return _patched(htj2k.encode(PIXELS), 2 + offset, new)


def _cod(offset: int, new: bytes) -> bytes:
    data = htj2k.encode(PIXELS)
    return _patched(data, data.index(bytes.fromhex("ff52")) + offset, new)


def _huge_npy() -> bytes:
    return raw.encode(PIXELS).replace(b"(50, 40), ", b"(65535, 65535), ")[: -len("(65535, 65535)") + len("(50, 40)")]


HUGE: dict[str, Callable[[], bytes]] = {
    "htj2k": lambda: _siz(6, struct.pack(">8I", *(65535, 65535, 0, 0) * 2)),
    "png": lambda: _patched(png.encode(PIXELS), 16, struct.pack(">II", 65535, 65535)),
    "raw": _huge_npy,
    "blosc": lambda: _patched(blosc.encode(PIXELS, FRAME), 4, b"\xff" * 4),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_header_that_claims_gigabytes_is_refused_and_takes_none(name: str) -> None:
    """Blosc's length can say 4 GiB, and an image of 65,535 x 65,535 has 8 GiB."""
    module, data = CODECS[name], HUGE[name]()
    for read in (lambda: module.decode(data, 0, 12, FRAME), lambda: module.check(data, FRAME)):
        tracemalloc.start()
        try:
            with pytest.raises(IntegrityError) as caught:
                read()
            assert tracemalloc.get_traced_memory()[1] < LITTLE
        finally:
            tracemalloc.stop()
        assert "\n" not in str(caught.value)


def test_a_chunk_says_which_size_it_claims_and_which_its_bin_has() -> None:
    with pytest.raises(IntegrityError, match=r"^a Blosc chunk of 4,294,967,295 bytes, not of 6,144 as its bin has$"):
        blosc.decode(HUGE["blosc"](), 0, 12, FRAME)
    for more in (-1, 1):  # smaller is no better: the rest of the image would be what memory held
        data = _patched(blosc.encode(PIXELS, FRAME), 4, (6144 + more).to_bytes(4, "little"))
        with pytest.raises(IntegrityError, match="not of 6,144 as its bin has"):
            blosc.check(data, FRAME)


def test_a_chunk_of_facts_that_claims_gigabytes_is_another_and_not_decoded() -> None:
    ours = blosc.compress(np.arange(100, dtype="<i4"))
    tracemalloc.start()
    try:
        assert not zarr_arrays.same("0480x0480/height/c/0", ours, _patched(ours, 4, b"\xff" * 4))
        assert tracemalloc.get_traced_memory()[1] < LITTLE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("side", ["height", "width"])
@pytest.mark.parametrize("more", [-1, 1])
def test_an_image_of_another_size_is_none_of_this_frame(name: str, side: str, more: int) -> None:
    module = CODECS[name]
    data = module.encode(PIXELS, FRAME)
    module.check(data, FRAME)
    bin = {"rows" if side == "height" else "cols": (64 if side == "height" else 48) + more}
    other = replace(FRAME, **{side: getattr(FRAME, side) + more}, **bin)
    with pytest.raises(IntegrityError, match=r"and the image has|as its bin has"):
        module.check(data, other)
    with pytest.raises(IntegrityError, match=r"and the image has|as its bin has"):
        module.decode(data, 0, 12, other)


@pytest.mark.parametrize("module", [htj2k, png, raw])
def test_without_a_frame_an_image_of_any_size_is_read(module: ModuleType) -> None:
    data = module.encode(PIXELS)
    module.check(data, None)
    np.testing.assert_array_equal(module.decode(data), PIXELS)
    what = {htj2k: "an HTJ2K stream", png: "a PNG", raw: r"a \.npy member"}[module]
    with pytest.raises(IntegrityError, match=rf"^{what} of 50 x 40 pixels, and the image has 1,050 x 40$"):
        module.check(data, Placement(1050, 40, 1050, 40))


@pytest.mark.parametrize("level", range(1, 6))
def test_a_smaller_image_is_that_of_its_frame_at_the_level(level: int) -> None:
    stream = htj2k.encode(PIXELS)
    assert htj2k.decode(stream, level, 12, FRAME).shape == (-(-HEIGHT >> level), -(-WIDTH >> level))
    with pytest.raises(IntegrityError, match="HTJ2K stream"):
        htj2k.decode(stream, level, 12, replace(FRAME, height=HEIGHT + 1))
    at = FRAME.at(level)
    assert (at.height, at.width, at.rows, at.cols) == tuple(-(-side // 2**level) for side in (50, 40, 64, 48))
    small = PIXELS[: at.height, : at.width]
    np.testing.assert_array_equal(blosc.decode(blosc.encode(small, at), level, 12, FRAME), small)


def test_a_stream_is_taken_to_have_16_bits_unless_told_fewer() -> None:
    pixels = np.random.default_rng(1).integers(0, 2, (64, 64)).astype(np.uint16) * 65535
    stream = htj2k.encode(pixels)
    got = htj2k.decode(stream, 1)
    np.testing.assert_array_equal(got, htj2k.decode(stream, 1, 16))
    reference = imagecodecs.jpeg2k_decode(htj2k.standalone(stream, 1))
    np.testing.assert_array_equal(got, reference)
    assert got.min() == 0
    assert got.max() == 65535  # the band leaves the range on both sides, and is clamped
    assert htj2k.decode(stream, 1, 12).max() == 4095


# ---- another kind


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (PIXELS.astype(np.uint8), "16-bit grey levels"),
        (PIXELS.astype(np.int16), "16-bit grey levels"),
        (PIXELS.astype(">u2"), "16-bit grey levels"),
        (np.asfortranarray(PIXELS), "16-bit grey levels"),
        (PIXELS[None], "16-bit grey levels"),
        (PIXELS.ravel(), "16-bit grey levels"),
    ],
)
def test_an_npy_member_of_another_kind_is_refused(values: npt.NDArray[np.generic], words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        raw.decode(_npy(values))


@pytest.mark.parametrize("change", [lambda data: data + b"\0", lambda data: data[:-1]], ids=["longer", "shorter"])
def test_an_npy_member_ends_with_its_image(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(IntegrityError, match="whole image"):
        raw.decode(change(raw.encode(PIXELS)))


@pytest.mark.parametrize("values", [PIXELS.astype(np.uint8), np.stack([PIXELS] * 3, -1)], ids=["8 bits", "colour"])
def test_a_png_of_another_kind_is_refused(values: npt.NDArray[np.generic]) -> None:
    with pytest.raises(IntegrityError, match="not a PNG of 16-bit grey levels"):
        png.decode(bytes(imagecodecs.png_encode(values)))


@pytest.mark.parametrize("length", [0, 15, 16, 28])
def test_a_png_cut_inside_its_header_is_none(length: int) -> None:
    with pytest.raises(IntegrityError, match=r"^not a PNG$"):
        png.decode(png.encode(PIXELS)[:length])


def test_a_png_cut_or_damaged_after_its_header_is_not_decodable() -> None:
    data = png.encode(PIXELS)
    png.check(data[:29], FRAME)  # all that it looks at
    for bad in (data[:29], data[: len(data) // 2]):
        with pytest.raises(IntegrityError, match="not a decodable PNG"):
            png.decode(bad)


@pytest.mark.parametrize(
    "make",
    [
        lambda: _siz(14, struct.pack(">I", 1)),  # an image that does not begin at the grid's origin
        lambda: _siz(22, struct.pack(">I", 20)),  # narrower tiles
        lambda: _siz(30, struct.pack(">I", 1)),  # tiles that begin elsewhere
        lambda: _siz(38, b"\x81"),  # Ssiz of another depth
        lambda: _cod(4, b"\x01"),  # precincts
        lambda: _cod(6, b"\x00\x02"),  # layers
        lambda: _cod(10, b"\x05"),  # blocks
    ],
)
def test_a_stream_as_shardkit_writes_none_is_refused(make: Callable[[], bytes]) -> None:
    htj2k.check(htj2k.encode(PIXELS), FRAME)
    with pytest.raises(IntegrityError, match=r"tiles, components, layers or blocks|main header is damaged"):
        htj2k.check(make(), FRAME)


# ---- chunks


def test_a_chunk_is_compressed_as_the_metadata_say() -> None:
    """Its header has the codec and filter in its flags, then the size of an item, and of a block at 8."""
    assert blosc.CONFIGURATION == {
        "typesize": 2, "cname": "zstd", "clevel": 3, "shuffle": "bitshuffle", "blocksize": 1048576,
    }  # fmt: skip
    data = blosc.encode(np.random.default_rng(0).integers(0, 256, (1200, 1000)).astype(np.uint16))
    assert data[2] >> 5 == 4  # Zstandard
    assert data[2] & 0b111 == 0b100  # bits shuffled, bytes not, and compressed
    assert data[3] == 2
    assert int.from_bytes(data[8:12], "little") == 1 << 20


def test_blocks_of_a_chunk_lie_in_their_order_so_that_the_same_image_has_the_same_bytes() -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (2000, 2048)).astype(np.uint16)
    pixels[:, :1024] = 0
    data = blosc.encode(pixels)
    starts = np.frombuffer(data[16:48], "<u4").tolist()
    assert starts == sorted(starts)
    np.testing.assert_array_equal(blosc.decode(data, placement=Placement(2000, 2048, 2000, 2048)), pixels)


@pytest.mark.parametrize("length", [0, 12, 15])
def test_a_buffer_without_its_header_is_none(length: int) -> None:
    with pytest.raises(IntegrityError, match="not a whole Blosc buffer"):
        blosc.claimed(bytes(length))


def test_a_buffer_damaged_inside_is_not_decodable() -> None:
    data = blosc.encode(PIXELS, FRAME)
    for bad in (data[:16] + b"\xff" * (len(data) - 16), _patched(data, 8, b"\xff\xff\xff\x7f")):
        with pytest.raises(IntegrityError, match="not a decodable Blosc chunk"):
            blosc.decode(bad, 0, 12, FRAME)
        with pytest.raises(IntegrityError, match="not a decodable Blosc chunk"):
            blosc.decompress(bad)


def test_a_png_is_compressed_at_the_fastest_level() -> None:
    """A zlib stream's second byte says so; level 0 has the same, but stores."""
    data = png.encode(np.tile(PIXELS, (4, 4)))
    assert data[data.index(b"IDAT") + 4 :][:2] == b"\x78\x01"
    assert len(data) < 0.9 * 16 * PIXELS.nbytes


def test_codecs_without_levels_name_the_one_that_has_some() -> None:
    for module in (png, raw):
        with pytest.raises(ArgumentError, match="--codec htj2k"):
            module.decode(module.encode(PIXELS), 1)


# ---- errors that C code swallows


class _Loud:
    def __del__(self) -> None:
        raise ValueError("in a finaliser")


def test_a_swallowed_error_is_noticed_in_its_block_and_left_to_others_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[object]()
    monkeypatch.setattr(sys, "unraisablehook", seen.append)
    with swallowed.noticed() as errors:
        assert errors == []
        _Loud()
        assert [str(error) for error in errors] == ["in a finaliser"]
    assert seen == []
    _Loud()
    assert len(seen) == 1
    with swallowed.noticed() as again:
        pass
    _Loud()
    assert len(seen) == 2
    assert again == []
    assert len(errors) == 1
