"""What is damaged: sound small files of every transfer syntax, and the small real ones where they are at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pydicom.uid as uids
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import UID

from shardkit.synthetic.phantom.anatomy import REGION_DRAWERS
from shardkit.synthetic.radiographs import radiograph
from tools.fuzz.encoders import NATIVE, Layout, Values, encode

Depths = tuple[tuple[int, bool], ...]
_ANY: Depths = ((8, False), (10, False), (12, False), (12, True), (14, False), (16, False), (16, True))
_WIDE: Depths = tuple(depth for depth in _ANY if depth[0] > 8)

SYNTAXES: dict[str, tuple[UID, Depths]] = {
    "implicit": (uids.ImplicitVRLittleEndian, _ANY),
    "explicit": (uids.ExplicitVRLittleEndian, _ANY),
    "big endian": (uids.ExplicitVRBigEndian, _ANY),
    "deflated": (uids.DeflatedExplicitVRLittleEndian, _ANY),
    "RLE": (uids.RLELossless, _ANY),
    "JPEG baseline": (uids.JPEGBaseline8Bit, ((8, False),)),
    "JPEG extended": (uids.JPEGExtended12Bit, ((12, False),)),
    "JPEG lossless": (uids.JPEGLossless, _ANY),
    "JPEG lossless SV1": (uids.JPEGLosslessSV1, _ANY),
    "JPEG-LS": (uids.JPEGLSLossless, _ANY),
    "JPEG-LS near": (uids.JPEGLSNearLossless, _ANY),
    "J2K lossless": (uids.JPEG2000Lossless, _ANY),
    "J2K": (uids.JPEG2000, _ANY),
    "HTJ2K lossless": (uids.HTJ2KLossless, _ANY),
    "HTJ2K RPCL": (uids.HTJ2KLosslessRPCL, _ANY),
    "HTJ2K": (uids.HTJ2K, _ANY),
}
"""Label in the figures -> (UID, the (bits stored, signed) that its sound files have)."""

POOL = 16 * len(SYNTAXES)
"""Number of different synthetic files."""
_LARGEST_REAL = 640 << 10  # bytes and pixels: thousands of mutants take minutes
_SIDE = 160


@dataclass(frozen=True, slots=True)
class Seed:
    """A sound file, taken apart.

    Attributes
    ----------
    codec, name
        Its codec, and what it is, for people.
    dataset
        All but the pixel data.
    pixels
        The native value, or the frame's compressed stream.
    """

    codec: str
    name: str
    dataset: Dataset
    pixels: bytes

    @property
    def syntax(self) -> str:
        """UID of its transfer syntax."""
        return str(self.dataset.file_meta.TransferSyntaxUID)

    @property
    def native(self) -> bool:
        """Whether its pixels are not compressed."""
        return self.syntax in NATIVE


@functools.cache
def synthetic(number: int) -> Seed:
    """Make a sound file of the pool: sides of 80 to 160 pixels, of any depth and sense that its syntax knows."""
    codec = list(SYNTAXES)[number % len(SYNTAXES)]
    syntax, depths = SYNTAXES[codec]
    rng = np.random.default_rng((20, number))
    bits, signed = depths[(number // len(SYNTAXES)) % len(depths)]
    layout = Layout(8 if bits == 8 else 16, bits, signed)
    region = list(REGION_DRAWERS)[number // 3 % len(REGION_DRAWERS)]
    values = _cropped(_picture(region), rng) >> (16 - bits)
    rows, cols = values.shape
    ds = _header(layout, rows, cols, number)
    if rng.random() < 0.35:
        ds.PhotometricInterpretation = "MONOCHROME1"
        values = (1 << bits) - 1 - values
    if signed:
        values -= 1 << (bits - 1)
    if rng.random() < 0.3:
        values = _padded(ds, values, layout, rng)
    if rng.random() < 0.1:
        ds.RescaleSlope, ds.RescaleIntercept = "-1", str((1 << bits) - 1)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = syntax
    name = f"{codec} {'s' if signed else 'u'}{bits} {ds.PhotometricInterpretation} {rows}x{cols} {region}"
    return Seed(codec, name, ds, encode(values, layout, str(syntax), rng))


@functools.cache
def _picture(region: str) -> Values:
    """Draw a radiograph of 16 bits: files share it, because drawing one takes longer than all else."""
    return radiograph(_SIDE, _SIDE, 16, np.random.default_rng(5), region).astype(np.int64)


def _cropped(picture: Values, rng: np.random.Generator) -> Values:
    """Crop most of a picture, turned over or not, so that no two files have the same pixels."""
    rows, cols = (int(side) for side in rng.integers(_SIDE // 2, _SIDE, 2))
    top, left = int(rng.integers(_SIDE - rows)), int(rng.integers(_SIDE - cols))
    return picture[top : top + rows, left : left + cols][:: int(rng.choice([1, -1])), :: int(rng.choice([1, -1]))]


def _header(layout: Layout, rows: int, cols: int, number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID = uids.DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = (f"1.2.826.9.{k}.{number}" for k in (1, 2, 3))
    ds.Modality, ds.PatientID, ds.PatientName = "DX", f"FUZZ{number}", "FUZZ"
    ds.BodyPartExamined, ds.ViewPosition, ds.PresentationIntentType = "HAND", "PA", "FOR PRESENTATION"
    ds.ImageComments = "filler text, so that some flips hit what matters little"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = rows, cols
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = layout.allocated, layout.bits, layout.bits - 1
    ds.PixelRepresentation = int(layout.signed)
    ds.WindowCenter, ds.WindowWidth = str(1 << (layout.bits - 1)), str(1 << layout.bits)
    return ds


def _padded(ds: Dataset, values: Values, layout: Layout, rng: np.random.Generator) -> Values:
    """Draw a border of padding, its value the least or the greatest that there is."""
    low = -(1 << (layout.bits - 1)) if layout.signed else 0
    padding = low if rng.random() < 0.7 else low + (1 << layout.bits) - 1
    ds.add_new(0x00280120, "SS" if layout.signed else "US", padding)
    out = values.copy()
    out[:, : int(rng.integers(2, 12))] = padding
    return out


@functools.cache
def real(folder: Path) -> tuple[Callable[[], Seed], ...]:
    """Find the small real images below `folder` that the build has a decoder for; each is opened when asked for."""
    by_uid = {str(uid): name for name, (uid, _) in SYNTAXES.items()}
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not 0 < path.stat().st_size <= _LARGEST_REAL:
            continue
        try:
            ds = pydicom.dcmread(path)
            codec = by_uid[str(ds.file_meta.TransferSyntaxUID)]
            if int(ds.Rows) * int(ds.Columns) > _LARGEST_REAL or ds.SamplesPerPixel != 1 or "PixelData" not in ds:
                continue
            data = ds.PixelData
            pixels = bytes(
                data if ds.file_meta.TransferSyntaxUID in NATIVE else next(generate_frames(data, number_of_frames=1))
            )
        except Exception:  # what pydicom cannot take apart is hostile already, and other tests have it
            continue
        found.append(functools.partial(_real_seed, codec, f"{codec} real {path.relative_to(folder)}", path, pixels))
    return tuple(found)


def _real_seed(codec: str, name: str, path: Path, pixels: bytes) -> Seed:
    ds = pydicom.dcmread(BytesIO(path.read_bytes()), stop_before_pixels=True)
    return Seed(codec, name, ds, pixels)
