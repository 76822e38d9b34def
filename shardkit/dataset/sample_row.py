"""A row of the manifest: its columns, with their types and meaning, from which the Arrow schema is made.

Rows are dictionaries, as Arrow gives and takes them; the classes here name their values.
"""

from typing import Annotated, Literal, TypedDict, get_args

import pyarrow as pa

from shardkit.dataset.hashes import DIGEST_BYTES

Kind = Literal["text", "marker", "unreadable"]
"""Kinds of text in an image. text: letters or digits that no list permits. marker: permitted words only. unreadable: a
line of letter-like marks that were not read."""
KINDS: tuple[Kind, ...] = get_args(Kind)
_TEXT, _HASH, _TEXTS = pa.string(), pa.binary(DIGEST_BYTES), pa.list_(pa.string())


class StorageColumns(TypedDict):
    """Where a sample lies, and hashes of its bytes."""

    key: Annotated[
        str, _TEXT, "name of the sample: keyed hash of the SOP Instance UID or path, start of the pixel hash"
    ]
    shard: Annotated[str, _TEXT, "object that holds it"]
    offset: Annotated[int, pa.int64(), "first byte of the image in the shard"]
    length: Annotated[int, pa.int64(), "bytes of the image"]
    level_bytes: Annotated[
        list[int], pa.list_(pa.int64()), "bytes that hold each level, level 0 first; in tars a prefix of the member"
    ]
    json_hash: Annotated[bytes | None, _HASH, "XXH3-128 of the JSON member; null in formats without"]
    level_hash: Annotated[list[bytes], pa.list_(_HASH), "XXH3-128 of each of these, big endian"]


class PixelColumns(TypedDict):
    """What the pixels are."""

    pixel_hash: Annotated[bytes, _HASH, "XXH3-128 of 'rows cols bits ' and the little-endian pixels, big endian"]
    height: Annotated[int, pa.int32(), "rows"]
    width: Annotated[int, pa.int32(), "columns"]
    bits: Annotated[int, pa.int8(), "pixels lie in [0, 2**bits - 1]"]
    bin_height: Annotated[int, pa.int32(), "rows of the sample's bin"]
    bin_width: Annotated[int, pa.int32(), "columns of the sample's bin"]
    box_top: Annotated[int, pa.int32(), "content box"]
    box_left: Annotated[int, pa.int32(), "content box"]
    box_height: Annotated[int, pa.int32(), "content box"]
    box_width: Annotated[int, pa.int32(), "content box"]
    content: Annotated[float, pa.float32(), "share of the image that is neither constant border nor padding"]
    min: Annotated[int, pa.int32(), "least grey level of what is neither border nor padding"]
    max: Annotated[int, pa.int32(), "greatest grey level of the same"]
    mean: Annotated[float, pa.float32(), "mean grey level of the same"]
    std: Annotated[float, pa.float32(), "standard deviation of the same"]
    p0_5: Annotated[int, pa.int32(), "0.5th percentile of the same"]
    p1: Annotated[int, pa.int32(), "1st percentile of the same"]
    p99: Annotated[int, pa.int32(), "99th percentile of the same"]
    p99_5: Annotated[int, pa.int32(), "99.5th percentile of the same"]
    padding: Annotated[float, pa.float32(), "share of padding pixels, now 0"]
    halvings: Annotated[int, pa.int8(), "2x2 means taken to fit --max-side"]
    inverted: Annotated[bool, pa.bool_(), "whether values were inverted to MONOCHROME2 sense"]
    phash: Annotated[int, pa.uint64(), "63-bit DCT hash"]


class TextColumns(TypedDict):
    """Where there is text in the pixels, and what it says nowhere; null where none was found."""

    text_box: Annotated[
        list[int] | None, pa.list_(pa.int32()), "top, left, height and width of each line of text, one after another"
    ]
    text_kind: Annotated[list[str] | None, _TEXTS, "text, marker or unreadable, of each line"]
    text_confidence: Annotated[list[float] | None, pa.list_(pa.float32()), "that it is text at all, 0 to 1, of each"]


class OriginColumns(TypedDict):
    """The file that the sample was made from, and what its header states."""

    source_rows: Annotated[int, pa.int32(), "rows in the source file"]
    source_cols: Annotated[int, pa.int32(), "columns in the source file"]
    source_bits: Annotated[int, pa.int8(), "bits that count in a stored value: BitsStored"]
    signed: Annotated[bool, pa.bool_(), "whether stored values were signed"]
    photometric: Annotated[str, _TEXT, "MONOCHROME1 or MONOCHROME2"]
    slope: Annotated[float | None, pa.float64(), "RescaleSlope, not applied; null where absent"]
    intercept: Annotated[float | None, pa.float64(), "RescaleIntercept, not applied; null where absent"]
    modality_lut: Annotated[bool, pa.bool_(), "whether a Modality LUT sequence was applied"]
    transfer_syntax: Annotated[str | None, _TEXT, "UID, of DICOM files"]
    lossy: Annotated[bool, pa.bool_(), "whether the file was compressed with loss"]
    decoder: Annotated[str, _TEXT, "library that decoded it, with version"]
    repairs: Annotated[list[str], _TEXTS, "what had to be mended to decode it"]
    modality: Annotated[
        str | None, _TEXT, "code; by the SOP class where the header states none, null where that tells none either"
    ]
    body_part: Annotated[str | None, _TEXT, "label, from an enumeration"]
    view: Annotated[str | None, _TEXT, "code"]
    laterality: Annotated[str | None, _TEXT, "R, L, U or B"]
    orientation: Annotated[str | None, _TEXT, "patient orientation"]
    presentation: Annotated[str | None, _TEXT, "presentation intent"]
    manufacturer: Annotated[str | None, _TEXT, "from an enumeration"]
    detector: Annotated[str | None, _TEXT, "detector type"]
    spacing_row: Annotated[float | None, pa.float64(), "mm"]
    spacing_col: Annotated[float | None, pa.float64(), "mm"]
    spacing_source: Annotated[str | None, _TEXT, "pixel or imager"]
    kvp: Annotated[float | None, pa.float64(), "kV"]
    exposure: Annotated[float | None, pa.float64(), "mAs"]
    window_center: Annotated[list[float] | None, pa.list_(pa.float64()), "grey levels after slope and intercept"]
    window_width: Annotated[list[float] | None, pa.list_(pa.float64()), "grey levels after slope and intercept"]
    voi_function: Annotated[str | None, _TEXT, "code"]
    sex: Annotated[str | None, _TEXT, "code, only with --demographics"]
    age: Annotated[str | None, _TEXT, "five-year step, only with --demographics"]


class PseudonymColumns(TypedDict):
    """Whom and what it is of, by keyed pseudonyms."""

    patient: Annotated[str, _TEXT, "pseudonym"]
    study: Annotated[str | None, _TEXT, "pseudonym"]
    series: Annotated[str | None, _TEXT, "pseudonym"]
    device: Annotated[str | None, _TEXT, "pseudonym of manufacturer, model and serial number"]
    source: Annotated[str, _TEXT, "pseudonym of the path"]


class DatasetColumns(TypedDict):
    """What the other samples of a dataset decide, too."""

    flags: Annotated[list[str], _TEXTS, "what a human may want to look at"]
    group: Annotated[str | None, _TEXT, "key that names a group of near-duplicates, null outside one"]
    split: Annotated[str | None, _TEXT, "train, val or test"]


class ImageColumns(PixelColumns, TextColumns, OriginColumns):
    """What the bytes of one file tell."""


class SampleFacts(ImageColumns, PseudonymColumns):
    """What does not depend on other samples; the sample's JSON member has it, too."""


class SampleRow(StorageColumns, SampleFacts, DatasetColumns):
    """A whole row."""
