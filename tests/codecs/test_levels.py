"""How many levels an image has, that each is exact from its prefix, and that headers are walked, not searched."""

from __future__ import annotations

import hashlib
import sys

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.codecs import htj2k
from shardkit.codecs.base import LEVELS
from shardkit.codecs.placement import Placement
from shardkit.errors import IntegrityError

Pixels = npt.NDArray[np.uint16]
COD, QCD, COM, TLM, SOT = (bytes.fromhex(marker) for marker in ("ff52", "ff5c", "ff64", "ff55", "ff90"))


def noise(height: int, width: int, bits: int = 16, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 1 << bits, (height, width)).astype(np.uint16)


def ramp(height: int, width: int, bits: int) -> Pixels:
    rows, cols = np.indices((height, width))
    return ((rows * 37 + cols * 11) % (1 << bits)).astype(np.uint16)


@pytest.mark.parametrize(
    ("height", "width", "levels"),
    [
        (1, 1, 5), (64, 64, 5), (2048, 2048, 5), (2048, 9999, 5), (9999, 2048, 5), (10000, 64, 5), (1, 65535, 5),
        (2049, 2049, 6), (2049, 9999, 6), (4664, 3064, 6), (4096, 4096, 6), (4097, 4097, 7), (8193, 8193, 8),
        (65535, 65535, 10),
    ],
)  # fmt: skip
def test_levels_go_on_until_the_shorter_side_is_within_64_pixels(height: int, width: int, levels: int) -> None:
    assert htj2k.levels(height, width) == levels
    assert htj2k.enough(height, width, levels)
    assert -(-min(height, width) >> levels) <= 64
    if levels > LEVELS:
        assert not htj2k.enough(height, width, levels - 1)
        assert -(-min(height, width) >> (levels - 1)) > 64


@pytest.mark.parametrize(
    "shape", [(30, 40), (1, 70), (300, 400), (2048, 2048), (2048, 2500), (2049, 2049), (2500, 4100)]
)
def test_the_stream_holds_as_many_levels_in_falling_prefixes(shape: tuple[int, int]) -> None:
    lengths = htj2k.prefixes(htj2k.encode(ramp(*shape, 12)))
    assert len(lengths) == htj2k.levels(*shape) + 1
    assert lengths == sorted(set(lengths), reverse=True)


GOLDEN = {
    (1, 1, 16): "c1ddd31328a894d6",
    (61, 97, 8): "46caba4b3c3bfb81",
    (480, 640, 12): "0f39539c6aea81a4",
    (2048, 2048, 16): "f6533134733ffae1",
}


@pytest.mark.parametrize(("height", "width", "bits"), GOLDEN)
def test_up_to_2048_pixels_streams_have_the_bytes_that_they_always_had(height: int, width: int, bits: int) -> None:
    """But for the comment, which names the encoder's version. Datasets of before are appended to and rebuilt."""
    data = htj2k.encode(ramp(height, width, bits))
    start = data.index(COM)
    end = start + 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    assert hashlib.sha256(data[:start] + data[end:]).hexdigest()[:16] == GOLDEN[height, width, bits]


@pytest.mark.parametrize(
    ("height", "width", "bits"),
    [(1, 1, 16), (1, 9000, 12), (9000, 3, 16), (10000, 64, 12), (2048, 2049, 16), (2049, 2049, 10), (4664, 3064, 12),
     (4097, 4099, 16)],
)  # fmt: skip
def test_every_level_of_every_shape_is_exact_from_its_prefix(height: int, width: int, bits: int) -> None:
    pixels = noise(height, width, bits)
    data = htj2k.encode(pixels)
    five = imagecodecs.htj2k_encode(
        pixels, resolutions=5, reversible=True, tlm=True, tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
    )
    np.testing.assert_array_equal(htj2k.decode(data), pixels)
    for level, length in enumerate(htj2k.prefixes(data)):
        prefix = data[:length]
        got = htj2k.decode(prefix, level, bits)
        assert got.shape == (-(-height >> level), -(-width >> level))
        openjpeg = imagecodecs.jpeg2k_decode(htj2k.standalone(prefix, level)).reshape(got.shape)
        np.testing.assert_array_equal(got, np.minimum(openjpeg, (1 << bits) - 1), err_msg=f"level {level}")
        if level <= 5:  # more levels below change nothing above: old datasets and Zarr shards hold the same images
            np.testing.assert_array_equal(got, htj2k.decode(bytes(five), level, bits), err_msg=f"level {level}")
    with pytest.raises(IntegrityError):
        htj2k.decode(data, htj2k.levels(height, width) + 1, bits)


# ---- headers


def with_segment(data: bytes, segment: bytes) -> bytes:
    """A stream with a marker segment more after SIZ."""
    return data[:45] + segment[:2] + (len(segment)).to_bytes(2, "big") + segment[2:] + data[45:]


@pytest.mark.parametrize("shape", [(70, 90), (2100, 2049)])
def test_a_start_of_tile_part_inside_a_comment_is_none(shape: tuple[int, int]) -> None:
    pixels = ramp(*shape, 12)
    plain = htj2k.encode(pixels)
    data = with_segment(plain, COM + b"\x00\x00" + SOT + bytes.fromhex("000a 0000 00000020 0006"))
    assert htj2k.prefixes(data) == [length + len(data) - len(plain) for length in htj2k.prefixes(plain)]
    for level, length in enumerate(htj2k.prefixes(data)):
        np.testing.assert_array_equal(htj2k.decode(data[:length], level, 12), htj2k.decode(plain, level, 12))
    assert htj2k.fault(data, *shape, htj2k.prefixes(data)) is None


def test_levels_are_those_that_the_stream_says() -> None:
    data = imagecodecs.htj2k_encode(
        ramp(200, 300, 12), resolutions=3, reversible=True, tlm=True, tilepart=imagecodecs.HTJ2K.TILEPART.RESOLUTIONS
    )
    data = bytes(data)
    assert len(htj2k.prefixes(data)) == 4
    assert htj2k.decode(data[: htj2k.prefixes(data)[3]], 3, 12).shape == (25, 38)
    with pytest.raises(IntegrityError, match="3 levels, not 4"):
        htj2k.standalone(data, 4)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(at=st.integers(2, 220), value=st.integers(0, 255), level=st.integers(1, 6), cut=st.integers(0, 30))
def test_a_damaged_header_raises_integrity_errors_only(at: int, value: int, level: int, cut: int) -> None:
    data = bytearray(htj2k.encode(ramp(40, 50, 12)))
    data[at] = value
    whole = bytes(data)
    lengths = [len(whole)] * 6
    assert isinstance(htj2k.fault(whole, 40, 50, lengths), str)  # these are no prefixes
    for part in (whole, whole[:at], whole[:at] + whole[at + cut :]):
        for read in (htj2k.prefixes, lambda part: htj2k.standalone(part, level)):
            try:
                read(part)
            except IntegrityError:
                pass


@pytest.mark.parametrize("segment", [COD, COD + bytes(4), QCD, QCD + b"\x20\x88", TLM, TLM + b"\x00", b"\xff\x58"])
def test_a_segment_too_short_or_twice_is_no_crash(segment: bytes) -> None:
    data = with_segment(htj2k.encode(ramp(40, 50, 12)), segment)
    assert htj2k.fault(data, 40, 50, [1]) is not None
    for level in (1, 5):
        try:
            htj2k.standalone(data, level)
        except IntegrityError:
            pass


def hollow(length: int, tile: int = 0, decompositions: int = 5) -> bytes:
    """A main header and, for each resolution, a tile-part of this length that holds nothing."""
    head = bytearray(htj2k.encode(ramp(40, 50, 12)))
    head = head[: head.index(SOT)]
    head[head.index(COD) + 9] = decompositions
    part = SOT + bytes.fromhex("000a") + tile.to_bytes(2, "big") + length.to_bytes(4, "big") + b"\x00\x01"
    return bytes(head) + (part + bytes.fromhex("ff93") + bytes(20))[:length] * (decompositions + 1) + b"\xff\xd9"


def test_a_tile_part_has_at_least_its_two_markers() -> None:
    data = hollow(14, tile=1)  # whose number is not part of its length
    assert htj2k.prefixes(data) == [len(data), *(len(data) - 2 - 14 * lost for lost in range(1, 6))]
    with pytest.raises(IntegrityError, match="0 of 6 tile-parts are whole"):
        htj2k.prefixes(hollow(13))


def test_a_tile_part_that_claims_16_mebibytes_more_is_not_whole() -> None:
    data = bytearray(htj2k.encode(ramp(40, 50, 12)))
    data[data.index(SOT) + 6] = 1
    with pytest.raises(IntegrityError, match="0 of 6 tile-parts are whole"):
        htj2k.prefixes(bytes(data))


def test_a_stream_has_as_many_levels_as_jpeg_2000_allows_and_no_more() -> None:
    assert len(htj2k.prefixes(hollow(14, decompositions=32))) == 33
    with pytest.raises(IntegrityError, match=r"^not an HTJ2K stream: its main header is damaged$"):
        htj2k.prefixes(hollow(14, decompositions=33))


@pytest.mark.parametrize("level", [0, 1])
def test_a_stream_that_the_decoder_refuses_is_no_image(level: int) -> None:
    data = bytearray(htj2k.encode(ramp(40, 50, 12)))
    data[data.index(QCD) + 4] = 0x47  # quantised, though the wavelet is reversible
    with pytest.raises(IntegrityError, match="not a decodable HTJ2K stream"):
        htj2k.decode(bytes(data), level)


@pytest.mark.parametrize("length", range(2, 41))
def test_a_size_segment_cut_short_is_a_damaged_header(length: int) -> None:
    plain = htj2k.encode(ramp(40, 50, 12))
    siz = plain[2:4] + length.to_bytes(2, "big") + plain[6 : 4 + length]
    data = plain[:2] + siz + plain[45:]
    if length < 39:  # up to and with the depth, which a level changes
        with pytest.raises(IntegrityError, match="main header is damaged"):
            htj2k.prefixes(data)
    with pytest.raises(IntegrityError):
        htj2k.check(data, Placement(40, 50, 40, 50))


def test_a_small_level_is_the_same_with_and_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = np.kron(np.random.default_rng(0).integers(0, 2, (33, 41)), np.ones((3, 5))).astype(np.uint16) * 4095
    prefix = htj2k.encode(steps)[: htj2k.prefixes(htj2k.encode(steps))[1]]
    monkeypatch.delitem(sys.modules, "shardkit.kernels", raising=False)
    without = htj2k.decode(prefix, 1, 12)
    assert "shardkit.kernels" not in sys.modules
    assert without.dtype == np.uint16
    assert without.max() == 4095  # the band overshoots here
    import shardkit.kernels  # noqa: F401 - for the other way

    np.testing.assert_array_equal(htj2k.decode(prefix, 1, 12), without)
    unclamped = htj2k.decode(prefix, 1, 16)
    assert unclamped.max() > 4095
