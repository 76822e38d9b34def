"""Codecs: lossless for every shape and depth, prefixes that are smaller images, and bad bytes that raise."""

from __future__ import annotations

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.codecs import CODECS, blosc, codec, htj2k, png, raw
from shardkit.codecs.placement import Placement
from shardkit.errors import ArgumentError, IntegrityError
from shardkit.formats.webdataset import ShardWriter, members

Pixels = npt.NDArray[np.uint16]
PROPERTY = settings(max_examples=60, deadline=None, derandomize=True, database=None)
shapes = st.tuples(st.integers(1, 150), st.integers(1, 150))


def picture(shape: tuple[int, int], bits: int, seed: int) -> Pixels:
    """Noise, a gradient or a checkerboard of the extremes, by the seed."""
    rng = np.random.default_rng(seed)
    rows, cols = np.indices(shape)
    if seed % 3 == 0:
        return rng.integers(0, 1 << bits, shape).astype(np.uint16)
    if seed % 3 == 1:
        return ((rows * 37 + cols * 11) % (1 << bits)).astype(np.uint16)
    return (((rows // (1 + seed % 4) + cols) % 2) * ((1 << bits) - 1)).astype(np.uint16)


@PROPERTY
@given(name=st.sampled_from(sorted(CODECS)), shape=shapes, bits=st.integers(1, 16), seed=st.integers(0, 2**20))
def test_every_codec_gives_back_what_it_was_given(name: str, shape: tuple[int, int], bits: int, seed: int) -> None:
    module = codec(name)
    pixels = picture(shape, bits, seed)
    placement = Placement(*shape, shape[0] + seed % 5, shape[1] + seed % 7)
    data = module.encode(pixels, placement)
    got = module.decode(data, 0, bits, placement)
    assert isinstance(data, bytes)
    assert got.dtype == np.uint16
    np.testing.assert_array_equal(got, pixels)
    assert module.prefixes(data)[0] == len(data)
    assert module.encode(pixels.copy(), placement) == data


@pytest.mark.parametrize("name", CODECS)
def test_a_view_with_strides_is_encoded_like_its_copy(name: str) -> None:
    pixels = picture((60, 80), 12, 3)[::2, ::-1]
    module = codec(name)
    placement = Placement(30, 80, 30, 80)
    np.testing.assert_array_equal(module.decode(module.encode(pixels, placement), 0, 12, placement), pixels)


def test_an_unknown_codec_is_an_argument_error() -> None:
    with pytest.raises(ArgumentError):
        codec("nonsense")


@PROPERTY
@given(shape=shapes, bits=st.integers(2, 16), seed=st.integers(0, 2**20), level=st.integers(1, 5))
def test_the_prefix_alone_decodes_like_the_whole_stream_and_like_openjpeg(
    shape: tuple[int, int], bits: int, seed: int, level: int
) -> None:
    data = htj2k.encode(picture(shape, bits, seed))
    lengths = htj2k.prefixes(data)
    prefix = data[: lengths[level]]
    got = htj2k.decode(prefix, level, bits)
    assert got.shape == tuple(-(-side >> level) for side in shape)
    np.testing.assert_array_equal(got, htj2k.decode(data, level, bits))
    reference = np.minimum(imagecodecs.jpeg2k_decode(htj2k.standalone(prefix, level)), (1 << bits) - 1)
    np.testing.assert_array_equal(got, reference.reshape(got.shape))
    assert int(got.max()) < 1 << bits


def test_level_zero_of_standalone_is_the_stream_itself() -> None:
    data = htj2k.encode(picture((30, 40), 12, 1))
    assert htj2k.standalone(data, 0) == data


def test_the_stream_states_16_bits_and_one_tile_part_a_level() -> None:
    data = htj2k.encode(picture((100, 90), 8, 0))
    assert data[42] == 15  # Ssiz: 16 bits, unsigned
    assert data.count(b"\xff\x90\x00\x0a") == 6


@PROPERTY
@given(level=st.integers(1, 5), short=st.integers(1, 4000), seed=st.integers(0, 99))
def test_a_prefix_cut_short_raises(level: int, short: int, seed: int) -> None:
    data = htj2k.encode(picture((90, 120), 12, seed))
    prefix = data[: htj2k.prefixes(data)[level]]
    with pytest.raises(IntegrityError):
        htj2k.decode(prefix[: max(0, len(prefix) - short)], level)


@pytest.mark.parametrize("share", [0.9, 0.99])
def test_a_whole_stream_cut_short_raises(share: float) -> None:
    data = htj2k.encode(picture((300, 400), 12, 1))
    with pytest.raises(IntegrityError):
        htj2k.decode(data[: int(share * len(data))])


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(
    name=st.sampled_from(["htj2k", "raw"]), data=st.binary(max_size=300), head=st.booleans(), level=st.integers(0, 5)
)
def test_garbage_raises_integrity_errors_only(name: str, data: bytes, head: bool, level: int) -> None:
    module = codec(name)
    start = module.encode(picture((8, 8), 12, 0))[:8] if head else b""
    with pytest.raises(IntegrityError):
        module.decode(start + data, level if module is htj2k else 0)


@pytest.mark.parametrize("module", [htj2k, png, raw])
def test_nothing_is_no_image(module: object) -> None:
    with pytest.raises(IntegrityError):
        module.decode(b"")  # type: ignore[attr-defined]


def test_a_zip_in_place_of_an_npy_member_raises_an_integrity_error() -> None:
    with pytest.raises(IntegrityError):
        raw.decode(b"PK\x03\x04" + bytes(60))


@pytest.mark.parametrize("damage", [b"", b"x" * 60, "cut", "other"])
def test_a_chunk_that_is_none_of_its_bin_raises_an_integrity_error(damage: bytes | str) -> None:
    placement = Placement(50, 40, 64, 48)
    data = blosc.encode(picture((50, 40), 12, 0), placement)
    damaged = {"cut": data[: len(data) // 2], "other": blosc.encode(picture((50, 40), 12, 0))}
    data = damaged[damage] if isinstance(damage, str) else damage
    with pytest.raises(IntegrityError):
        blosc.decode(data, 0, 12, placement)


def test_a_chunk_is_the_image_and_background_right_and_below() -> None:
    placement = Placement(50, 40, 64, 48)
    pixels = picture((50, 40), 12, 0)
    whole = blosc.decode(blosc.encode(pixels, placement), 0, 12, Placement(64, 48, 64, 48))
    np.testing.assert_array_equal(whole, np.pad(pixels, ((0, 14), (0, 8))))
    with pytest.raises(ArgumentError, match="placement"):
        blosc.decode(blosc.encode(pixels, placement))


@pytest.mark.parametrize("level", [6, 7, 40])
def test_a_level_the_stream_does_not_hold_raises(level: int) -> None:
    with pytest.raises(IntegrityError):
        htj2k.decode(htj2k.encode(picture((64, 64), 12, 0)), level)


@pytest.mark.parametrize("module", [png, raw])
def test_codecs_without_levels_say_so(module: object) -> None:
    data = module.encode(picture((9, 9), 12, 0))  # type: ignore[attr-defined]
    assert module.prefixes(data) == [len(data)]  # type: ignore[attr-defined]
    with pytest.raises(ArgumentError):
        module.decode(data, 1)  # type: ignore[attr-defined]


def test_the_first_bytes_of_a_shards_member_are_the_smaller_image(tmp_path: object) -> None:
    path = tmp_path / "00000.tar"  # type: ignore[operator]
    images = [picture((100 + 7 * k, 90), 12, k) for k in range(3)]
    streams = [htj2k.encode(image) for image in images]
    with ShardWriter(path) as writer:
        offsets = [writer.add(f"k{k}", "j2c", stream, b"{}") for k, stream in enumerate(streams)]
    shard = path.read_bytes()
    with path.open("rb") as file:
        assert [m.offset for m in members(file, "x") if m.name.endswith("j2c")] == offsets
    for image, stream, offset in zip(images, streams, offsets, strict=True):
        for level, length in enumerate(htj2k.prefixes(stream)):
            part = shard[offset : offset + length]
            assert part == stream[:length]
            np.testing.assert_array_equal(htj2k.decode(part, level, 12), htj2k.decode(stream, level, 12))
        np.testing.assert_array_equal(htj2k.decode(shard[offset : offset + len(stream)]), image)
