"""Lossless JPEG: every feature of the standard decodes exactly, and damage is noticed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.errors import Quarantined
from shardkit.sources.dicom import lossless_jpeg, streams
from shardkit.synthetic.lossless_jpeg import encode
from shardkit.synthetic.radiographs import radiograph


def picture(precision: int) -> npt.NDArray[np.int_]:
    """A hand with four rows of noise over it, so that differences of any size occur."""
    rng = np.random.default_rng(precision)
    image = radiograph(40, 33, max(8, precision), rng, "hand").astype(int) >> max(0, 8 - precision)
    image[5:9] = rng.integers(0, 1 << precision, (4, 33))
    return image


def decode(stream: bytes) -> npt.NDArray[np.uint16]:
    return lossless_jpeg.decode(stream, streams.jpeg(stream))[0]


@pytest.mark.parametrize("restart_rows", [0, 1, 7])
@pytest.mark.parametrize("predictor", range(1, 8))
@pytest.mark.parametrize("precision", [2, 8, 10, 12, 16])
def test_every_predictor_depth_and_restart_interval_decodes_exactly(
    precision: int, predictor: int, restart_rows: int
) -> None:
    image = picture(precision)
    stream = encode(image, precision, predictor=predictor, restart_rows=restart_rows)
    np.testing.assert_array_equal(decode(stream), image)


@pytest.mark.parametrize("predictor", [1, 4, 7])
@pytest.mark.parametrize(("precision", "shift"), [(8, 3), (12, 1), (16, 2), (16, 4)])
def test_a_point_transform_gives_the_values_back_at_their_scale(precision: int, shift: int, predictor: int) -> None:
    image = picture(precision)
    got = decode(encode(image, precision, predictor=predictor, point_transform=shift))
    np.testing.assert_array_equal(got, image >> shift << shift)


@pytest.mark.parametrize("predictor", [1, 2, 3, 4])
@pytest.mark.parametrize("precision", [8, 10, 12])
def test_differences_modulo_the_precision_give_values_within_it(precision: int, predictor: int) -> None:
    image = picture(precision)
    stream = encode(image, precision, predictor=predictor, modulus=1 << precision)
    got, repairs = lossless_jpeg.decode(stream, streams.jpeg(stream))
    np.testing.assert_array_equal(got, image)
    assert repairs == ("jpeg_modulo",)


@pytest.mark.parametrize("predictor", [5, 6, 7])
def test_where_that_modulus_cannot_be_undone_the_stream_is_refused(predictor: int) -> None:
    with pytest.raises(Quarantined, match="precision"):
        decode(encode(picture(10), 10, predictor=predictor, modulus=1 << 10))


def damages(stream: bytes, rng: np.random.Generator) -> dict[str, bytes]:
    start = streams.jpeg(stream).scans[0].start
    at = int(rng.integers(start + 10, len(stream) - 60))
    return {
        "hole": stream[:at] + bytes(40) + stream[at + 40 :],
        "small hole": stream[:at] + bytes(8) + stream[at + 8 :],
        "cut, then closed": stream[:at] + b"\xff\xd9",
        "byte lost": stream[:at] + stream[at + 1 :],
        "block moved": stream[:at] + stream[at + 20 : at + 40] + stream[at : at + 20] + stream[at + 40 :],
    }


def test_damage_is_noticed_unless_the_damaged_bits_are_exactly_the_code_of_what_was_decoded() -> None:
    image = picture(12)
    stream = encode(image, 12)
    noticed = dict.fromkeys(damages(stream, np.random.default_rng(0)), 0)
    for seed in range(60):
        for kind, data in damages(stream, np.random.default_rng(seed)).items():
            try:
                got, repairs = lossless_jpeg.decode(data, streams.jpeg(data))
            except Quarantined as verdict:
                assert verdict.reason == "decode_error"  # noqa: PT017
                noticed[kind] += 1
            else:
                assert repairs or encode(got, 12) == data, kind
    assert noticed.pop("byte lost") >= 30  # eight bits fewer may well be a shorter code
    assert all(count >= 55 for count in noticed.values()), noticed


@pytest.mark.parametrize("tail", [b"", b"\0", bytes(512), b"\xff\xd8\xff\xd9"])
def test_what_follows_the_end_marker_is_no_part_of_the_stream(tail: bytes) -> None:
    image = picture(12)
    np.testing.assert_array_equal(decode(encode(image, 12) + tail), image)


def test_padding_words_at_the_end_of_the_coded_data_are_allowed() -> None:
    image = picture(12)
    stream = encode(image, 12)
    np.testing.assert_array_equal(decode(stream[:-2] + bytes(3) + stream[-2:]), image)


def test_a_restart_inside_a_row_is_named() -> None:
    stream = bytearray(encode(picture(12), 12, restart_rows=2))
    at = stream.index(b"\xff\xdd") + 4
    stream[at : at + 2] = (34).to_bytes(2, "big")
    with pytest.raises(Quarantined, match="restarts inside a row"):
        decode(bytes(stream))


def test_differences_that_its_precision_cannot_have_are_damage() -> None:
    stream = bytearray(encode(picture(16), 16))
    stream[streams.jpeg(bytes(stream)).precision_at] = 7
    with pytest.raises(Quarantined, match="damaged"):
        decode(bytes(stream))
