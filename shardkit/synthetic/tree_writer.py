"""Writes small trees of image files and tables, as public collections have them: pictures are phantoms."""

import io
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from shardkit.synthetic.radiographs import radiograph

Cells = Sequence[object]
_SIDES = (112, 96)


class TreeWriter:
    """Writes files below a folder.

    Parameters
    ----------
    folder : Path
        Where to.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, name: str, data: bytes | str) -> None:
        """Write a file."""
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)

    def table(self, name: str, header: str, rows: Iterable[Cells]) -> None:
        """Write a CSV table; cells are written as they are, None as nothing."""
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
        text = "\n".join([*([header] if header else []), *lines]) + "\n"
        self.put(name, _gzipped(text.encode()) if name.endswith(".gz") else text)

    def png(self, name: str, bits: int = 8, region: str = "chest", share: float = 1.0) -> None:
        """Write a grey PNG file, of 16 bits where `bits` are more than 8, or the first `share` of its bytes."""
        data = _encoded(Image.fromarray(_picture(name, bits, region)), "PNG")
        self.put(name, data[: int(share * len(data))])

    def rgba(self, name: str) -> None:
        """Write a grey image as four channels, the last opaque."""
        grey = _picture(name, 8, "chest")
        self.put(name, _encoded(Image.fromarray(np.stack([grey, grey, grey, np.full_like(grey, 255)], -1)), "PNG"))

    def jpeg(self, name: str, region: str = "chest", share: float = 1.0) -> None:
        """Write a JPEG file, or the first `share` of its bytes."""
        data = _encoded(Image.fromarray(_picture(name, 8, region)), "JPEG")
        self.put(name, data[: int(share * len(data))])

    def volume(self, name: str, slices: int = 6) -> None:
        """Write a NIfTI volume whose first and last slices are empty."""
        values = np.stack([_picture(f"{name}{k}", 12, "skull").astype(np.int16) for k in range(slices)], -1)
        values[..., 0] = values[..., -1] = 0
        make: Any = nibabel.nifti1.Nifti1Image
        image = make(values, np.diag([1.0, 1.0, 1.0, 1.0]))
        self.put(name, _gzipped(image.to_bytes()) if name.endswith(".gz") else image.to_bytes())

    def mask(self, name: str) -> None:
        """Write a black and white PNG file."""
        self.put(
            name, _encoded(Image.fromarray(np.where(_picture(name, 8, "chest") > 99, 255, 0).astype(np.uint8)), "PNG")
        )

    def dicom(self, name: str) -> None:
        """Write a DICOM file that names neither whom it is of nor what made it."""
        ds, values = Dataset(), _picture(name, 12, "chest")
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.Rows, ds.Columns = values.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
        ds.PixelData = values.astype("<u2").tobytes()
        out = io.BytesIO()
        ds.preamble = bytes(128)
        ds.save_as(out, enforce_file_format=False)
        self.put(name, out.getvalue())


def _gzipped(data: bytes) -> bytes:
    """Return gzip's bytes without the time."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


def _picture(name: str, bits: int, region: str) -> npt.NDArray[np.uint8 | np.uint16]:
    values = radiograph(*_SIDES, max(bits, 10), np.random.default_rng(zlib.crc32(name.encode())), region)
    return (values >> 2).astype(np.uint8) if bits == 8 else values


def _encoded(image: Image.Image, form: str) -> bytes:
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()
