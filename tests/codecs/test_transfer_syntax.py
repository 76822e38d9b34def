"""Streams are the DICOM transfer syntax HTJ2K Lossless RPCL: wrapped as they are, readers of DICOM give the pixels."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import ComputedRadiographyImageStorage, HTJ2KLosslessRPCL, generate_uid

from shardkit.codecs import htj2k
from shardkit.dataset import contents
from shardkit.dataset.hashes import pixel_hash
from shardkit.storage import Store

Pixels = npt.NDArray[np.uint16]


def wrapped(stream: bytes, height: int, width: int) -> bytes:
    """A DICOM file whose only fragment is the stream, which says 16 bits whatever the depth of its image."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = HTJ2KLosslessRPCL
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[f"{height} {width}"])
    ds = FileDataset("wrapped.dcm", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = height, width, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].is_undefined_length = True
    out = BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def read_back(file: bytes) -> tuple[Pixels, Pixels]:
    """By pydicom with OpenJPEG, and the fragment by OpenJPH."""
    ds = dcmread(BytesIO(file))
    assert ds.file_meta.TransferSyntaxUID == htj2k.TRANSFER_SYNTAX == "1.2.840.10008.1.2.4.202"
    fragment = get_frame(ds.PixelData, 0, number_of_frames=1)
    return ds.pixel_array, np.asarray(imagecodecs.htj2k_decode(fragment))


def lowest(stream: bytes) -> tuple[int, int]:
    """Sides of the lowest resolution, after a look at the header's fixed places: SIZ, CAP, COD with RPCL, and a TLM."""
    assert stream[2:4] + stream[45:47] + stream[55:57] == bytes.fromhex("ff51 ff50 ff52")
    assert stream[60] == 2
    assert bytes.fromhex("ff55") in stream[69 : stream.index(bytes.fromhex("ff90000a"))]
    width, height = (int.from_bytes(stream[at : at + 4], "big") for at in (8, 12))
    return -(-height >> stream[64]), -(-width >> stream[64])


@pytest.mark.parametrize(
    ("height", "width", "bits"),
    [
        (64, 64, 8), (65, 64, 12), (64, 5000, 10), (1000, 777, 16), (2047, 2048, 12), (2048, 2048, 16), (2048, 5000, 8),
        (2049, 2049, 10), (2049, 2500, 16), (5000, 2049, 15), (4664, 3064, 12), (4097, 4100, 14),
    ],
)  # fmt: skip
def test_pydicom_and_openjph_read_a_wrapped_image_exactly(height: int, width: int, bits: int) -> None:
    pixels = np.random.default_rng(height + width).integers(0, 1 << bits, (height, width)).astype(np.uint16)
    stream = htj2k.encode(pixels)
    assert min(lowest(stream)) <= 64
    for seen in read_back(wrapped(stream, height, width)):
        np.testing.assert_array_equal(seen, pixels)


def test_samples_of_a_dataset_that_claims_the_syntax_are_read_exactly(large_and_small: Path) -> None:
    store = Store(str(large_and_small))
    assert contents.description(store).transfer_syntax == HTJ2KLosslessRPCL
    rows = contents.samples(store).to_pylist()
    sides = [min(row["height"], row["width"]) for row in rows]
    assert min(sides) == 64
    assert sum(side > 2048 for side in sides) == 2
    assert {row["bits"] for row in rows} >= {8, 12, 15}
    for row in rows:
        stream = store.get_range(row["shard"], row["offset"], row["length"])
        assert min(lowest(stream)) <= 64
        for seen in read_back(wrapped(stream, row["height"], row["width"])):
            assert pixel_hash(seen.astype(np.uint16), row["bits"]) == row["pixel_hash"], row["key"]
