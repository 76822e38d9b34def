"""The rules: which file is written, which is dropped and why. Order matters and is the order of the functions' lines.

Errors are looked for before rules: a broken file is quarantined even where a rule would have left it out, because what
its header says cannot be trusted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydicom.dataset import Dataset

from shardkit.content import Content, Statistics
from shardkit.errors import Dropped, Quarantined
from shardkit.sources.dicom import modality, privacy
from shardkit.sources.dicom.reading import PIXEL_DATA, Header, ImageFacts, check_structure, image_facts

if TYPE_CHECKING:
    from shardkit.config import Rules

DROPS = {
    "apple_double": "what macOS keeps beside a file, named ._*: no image",
    "not_an_image": "reports, presentation states, key objects, segmentations, DICOMDIRs",
    "no_pixel_data": "an image header without pixels",
    "not_integer_pixels": "floating-point pixel data",
    "not_grayscale": "colour or palette",
    "multiframe": "more than one frame",
    "modality_excluded": "a modality not asked for",
    "too_small": "a side below --min-side",
    "too_large": "a side above --max-side",
    "burned_in": "the header says identifiers are burned into the pixels",
    "secondary_capture": "a secondary capture, dropped on request",
    "for_processing": "unprocessed twin of an image for presentation",
    "blank": "no range of grey levels, or nothing but noise",
    "small_content": "content fills less of the image than --min-content",
    "duplicate_exact": "the same pixels as another file",
    "duplicate_near": "almost the same pixels as another file, dropped on request",
}
QUARANTINES = {
    "empty_file": "no bytes",
    "not_dicom": "not a DICOM file",
    "io_error": "the file could not be read",
    "parse_error": "the header cannot be parsed",
    "truncated": "the file ends too early",
    "missing_required_tag": "a tag without which pixels mean nothing is missing",
    "bad_value": "a tag's value is impossible",
    "unsupported_transfer_syntax": "no decoder for its compression",
    "size_mismatch": "the header claims other sizes than the file has",
    "dimension_mismatch": "the compressed stream has other dimensions than the header",
    "decode_error": "no decoder reads the compressed stream",
    "decode_timeout": "decoding took longer than the limit",
    "decoder_crash": "a decoder killed its process",
    "memory_limit": "decoding wanted more memory than the limit",
    "missing_patient_id": "no PatientID, quarantined on request",
    "internal_error": "an error of shardkit's own: please report it",
}
_NOT_IMAGES = tuple(
    f"1.2.840.10008.5.1.4.1.1.{stem}" for stem in ("88.", "11.", "66", "104.", "9.", "67", "68.", "30.1", "481.5")
)
_DICOMDIR = "1.2.840.10008.1.3.10"
_NOT_IMAGE_MODALITIES = {
    "SR",
    "PR",
    "KO",
    "SEG",
    "DOC",
    "REG",
    "RTPLAN",
    "RTSTRUCT",
    "PLAN",
    "HD",
    "ECG",
    "AU",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."  # and all below it
_BLANK_RANGE = 0.002  # of the power of two above the brightest pixel
_BLANK_DEPTH = 1 << 12  # at most: above, a pedestal may well be what reaches so far
_NOISE = 0.4  # see Content.structure


def judge_header(header: Header, rules: Rules) -> tuple[ImageFacts, tuple[str, ...], tuple[str, ...]]:
    """(image facts, repairs, flags) of a file worth decoding. Raises Dropped or Quarantined."""
    dataset = header.dataset
    _require_image(header)
    facts = image_facts(dataset)
    if facts.samples != 1:  # colour has layouts of its own that are not worth checking
        raise Dropped("not_grayscale", f"{facts.samples} samples a pixel")
    repairs = header.repairs + check_structure(header, facts)
    if facts.photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Dropped("not_grayscale", "its samples are no grey values (PhotometricInterpretation)")
    if facts.frames > 1:
        raise Dropped("multiframe", f"{facts.frames} frames")
    if facts.bits_allocated not in (8, 16):
        raise Quarantined("bad_value", f"BitsAllocated {facts.bits_allocated}: only 8 and 16 bits make a radiograph")
    _require_modality(modality.effective(dataset), rules)
    _require_size(facts, rules)
    if privacy.text(dataset, "BurnedInAnnotation").upper() == "YES":
        raise Dropped("burned_in", "BurnedInAnnotation is YES")
    if rules.secondary_capture == "drop" and f"{modality.sop_class(dataset)}.".startswith(_SECONDARY_CAPTURE):
        raise Dropped("secondary_capture", "a secondary capture, and --secondary-capture is drop")
    flags: tuple[str, ...] = ()
    if not privacy.text(dataset, "PatientID"):
        if rules.missing_patient_id == "quarantine":
            raise Quarantined("missing_patient_id", "no PatientID, and --missing-patient-id is quarantine")
        flags += ("missing_patient_id",)
    if privacy.charset_problem(dataset):
        flags += ("charset",)
    return facts, repairs, flags


def _require_image(header: Header) -> None:
    dataset = header.dataset
    sop_class = modality.sop_class(dataset)
    if sop_class == _DICOMDIR or "DirectoryRecordSequence" in dataset:
        raise Dropped("not_an_image", "a DICOMDIR: it lists files, it is none of them")
    if sop_class.startswith(_NOT_IMAGES) or privacy.text(dataset, "Modality").upper() in _NOT_IMAGE_MODALITIES:
        raise Dropped("not_an_image", "its SOP class or modality is none of images")
    if header.pixels is None:
        if header.cut:
            raise Quarantined("truncated", "the file ends inside its header")
        if "Rows" in dataset or "BitsAllocated" in dataset or sop_class:
            raise Dropped("no_pixel_data", "the header has no pixel data behind it")
        raise Quarantined("missing_required_tag", "neither pixel data nor a SOP class")
    if header.pixels.tag != PIXEL_DATA:
        raise Dropped("not_integer_pixels", "its pixels are floating-point numbers")


def _require_modality(found: str, rules: Rules) -> None:
    if (found or modality.NONE) in rules.modalities:
        return
    if not found:
        raise Dropped(
            "modality_excluded", "its modality is absent and its SOP class names none: --modalities lacks NONE"
        )
    wanted = ", ".join(rules.modalities)
    raise Dropped("modality_excluded", f"its modality ({modality.shown(found)}) is not among {wanted}")


def _require_size(facts: ImageFacts, rules: Rules) -> None:
    short, long = sorted((facts.rows, facts.cols))
    if short < rules.min_side:
        raise Dropped("too_small", f"{facts.rows}x{facts.cols} pixels, below --min-side {rules.min_side}")
    if long > rules.max_side and rules.oversize == "drop":
        raise Dropped("too_large", f"{facts.rows}x{facts.cols} pixels, above --max-side {rules.max_side}")


def halvings(rows: int, cols: int, max_side: int) -> int:
    """How many 2x2 means bring an image within `max_side`."""
    count = 0
    while max(rows, cols) > max_side:
        rows, cols, count = -(-rows // 2), -(-cols // 2), count + 1
    return count


def judge_pixels(content: Content, stats: Statistics, rules: Rules) -> None:
    """Raises Dropped (blank, small_content). Judges the content's own contrast, whatever border or pedestal it has."""
    depth = min(1 << max(1, stats.max.bit_length()), _BLANK_DEPTH)
    small = content.area < rules.min_content
    if (content.contrast < _BLANK_RANGE * depth or content.structure < _NOISE) and not (small and content.area):
        raise Dropped("blank", "no range of grey levels, or nothing but noise")
    if small:
        share = f"content fills {100 * content.area:.1f} % of the image"
        raise Dropped("small_content", f"{share}, below --min-content {rules.min_content:g}")


def for_presentation(dataset: Dataset) -> str | None:
    """The presentation intent, where the header states one of the two that exist."""
    value = privacy.text(dataset, "PresentationIntentType").upper()
    return value if value in ("FOR PRESENTATION", "FOR PROCESSING") else None
