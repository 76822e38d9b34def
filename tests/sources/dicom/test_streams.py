"""Markers: a stream's own claims are read by walking it, and a marker's bytes elsewhere are none."""

from __future__ import annotations

from typing import Any

import imagecodecs
import numpy as np
import pydicom.uid as uids
import pytest

from shardkit.errors import Quarantined
from shardkit.sources.dicom import streams
from shardkit.synthetic import lossless_jpeg, records
from shardkit.synthetic.radiographs import radiograph

HAND = radiograph(96, 80, 12, np.random.default_rng(1), "hand")
ENCODERS: dict[str, Any] = {
    "baseline": lambda: imagecodecs.jpeg8_encode((HAND >> 4).astype(np.uint8), level=90),
    "extended": lambda: imagecodecs.jpeg8_encode(HAND, level=90, bitspersample=12),
    "lossless": lambda: lossless_jpeg.encode(HAND, 12, restart_rows=5),
    "ls": lambda: imagecodecs.jpegls_encode(HAND),
    "near ls": lambda: imagecodecs.jpegls_encode(HAND, level=2),
    "j2k": lambda: imagecodecs.jpeg2k_encode(HAND, reversible=True, codecformat="j2k"),
    "lossy j2k": lambda: imagecodecs.jpeg2k_encode(HAND, level=40, reversible=False, codecformat="j2k"),
    "jp2": lambda: imagecodecs.jpeg2k_encode(HAND, reversible=True, codecformat="jp2"),
    "htj2k": lambda: imagecodecs.htj2k_encode(HAND, reversible=True),
    "lossy htj2k": lambda: imagecodecs.htj2k_encode(HAND, reversible=False),
}
JPEGS = ("baseline", "extended", "lossless", "ls", "near ls")


def walk(stream: bytes) -> Any:
    return streams.jpeg(stream) if stream.startswith(streams.SOI) else streams.codestream(stream)


@pytest.mark.parametrize("kind", ENCODERS)
def test_size_and_precision_are_the_encoders(kind: str) -> None:
    found = walk(bytes(ENCODERS[kind]()))
    assert (found.rows, found.cols, found.components) == (96, 80, 1)
    assert found.precision in {"baseline": (8,), "ls": (12, 16), "near ls": (12, 16)}.get(kind, (12, 16))
    if kind not in JPEGS:
        assert found.reversible == ("lossy" not in kind)
        assert found.high_throughput == ("htj2k" in kind)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize("tail", [b"", b"\0", bytes(700), b"\xff\xd9" * 9])
def test_the_end_of_a_jpeg_is_its_own_marker_whatever_follows(kind: str, tail: bytes) -> None:
    stream = bytes(ENCODERS[kind]())
    assert streams.jpeg(stream + tail).end == len(stream.rstrip(b"\0"))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_without_its_end_marker_is_cut_short_wherever_it_ends(kind: str) -> None:
    stream = bytes(ENCODERS[kind]())
    for end in np.linspace(3, len(stream) - 2, 200).astype(int):
        with pytest.raises(Quarantined) as caught:
            streams.jpeg(stream[:end])
        assert caught.value.reason == "decode_error"


@pytest.mark.parametrize("kind", ["j2k", "htj2k"])
@pytest.mark.parametrize("text", [b"\xff\x90", b"\xff\x90\xff\xd9\xff\x93" * 3, b"\xff\x52" + bytes(12)])
def test_markers_inside_a_comment_are_none(judge: Any, image_spec: Any, kind: str, text: bytes) -> None:
    """The comment stands behind SIZ, where the standard allows it."""
    syntax = uids.JPEG2000Lossless if kind == "j2k" else uids.HTJ2KLossless
    spec = image_spec()
    picture = records.radiograph_of(spec)
    if kind == "htj2k":
        plain = bytes(imagecodecs.htj2k_encode(picture, reversible=True))
    else:
        plain = bytes(imagecodecs.jpeg2k_encode(picture, reversible=True, codecformat="j2k"))
    at = 4 + int.from_bytes(plain[4:6], "big")
    comment = b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\0\0" + text
    hashes = []
    for stream in (plain, plain[:at] + comment + plain[at:]):
        dataset = records.header(spec)
        records.set_meta(dataset, str(syntax))
        records.set_stream(dataset, stream)
        outcome = judge(records.to_bytes(dataset))
        assert outcome.verdict == "written", outcome.message
        hashes.append(outcome.converted.facts["pixel_hash"])
        assert outcome.converted.facts["lossy"] is False
        assert outcome.converted.repairs == ()
    assert hashes[0] == hashes[1]


def test_intervals_lie_between_the_restart_markers() -> None:
    image = np.random.default_rng(0).integers(0, 65536, (30, 20))
    stream = lossless_jpeg.encode(image, 16, restart_rows=4)
    (scan,) = streams.jpeg(stream).scans
    start = scan.start
    for number, interval in enumerate(scan.intervals):
        end = stream.index(bytes((0xFF, 0xD0 + number % 8)), start) if number < 7 else len(stream) - 2
        assert interval == (start, end)
        start = end + 2
    assert len(scan.intervals) == 8
    assert b"\xff\0" in stream[scan.start :]


def test_a_stream_that_claims_more_than_a_dicom_image_can_have_is_damaged() -> None:
    stream = bytearray(ENCODERS["j2k"]())
    stream[8:12] = b"\xff\xff\xff\xff"
    with pytest.raises(Quarantined) as caught:
        streams.codestream(bytes(stream))
    assert caught.value.reason == "decode_error"
