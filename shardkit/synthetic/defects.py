"""What goes wrong in real exports: each kind with the outcome a correct build gives it.

Reasons, repairs and flags are the codes of the outcome table in the DICOM reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pydicom.uid as uids

from shardkit.synthetic import corruptions, oddities, records
from shardkit.synthetic.records import ImageSpec, sound_bytes

Maker: TypeAlias = Callable[[ImageSpec], bytes]
Twin: TypeAlias = Literal["", "file", "pixels", "near", "processing", "uid", "link"]


@dataclass(frozen=True, slots=True)
class Defect:
    """A kind of defect and its outcome.  `twin` says what it shares with a sound file of the same study."""

    make: Maker
    verdict: str
    reason: str = ""
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    twin: Twin = ""
    bits: int = 0  # what the file must be, where the maker depends on it (0 or "": anything)
    syntax: str = ""
    modality: str = ""


_LE = uids.ExplicitVRLittleEndian

# Order matters little; kinds that interact with a twin are spread so that small exports see variety.
DEFECTS: dict[str, Defect] = {
    "empty": Defect(corruptions.empty, "quarantined", "empty_file"),
    "duplicate_file": Defect(sound_bytes, "dropped", "duplicate_exact", twin="file"),
    "truncated_native": Defect(corruptions.cut, "quarantined", "truncated", syntax=_LE),
    "no_meta": Defect(corruptions.no_meta, "written", repairs=("assumed_ts",), syntax=_LE),
    "rgb": Defect(oddities.rgb, "dropped", "not_grayscale", syntax=_LE),
    "truncated_frame": Defect(corruptions.cut, "quarantined", "truncated", syntax=uids.JPEGLSLossless, bits=12),
    "for_processing": Defect(
        oddities.for_processing,
        "dropped",
        "for_processing",
        twin="processing",
        syntax=_LE,
        bits=14,
        modality="DX",
    ),
    "text": Defect(corruptions.text, "quarantined", "not_dicom"),
    "broken_jpeg": Defect(corruptions.garbage, "quarantined", "decode_error", syntax=records.LOSSLESS_JPEG, bits=12),
    "report": Defect(oddities.report, "dropped", "not_an_image", syntax=_LE),
    "padded_j2k": Defect(
        corruptions.padded_j2k, "written", repairs=("j2k_com",), syntax=uids.JPEG2000Lossless, bits=12
    ),
    "uid_collision": Defect(sound_bytes, "written", flags=("uid_collision",), twin="uid"),
    "blank": Defect(oddities.blank, "dropped", "blank", syntax=_LE),
    "missing_rows": Defect(corruptions.no_rows, "quarantined", "missing_required_tag", syntax=_LE),
    "duplicate_pixels": Defect(
        sound_bytes, "dropped", "duplicate_exact", twin="pixels", bits=12, syntax=uids.RLELossless
    ),
    "zip": Defect(corruptions.zip_archive, "quarantined", "not_dicom"),
    "no_pixels": Defect(oddities.no_pixels, "dropped", "no_pixel_data", syntax=_LE, modality="CR"),
    "no_patient_id": Defect(oddities.no_patient_id, "written", flags=("missing_patient_id",)),
    "huge_claim": Defect(corruptions.huge_claim, "quarantined", "size_mismatch", syntax=_LE, bits=12),
    "burned_in": Defect(oddities.burned_in, "dropped", "burned_in"),
    "jpeg_sos": Defect(corruptions.zero_sos, "written", repairs=("jpeg_sos",), syntax=uids.JPEGExtended12Bit, bits=12),
    "small_content": Defect(oddities.small_content, "dropped", "small_content", syntax=_LE),
    "near_duplicate": Defect(
        sound_bytes,
        "written",
        flags=("near_duplicate",),
        twin="near",
        bits=12,
        syntax=uids.JPEGLSNearLossless,
    ),
    "other_dimensions": Defect(
        corruptions.other_dimensions, "quarantined", "dimension_mismatch", syntax=uids.JPEGLSLossless, bits=12
    ),
    "multiframe": Defect(oddities.multiframe, "dropped", "multiframe", syntax=_LE, bits=12),
    "symlink": Defect(corruptions.empty, "quarantined", "not_dicom", twin="link"),
    "values_exceed_bits": Defect(oddities.exceeding, "written", flags=("values_exceed_bits",), syntax=_LE, bits=12),
    "too_small": Defect(oddities.too_small, "dropped", "too_small", syntax=_LE),
    "ct": Defect(oddities.ct, "dropped", "modality_excluded", syntax=_LE, bits=12),
    "two_rows": Defect(corruptions.two_rows, "quarantined", "bad_value", syntax=_LE),
    "wrong_photometric": Defect(oddities.wrong_photometric, "written"),
    "too_large": Defect(oddities.too_large, "dropped", "too_large", syntax=_LE),
    "overlay": Defect(oddities.overlay, "written", syntax=_LE, bits=12),
    "high_bits": Defect(oddities.high_bits, "written", repairs=("high_bits",), syntax=_LE, bits=12),
    "wrong_syntax": Defect(corruptions.wrong_syntax, "written", repairs=("wrong_ts",), syntax=_LE),
    "hole": Defect(corruptions.hole, "quarantined", "decode_error", syntax=records.LOSSLESS_JPEG, bits=12),
    "double_length": Defect(corruptions.double_length, "quarantined", "size_mismatch", syntax=_LE, bits=12),
    "restarts": Defect(corruptions.restarts, "written", syntax=records.LOSSLESS_JPEG, bits=12),
    "apple_double": Defect(corruptions.apple_double, "dropped", "apple_double"),
    "gzipped": Defect(corruptions.gzipped, "quarantined", "not_dicom"),
    "no_modality": Defect(oddities.no_modality, "written"),
}


def file_bytes(spec: ImageSpec) -> bytes:
    """Return the bytes of any file but a link."""
    return DEFECTS[spec.defect].make(spec) if spec.defect else sound_bytes(spec)
