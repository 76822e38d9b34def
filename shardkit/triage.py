"""The rules: which image is written, which is dropped and why. Order matters and is the order of the functions' lines.

A source looks for errors first (`ImageSource.inspect`): a broken file is quarantined even where a rule would have left
it out, because what its header says cannot be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardkit.content import Content, Pixels, Statistics
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import Dropped, Quarantined
from shardkit.privacy import shown_modality
from shardkit.terminal.words import counted

if TYPE_CHECKING:
    from shardkit.burned_in.findings import Finding
    from shardkit.config import Rules
    from shardkit.sources.base import ImageFacts

NO_MODALITY = "NONE"
"""Stands for no modality among the modalities to take."""

DROPS = {
    "apple_double": "what macOS keeps beside a file, named ._*: no image",
    "not_in_collection": "its tables, masks, previews: no image of the collection",
    "not_an_image": "reports, presentation states, key objects, segmentations, DICOMDIRs; tables, text and documents",
    "no_pixel_data": "an image header without pixels",
    "not_integer_pixels": "floating-point pixel data",
    "not_grayscale": "colour or palette",
    "multiframe": "more than one frame",
    "modality_excluded": "a modality not asked for",
    "too_small": "a side below --min-side",
    "too_large": "a side above --max-side",
    "burned_in": "the header says identifiers are burned into the pixels",
    "burned_in_text": "text was found in the pixels, dropped on request",
    "recognizable": "the header says that a person may be recognised",
    "secondary_capture": "a secondary capture, dropped on request",
    "for_processing": "unprocessed twin of an image for presentation",
    "blank": "no range of grey levels, or nothing but noise",
    "small_content": "content fills less of the image than --min-content",
    "empty_slice": "a slice of a volume without anything in it",
    "duplicate_exact": "the same pixels as another file",
    "duplicate_near": "almost the same pixels as another file, dropped on request",
}
QUARANTINES = {
    "empty_file": "no bytes",
    "not_dicom": "not a DICOM file",
    "unknown_format": "no format of images that is read",
    "io_error": "the file could not be read",
    "encrypted": "a member of an archive that needs a password",
    "archive_damaged": "an archive, or a member of one, that cannot be read",
    "archive_limit": "a member that unpacks to far more than it takes, or lies too deep in archives",
    "unsafe_name": "a member of an archive whose name leads out of it",
    "facts_ambiguous": "rows of the facts that name it differ, or name other files, too",
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
_BLANK_RANGE = 0.002  # of the power of two above the brightest pixel
_BLANK_DEPTH = 1 << 12  # at most: above, a pedestal may well be what reaches so far
_NOISE = 0.4  # see Content.structure


def judge_header(facts: ImageFacts, rules: Rules) -> tuple[str, ...]:
    """Return the flags of an image worth decoding, by what its header tells.

    Raises
    ------
    Dropped
        modality_excluded, too_small, too_large, burned_in, recognizable, secondary_capture.
    Quarantined
        missing_patient_id.
    """
    _require_modality(facts.modality, rules)
    _require_size(facts, rules)
    if facts.burned_in:
        raise Dropped("burned_in", "BurnedInAnnotation is YES")
    if facts.recognizable:
        raise Dropped("recognizable", "RecognizableVisualFeatures is YES")
    if rules.secondary_capture == "drop" and facts.secondary_capture:
        raise Dropped("secondary_capture", "a secondary capture, and --secondary-capture is drop")
    if facts.identity.patient:
        return facts.flags
    if rules.missing_patient_id == "quarantine":
        raise Quarantined("missing_patient_id", "no PatientID, and --missing-patient-id is quarantine")
    return ("missing_patient_id", *facts.flags)


def _require_modality(found: str | None, rules: Rules) -> None:
    if found is None or (found or NO_MODALITY) in rules.modalities:
        return
    if not found:
        raise Dropped(
            "modality_excluded", "its modality is absent and its SOP class names none: --modalities lacks NONE"
        )
    wanted = ", ".join(rules.modalities)
    raise Dropped("modality_excluded", f"its modality ({shown_modality(found)}) is not among {wanted}")


def _require_size(facts: ImageFacts, rules: Rules) -> None:
    short, long = sorted((facts.height, facts.width))
    if short < rules.min_side:
        raise Dropped("too_small", f"{facts.height}x{facts.width} pixels, below --min-side {rules.min_side}")
    if long > rules.max_side and rules.oversize == "drop":
        raise Dropped("too_large", f"{facts.height}x{facts.width} pixels, above --max-side {rules.max_side}")


def halvings(height: int, width: int, max_side: int) -> int:
    """Return how many 2x2 means bring an image within `max_side` pixels."""
    count = 0
    while max(height, width) > max_side:
        height, width, count = ceil_div(height, 2), ceil_div(width, 2), count + 1
    return count


def judge_pixels(content: Content, stats: Statistics, rules: Rules) -> None:
    """Judge the content's own contrast, whatever border or pedestal an image has.

    Raises
    ------
    Dropped
        blank, small_content.
    """
    depth = min(1 << max(1, stats.max.bit_length()), _BLANK_DEPTH)
    small = content.area < rules.min_content
    if (content.contrast < _BLANK_RANGE * depth or content.structure < _NOISE) and not (small and content.area):
        raise Dropped("blank", "no range of grey levels, or nothing but noise")
    if small:
        share = f"content fills {100 * content.area:.1f} % of the image"
        raise Dropped("small_content", f"{share}, below --min-content {rules.min_content:g}")


def judge_text(
    pixels: Pixels, lines: Sequence[Finding], rules: Rules
) -> tuple[Pixels, tuple[str, ...], tuple[str, ...]]:
    """Judge an image by the text in it. Side markers are no reason for anything.

    Parameters
    ----------
    pixels : ndarray of uint16, (height, width)
        The image.
    lines : sequence of Finding
        What was found in it.
    rules : Rules
        What is to be done about it.

    Returns
    -------
    pixels : ndarray of uint16, (height, width)
        The image, or a copy in which the text is painted over.
    flags, repairs : tuple of str
        What a person may want to look at; what was changed.

    Raises
    ------
    Dropped
        burned_in_text.
    """
    if not lines:
        return pixels, (), ()
    from shardkit.burned_in.blanking import blank  # what looks for text takes half a second to load
    from shardkit.burned_in.findings import NAMING

    naming = [line for line in lines if line.kind in NAMING]
    if not naming:
        return pixels, (), ()
    if rules.burned_in == "drop":
        raise Dropped(
            "burned_in_text", f"{counted(len(naming), 'line')} of text in the pixels, and --burned-in is drop"
        )
    if rules.burned_in == "blank":
        return blank(pixels, naming), (), ("text_blanked",)
    return pixels, ("burned_in_suspect",), ()
