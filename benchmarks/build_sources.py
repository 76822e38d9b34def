"""What the build benchmark can take its images from: a table, a kind of files a row.

A kind says how its files are made from a synthetic export, and what else the command needs to read them. The programs
tell files apart by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["dicom", "png"]
PNG = ".png"


@dataclass(frozen=True)
class Source:
    """A kind of files.

    Attributes
    ----------
    words : str
        What it is.
    options : tuple of str
        Of the command, to read it.
    make : callable
        (synthetic export, empty folder) -> the folder to build from.
    """

    words: str
    options: tuple[str, ...]
    make: Callable[[Path, Path], Path]


def _same(export: Path, _: Path) -> Path:
    return export


def _pngs(export: Path, folder: Path) -> Path:
    """Write every image of an export that decodes as PNG, of 8 or 16 bits, as Pillow writes it."""
    from PIL import Image

    from shardkit.errors import Verdict
    from shardkit.sources import image_source

    source = image_source(str(export))
    for number, entry in enumerate(one for one in source.list() if one.kind == "file"):
        try:
            found = source.load(entry, source.read(entry)).decode("full")
        except Verdict:
            continue
        pixels = found.pixels.astype(np.uint8) if found.bits <= 8 else found.pixels
        Image.fromarray(pixels).save(folder / f"{number:06d}{PNG}")
    return folder


SOURCES: dict[Kind, Source] = {
    "dicom": Source("synthetic DICOM", (), _same),
    "png": Source("PNG files of synthetic radiographs", ("--image-files",), _pngs),
}


def with_pillow(path: str) -> npt.NDArray[np.uint16]:
    """Return the image in a PNG file."""
    from PIL import Image

    with Image.open(path) as file:
        pixels: npt.NDArray[np.uint16] = np.asarray(file).astype(np.uint16)
    return pixels


def as_scripts_do(path: str) -> Any:
    """Return the pixels of a file as the script that everyone writes has them."""
    if path.endswith(PNG):
        return with_pillow(path)
    import pydicom

    dataset = pydicom.dcmread(path)
    pixels = dataset.pixel_array
    return pixels.max() - pixels if dataset.PhotometricInterpretation == "MONOCHROME1" else pixels
