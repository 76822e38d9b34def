"""DICOM files as a source: a header is parsed, its claims are compared with the bytes, pixels are made uniform."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, ClassVar

from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian

from shardkit.errors import Dropped, Quarantined, Verdict
from shardkit.sources.base import Decoded, Frames, ImageFacts, Invert, LoadedImage, OneImageAFile
from shardkit.sources.dicom import decoding, foreign, grayscale, metadata, modality
from shardkit.sources.dicom.elements import charset_problem, text
from shardkit.sources.dicom.frames import check_structure, frame
from shardkit.sources.dicom.reading import NATIVE, PIXEL_DATA, Header, PixelModule, pixel_module, read_header
from shardkit.sources.entries import Entry
from shardkit.sources.last import Last

_NOT_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{stem}" for stem in ("88.", "11.", "66", "104.", "9.", "67", "68.", "30.1", "481.5")
)
_DICOMDIR = "1.2.840.10008.1.3.10"
_NOT_IMAGE_MODALITIES = {*"SR PR KO SEG DOC REG RTPLAN RTSTRUCT PLAN HD ECG AU".split()}  # noqa: SIM905
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."  # and all below it
_CAPTURED = {*"DV DF WSD SD SI DRW SYN".split()}  # noqa: SIM905
"""ConversionType of captures of video, film, a workstation's screen, paper, drawings, and of made images: text is drawn
into these more often than into what a detector sent (PS3.3 C.8.6.1). Only DI, a digital interface, is none."""


_headers = Last[Header](lambda header: header.size, 1 << 30)
"""Of the last file with several frames: parsing one takes longer than a frame."""


@dataclass(frozen=True)
class DicomSource(OneImageAFile):
    """An export of DICOM files, as `shardkit.sources.base.ImageSource`.

    Parameters
    ----------
    files : FileTree
        The folder or bucket.
    frames : str
        What to do with a file of several frames: "drop", or take "each".
    """

    KIND: ClassVar[str] = "dicom"
    frames: Frames = "drop"

    def split(self, entry: Entry) -> Sequence[Entry]:
        """Return the images of a file: its frames where each is taken, else itself. `inspect` judges it."""
        if self.frames == "drop":
            return (entry,)
        with self.opened(entry, again=True) as file:
            return self.split_file(entry, file)

    def split_file(self, entry: Entry, file: BinaryIO) -> Sequence[Entry]:
        """Do as `split`, of an open file."""
        if self.frames == "drop":
            return (entry,)
        try:
            frames = judged(read_header(file, entry.size), entry.size, 0)[1].frames
        except Verdict:
            return (entry,)
        return tuple(entry.at(number) for number in range(frames)) if frames > 1 else (entry,)

    def inspect(self, entry: Entry) -> ImageFacts:
        """Return what the header of a file tells.

        Parameters
        ----------
        entry : Entry
            The file, or a frame of it.

        Raises
        ------
        Dropped, Quarantined
            Where it holds no image that can be decoded.
        """
        with self.opened(entry) as file:
            if foreign.is_apple_double(entry.file, file.read(foreign.START)):
                raise Dropped("apple_double", "a file that macOS keeps beside another, no image")
            file.seek(0)
            return self.inspect_file(entry, file)

    def inspect_file(self, entry: Entry, file: BinaryIO) -> ImageFacts:
        """Do as `inspect`, of an open file."""
        if entry.part is not None:  # read and parsed once for all frames
            return self.load(entry, self.read(entry)).facts
        return judged(read_header(file, entry.size), entry.size, self._part(entry))[0]

    def load(self, entry: Entry, data: bytes) -> LoadedImage:
        """Return the image in the whole bytes of a file.

        Parameters
        ----------
        entry : Entry
            The file, or a frame of it.
        data : bytes
            All of it.

        Raises
        ------
        Dropped, Quarantined
            As `inspect`.
        """

        def parsed() -> Header:
            return read_header(BytesIO(data), len(data), data)

        header = parsed() if entry.part is None else _headers.of(data, None, parsed)
        facts, module = judged(header, len(data), self._part(entry))
        part = entry.part or 0
        stated = metadata.stated(header.dataset, part)
        return LoadedImage(facts, stated, functools.partial(decode, header, module, part))

    def _part(self, entry: Entry) -> int | None:
        return 0 if entry.part is None and self.frames == "each" else entry.part


def judged(header: Header, size: int, part: int | None = None) -> tuple[ImageFacts, PixelModule]:
    """Return what a header tells, once its claims agree with the bytes. The order of checks is that of the lines.

    Parameters
    ----------
    header : Header
        What was parsed.
    size : int
        Bytes of the file.
    part : int, optional
        The frame that is wanted. Without one, a file of several frames is dropped.
    """
    made_by = modality.effective(header.dataset)
    try:
        _require_image(header)
        module = pixel_module(header.dataset)
        if module.samples != 1:  # colour has layouts of its own that are not worth checking
            raise Dropped("not_grayscale", f"{module.samples} samples a pixel")
        if part is not None and part >= module.frames:
            raise Quarantined("io_error", "the file holds fewer frames than it did: build it again")
        repairs = header.repairs + check_structure(header, module, part)
        _require_grayscale(module, part)
    except Verdict as verdict:
        verdict.modality = made_by
        raise
    return _facts(header, module, made_by, repairs, size, part or 0), module


def _require_image(header: Header) -> None:
    dataset = header.dataset
    sop_class = modality.sop_class(dataset)
    if sop_class == _DICOMDIR or "DirectoryRecordSequence" in dataset:
        raise Dropped("not_an_image", "a DICOMDIR: it lists files, it is none of them")
    if sop_class.startswith(_NOT_IMAGES) or text(dataset, "Modality").upper() in _NOT_IMAGE_MODALITIES:
        raise Dropped("not_an_image", "its SOP class or modality is none of images")
    if header.pixels is None:
        if header.cut:
            raise Quarantined("truncated", "the file ends inside its header")
        if "Rows" in dataset or "BitsAllocated" in dataset or sop_class:
            raise Dropped("no_pixel_data", "the header has no pixel data behind it")
        raise Quarantined("missing_required_tag", "neither pixel data nor a SOP class")
    if header.pixels.tag != PIXEL_DATA:
        raise Dropped("not_integer_pixels", "its pixels are floating-point numbers")


def _require_grayscale(module: PixelModule, part: int | None) -> None:
    if module.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Dropped("not_grayscale", "its samples are no grey values (PhotometricInterpretation)")
    if module.frames > 1 and part is None:
        raise Dropped("multiframe", f"{module.frames} frames: `--frames each` takes them, into a new --out")
    if module.bits_allocated not in (8, 16):
        raise Quarantined("bad_value", f"BitsAllocated {module.bits_allocated}: only 8 and 16 bits make a radiograph")


def _facts(
    header: Header, module: PixelModule, made_by: str, repairs: tuple[str, ...], size: int, part: int
) -> ImageFacts:
    dataset, size = header.dataset, size // module.frames
    intent = text(dataset, "PresentationIntentType").upper()
    raw = header.syntax in NATIVE or size < module.frame_bytes // 8
    secondary = f"{modality.sop_class(dataset)}.".startswith(_SECONDARY_CAPTURE)
    captured = secondary or text(dataset, "ConversionType").upper() in _CAPTURED
    signs = {"charset": charset_problem(dataset), "secondary_capture": captured}
    return ImageFacts(
        height=module.rows,
        width=module.cols,
        bits=module.bits_stored,
        signed=module.signed,
        photometric=module.photometric,
        modality=made_by,
        encoding=header.syntax,
        coded_bytes=None if raw else size,
        plain=header.syntax == ExplicitVRLittleEndian and not repairs,
        presentation=intent if intent in ("FOR PRESENTATION", "FOR PROCESSING") else None,
        burned_in=text(dataset, "BurnedInAnnotation").upper() == "YES",
        recognizable=text(dataset, "RecognizableVisualFeatures").upper() == "YES",
        secondary_capture=secondary,
        identity=metadata.identity(dataset, module.rows, module.cols, part if module.frames > 1 else None),
        repairs=repairs,
        flags=tuple(flag for flag, found in signs.items() if found),
    )


def decode(header: Header, module: PixelModule, part: int, invert: Invert) -> Decoded:
    """Return the pixels of a frame of a judged header.

    Raises
    ------
    Quarantined
        decode_error, dimension_mismatch, size_mismatch, bad_value.
    """
    data = frame(header, module, part)
    if header.pixels is not None and header.pixels.length is not None:
        big = header.syntax == ExplicitVRBigEndian
        samples = decoding.native(data, module.rows, module.cols, module.bits_allocated, big, header.pixels.words)
    else:
        samples = decoding.decode(bytes(data), header.syntax, header.dataset)
    uniform = grayscale.to_uniform(samples, module, header.dataset, invert=invert)
    return Decoded(
        pixels=uniform.pixels,
        bits=uniform.bits,
        decoder=samples.decoder,
        inverted=uniform.inverted,
        padding=uniform.padding,
        lossy=samples.lossy or text(header.dataset, "LossyImageCompression") == "01",
        modality_lut=grayscale.modality_lut(header.dataset, module.signed) is not None,
        repairs=samples.repairs + uniform.repairs,
        flags=uniform.flags,
    )
