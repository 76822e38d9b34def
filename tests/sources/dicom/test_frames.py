"""Frames of a multi-frame file as images: of every encoding, by every kind of offset table, equal to pydicom's."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import imagecodecs
import numpy as np
import pydicom
import pydicom.uid as uid
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.sequence import Sequence

from shardkit.errors import Dropped, Quarantined
from shardkit.sources import image_source
from shardkit.sources.base import Decoded
from shardkit.sources.dicom import reading
from shardkit.sources.entries import Entry
from shardkit.synthetic.radiographs import radiograph
from shardkit.testing.sources import assert_image_source

FRAMES = 4
ENCODERS: dict[str, tuple[str, int, Callable[[Any], bytes | bytearray]]] = {
    "jpeg": (uid.JPEGBaseline8Bit, 8, lambda x: imagecodecs.jpeg8_encode(x, level=90)),
    "lossless": (uid.JPEGLosslessSV1, 12, lambda x: imagecodecs.ljpeg_encode(x, bitspersample=12)),
    "ls": (uid.JPEGLSLossless, 12, imagecodecs.jpegls_encode),
    "j2k": (uid.JPEG2000Lossless, 12, lambda x: imagecodecs.jpeg2k_encode(x, codecformat="j2k", reversible=True)),
    "htj2k": (uid.HTJ2KLosslessRPCL, 12, lambda x: imagecodecs.htj2k_encode(x, reversible=True)),
    "rle": (uid.RLELossless, 12, lambda x: _rle(x)),
}


def _rle(values: Any) -> bytes:
    dataset = _dataset(values[None], 12, uid.ExplicitVRLittleEndian)
    dataset.compress(uid.RLELossless, encoding_plugin="pylibjpeg")
    return bytes(next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1)))


def images(bits: int, rows: int = 66, cols: int = 71) -> Any:
    stack = [radiograph(rows, cols, bits, np.random.default_rng(seed), "chest") for seed in range(FRAMES)]
    return np.stack(stack).astype(np.uint8 if bits == 8 else np.uint16)


def _dataset(stack: Any, bits: int, syntax: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.UID(syntax)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.12.1"
    dataset.SOPInstanceUID, dataset.StudyInstanceUID = "1.2.826.0.1.3680043.8.498.7", "1.2.826.0.1.3680043.8.498.8"
    dataset.PatientID, dataset.Modality = "PID1", "XA"
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = stack.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * stack.dtype.itemsize, bits, bits - 1
    dataset.SamplesPerPixel, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    dataset.PixelData = stack.tobytes()
    dataset["PixelData"].VR = "OB" if stack.dtype.itemsize == 1 else "OW"
    return dataset


def saved(dataset: Dataset) -> bytes:
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def compressed(kind: str, table: str, per_frame: int = 1) -> tuple[bytes, Any]:
    """Return a multi-frame file, and its frames before compression."""
    syntax, bits, encode = ENCODERS[kind]
    stack = images(bits)
    frames = [bytes(encode(frame)) for frame in stack]
    dataset = _dataset(stack, bits, syntax)
    if table == "extended":
        data, offsets, lengths = encapsulate_extended(frames)
        dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    else:
        data = encapsulate(frames, fragments_per_frame=per_frame, has_bot=table == "basic")
    dataset.PixelData = data
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    return saved(dataset), stack


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[[bytes], list[Decoded]]:
    """Bytes of a file -> its frames, as a build sees them."""

    def run(data: bytes) -> list[Decoded]:
        (tmp_path / "x").write_bytes(data)
        source = image_source(str(tmp_path), frames="each")
        found = []
        for entry in source.split(Entry(b"x", len(data), "file")):
            facts, loaded = source.inspect(entry), source.load(entry, source.read(entry))
            assert loaded.facts == facts
            found.append(loaded.decode("full"))
        return found

    return run


def of_pydicom(data: bytes, number: int) -> Any:
    return pydicom.dcmread(io.BytesIO(data)).pixel_array[number]


@pytest.mark.parametrize(
    ("table", "per_frame"), [("basic", 1), ("basic", 2), ("extended", 1), ("none", 1), ("none", 3)]
)
@pytest.mark.parametrize("kind", ENCODERS)
def test_each_frame_of_a_compressed_file_is_pydicoms(decoded: Any, kind: str, table: str, per_frame: int) -> None:
    if kind == "rle" and per_frame > 1:
        per_frame = 1  # PS3.5 A.4.2: a fragment a frame
    data, stack = compressed(kind, table, per_frame)
    frames = decoded(data)
    assert len(frames) == FRAMES
    for number, frame in enumerate(frames):
        if kind == "jpeg":  # decoders of the DCT round differently
            assert np.abs(frame.pixels.astype(int) - of_pydicom(data, number).astype(int)).max() <= 2
        else:
            assert np.array_equal(frame.pixels, stack[number])
            assert np.array_equal(frame.pixels, of_pydicom(data, number))


@pytest.mark.parametrize(
    "syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian]
)
@pytest.mark.parametrize(("bits", "cols"), [(8, 71), (12, 71)])
def test_each_frame_of_an_uncompressed_file_is_pydicoms(decoded: Any, syntax: str, bits: int, cols: int) -> None:
    stack = images(bits, 65, cols)  # an odd number of pixels: frames of 8 bits begin at odd bytes
    data = saved(_dataset(stack, bits, syntax))
    frames = decoded(data)
    assert len(frames) == FRAMES
    for number, frame in enumerate(frames):
        assert np.array_equal(frame.pixels, stack[number])
        assert np.array_equal(frame.pixels, of_pydicom(data, number))


def test_frames_are_dropped_unless_each_is_asked_for(tmp_path: Path) -> None:
    data, _ = compressed("j2k", "basic")
    (tmp_path / "x").write_bytes(data)
    source, entry = image_source(str(tmp_path)), Entry(b"x", len(data), "file")
    assert [*source.split(entry)] == [entry]
    with pytest.raises(Dropped, match=r"multiframe.*--frames each"):
        source.inspect(entry)


def test_a_frame_is_named_by_its_file_and_number_and_shares_its_study(tmp_path: Path) -> None:
    data, _ = compressed("j2k", "basic")
    (tmp_path / "x").write_bytes(data)
    source = image_source(str(tmp_path), frames="each")
    parts = source.split(Entry(b"x", len(data), "file"))
    identities = [source.inspect(part).identity for part in parts]
    assert [one.path for one in parts] == [b"x#000", b"x#001", b"x#002", b"x#003"]
    assert [one.image for one in identities] == [f"1.2.826.0.1.3680043.8.498.7#{n}" for n in range(FRAMES)]
    assert {(one.patient, one.study) for one in identities} == {("PID1", "1.2.826.0.1.3680043.8.498.8")}


def test_a_file_of_one_frame_stays_one_image(tmp_path: Path) -> None:
    stack = images(12)[:1]
    data = saved(_dataset(stack, 12, uid.ExplicitVRLittleEndian))
    (tmp_path / "x").write_bytes(data)
    source, entry = image_source(str(tmp_path), frames="each"), Entry(b"x", len(data), "file")
    assert [*source.split(entry)] == [entry]
    assert source.inspect(entry).identity.image == "1.2.826.0.1.3680043.8.498.7"
    assert np.array_equal(source.load(entry, data).decode("full").pixels, stack[0])


@pytest.mark.parametrize("frames", [FRAMES - 1, FRAMES + 1, 10_000, (1 << 31) - 1])
@pytest.mark.parametrize(("kind", "per_frame"), [("j2k", 1), ("j2k", 2), ("native", 1)])
def test_a_number_of_frames_that_is_not_there_is_quarantined(
    tmp_path: Path, frames: int, kind: str, per_frame: int
) -> None:
    data = (
        saved(_dataset(images(12), 12, uid.ExplicitVRLittleEndian))
        if kind == "native"
        else compressed(kind, "basic", per_frame)[0]
    )
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.NumberOfFrames = frames
    data = saved(dataset)
    (tmp_path / "x").write_bytes(data)
    source, entry = image_source(str(tmp_path), frames="each"), Entry(b"x", len(data), "file")
    parts = source.split(entry)
    if kind == "native" and frames < FRAMES:  # more bytes than it claims: trailing bytes
        assert len(parts) == frames
        return
    assert [*parts] == [entry]
    with pytest.raises(Quarantined):
        source.inspect(entry)


def test_an_offset_table_that_lies_is_quarantined(tmp_path: Path) -> None:
    data, _ = compressed("j2k", "basic", 2)
    at = data.index(b"\xfe\xff\x00\xe0") + 8 + 4  # the second frame's offset
    for offset in (b"\x02\0\0\0", b"\0\0\0\0", b"\xff\xff\xff\xff"):
        damaged = data[:at] + offset + data[at + 4 :]
        (tmp_path / "x").write_bytes(damaged)
        source, entry = image_source(str(tmp_path), frames="each"), Entry(b"x", len(data), "file")
        assert [*source.split(entry)] == [entry]
        with pytest.raises(Quarantined, match="offset table"):
            source.inspect(entry)


@pytest.mark.parametrize("shared", [False, True])
def test_an_enhanced_image_states_the_spacing_of_each_frame(tmp_path: Path, shared: bool) -> None:
    dataset = _dataset(images(12), 12, uid.ExplicitVRLittleEndian)

    def group(row: float, col: float) -> Dataset:
        measures, found = Dataset(), Dataset()
        measures.PixelSpacing = [row, col]
        found.PixelMeasuresSequence = Sequence([measures])
        return found

    if shared:
        dataset.SharedFunctionalGroupsSequence = Sequence([group(0.5, 0.25)])
    else:
        dataset.PerFrameFunctionalGroupsSequence = Sequence([group(0.5, number + 1) for number in range(FRAMES)])
    data = saved(dataset)
    (tmp_path / "x").write_bytes(data)
    source, entry = image_source(str(tmp_path), frames="each"), Entry(b"x", len(data), "file")
    spacing = [source.load(part, data).stated.pixel_spacing for part in source.split(entry)]
    assert spacing == [(0.5, 0.25)] * FRAMES if shared else [(0.5, float(n + 1)) for n in range(FRAMES)]


def test_a_header_is_parsed_once_for_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = compressed("j2k", "basic")
    (tmp_path / "x").write_bytes(data)
    source = image_source(str(tmp_path), frames="each")
    parts = source.split(Entry(b"x", len(data), "file"))
    parse = Mock(wraps=reading.read_header)
    monkeypatch.setattr("shardkit.sources.dicom.source.read_header", parse)
    for part in parts:
        source.inspect(part)
        source.load(part, source.read(part)).decode("full")
    assert parse.call_count == 1


def test_frames_keep_the_contract_of_sources(tmp_path: Path) -> None:
    for kind in ENCODERS:
        (tmp_path / kind).write_bytes(compressed(kind, "basic")[0])
    (tmp_path / "plain").write_bytes(saved(_dataset(images(12), 12, uid.ExplicitVRLittleEndian)))
    assert_image_source(image_source(str(tmp_path), frames="each"), least=FRAMES * (len(ENCODERS) + 1))
