"""Image files as a source: a header is parsed, its claims are compared with the bytes, pixels are made uniform.

Pixels of every format end as those of DICOM do: unsigned, bright values bright, native size, nothing windowed.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, ClassVar

import numpy as np

from shardkit.content import Pixels
from shardkit.errors import Dropped, Quarantined
from shardkit.privacy import Stated
from shardkit.sources.base import Decoded, Frames, Identity, ImageFacts, Invert, LoadedImage, OneImageAFile
from shardkit.sources.entries import Entry
from shardkit.sources.images import nifti, signatures, slices
from shardkit.sources.images.base import Array, Header, ImageFormat, gray
from shardkit.sources.images.depth import Depth, depth


@dataclass(frozen=True)
class ImageFiles(OneImageAFile):
    """PNG, JPEG, TIFF and NIfTI files, as `shardkit.sources.base.ImageSource`.

    Parameters
    ----------
    files : FileTree
        The folder or bucket.
    frames : str
        What to do with a TIFF file of several pages: "drop", or take "each".
    slices : str
        Which slices of a NIfTI volume to take, as ``--slices`` has it.
    """

    KIND: ClassVar[str] = "images"
    frames: Frames = "drop"
    slices: str = "axis=2"

    def split(self, entry: Entry) -> Sequence[Entry]:
        """Return the images of a file: slices of a volume, pages where each is taken, else the file itself.

        Raises
        ------
        Dropped, Quarantined
            Where its header cannot be read.
        """
        with self.opened(entry, again=True) as file:
            return self.split_file(entry, file)

    def inspect(self, entry: Entry) -> ImageFacts:
        """Return what the header of a file tells.

        Raises
        ------
        Dropped, Quarantined
            Where it holds no image that can be decoded.
        """
        with self.opened(entry) as file:
            return self.inspect_file(entry, file)

    def split_file(self, entry: Entry, file: BinaryIO) -> Sequence[Entry]:
        """Do as `split`, of an open file."""
        form, header = self._header(entry, file)
        if header.images > 1 and (form is nifti or self.frames == "each"):
            numbers = slices.parse(self.slices).of(header.images) if form is nifti else range(header.images)
            return tuple(entry.at(number) for number in numbers) or (entry,)
        return (entry,)

    def inspect_file(self, entry: Entry, file: BinaryIO) -> ImageFacts:
        """Do as `inspect`, of an open file."""
        form, header = self._header(entry, file)
        self._require_one(entry, form, header)
        return _facts(entry, header)

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        """Return the image in the whole bytes of a file.

        Raises
        ------
        Dropped, Quarantined
            As `inspect`.
        """
        form, header = self._header(entry, BytesIO(data))
        self._require_one(entry, form, header)
        stated = Stated(
            pixel_spacing=header.spacing,
            slope=None if header.slope is None else (header.slope,),
            intercept=None if header.intercept is None else (header.intercept,),
        )
        bits = None if entry.facts is None else entry.facts.bits
        return LoadedImage(
            _facts(entry, header), stated, functools.partial(_decode, form, data, header, entry.part or 0, bits)
        )

    def _header(self, entry: Entry, file: BinaryIO) -> tuple[ImageFormat, Header]:
        form = signatures.recognised(entry.file, file.read(signatures.START), entry.facts is not None)
        file.seek(0)
        if form is nifti:
            return form, nifti.header(file, entry.size, slices.parse(self.slices).axis)
        return form, form.header(file, entry.size)

    def _require_one(self, entry: Entry, form: ImageFormat, header: Header) -> None:
        """Check that an entry is one image of its file."""
        if entry.part is not None and entry.part >= header.images:
            raise Quarantined("io_error", "the file holds fewer images than it did: build it again")
        if entry.part is None and header.images > 1:
            if form is nifti:
                raise Dropped("not_in_collection", f"--slices takes none of its {header.images} slices")
            raise Dropped("multiframe", f"{header.images} pages: `--frames each` takes them, into a new --out")


def _facts(entry: Entry, header: Header) -> ImageFacts:
    stated = None if entry.facts is None else entry.facts.bits
    # What no table says is of one patient may be: all slices of a volume are.
    study = "" if entry.part is None else f"file {(entry.unpacked or entry.file).decode('utf-8', 'surrogateescape')}"
    return ImageFacts(
        height=header.rows,
        width=header.cols,
        bits=header.bits if stated is None else min(stated, header.bits),
        signed=header.signed,
        photometric=header.photometric,
        modality=None,
        coded_bytes=entry.size if header.packed else None,
        identity=Identity(study=study),
        flags=header.flags,
    )


def _decode(form: ImageFormat, data: bytes, header: Header, part: int, stated: int | None, invert: Invert) -> Decoded:
    """Return the pixels of a judged header.

    Raises
    ------
    Dropped
        not_grayscale, not_integer_pixels.
    Quarantined
        decode_error, truncated, dimension_mismatch, bad_value.
    """
    raster = form.decode(data, header, part)
    values, flags = gray(raster)
    found = depth(values, raster, header.signed, stated)
    pixels = _unsigned(values, found)
    inverted = header.photometric == "MONOCHROME1"
    if inverted:
        top = (1 << found.bits) - 1 if invert == "full" else int(pixels.max())
        pixels = np.subtract(np.uint16(top), pixels)
    return Decoded(
        pixels=pixels,
        bits=found.bits,
        decoder=raster.decoder,
        inverted=inverted,
        lossy=raster.lossy,
        repairs=raster.repairs,
        flags=flags + found.flags + raster.flags,
    )


def _unsigned(values: Array, found: Depth) -> Pixels:
    """Shift values with a sign by half of their range, as those of DICOM are."""
    shifted = values.astype(np.int32) + (1 << (found.bits - 1)) if found.signed else values
    return np.ascontiguousarray(shifted.astype(np.uint16, copy=False))
