"""The manifest: one row per sample, and the digest that names a dataset.

Columns are plain Parquet types, so that any tool reads them. The digest covers values, not the file's encoding.
"""

import hashlib
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.dataset.hashes import DIGEST_BYTES
from shardkit.storage import Store

NAME = "manifest.parquet"
ROW_GROUP = 1 << 13
_DIGEST_FIELD = b"shardkit.digest"

_hash = pa.binary(DIGEST_BYTES)
_text = pa.string()
STORAGE = [
    (
        "key",
        _text,
        "name of the sample: keyed hash of the SOP Instance UID, start of the pixel hash",
    ),
    ("shard", _text, "object that holds it"),
    ("offset", pa.int64(), "first byte of the image in the shard"),
    ("length", pa.int64(), "bytes of the image"),
    ("level_bytes", pa.list_(pa.int64()), "bytes that hold each level, level 0 first; in tars a prefix of the member"),
    ("json_hash", _hash, "XXH3-128 of the JSON member; null in formats without"),
    ("level_hash", pa.list_(_hash), "XXH3-128 of each of these, big endian"),
]
PIXELS = [
    ("pixel_hash", _hash, "XXH3-128 of 'rows cols bits ' and the little-endian pixels, big endian"),
    ("height", pa.int32(), "rows"),
    ("width", pa.int32(), "columns"),
    ("bits", pa.int8(), "pixels lie in [0, 2**bits - 1]"),
    ("bin_height", pa.int32(), "rows of the sample's bin"),
    ("bin_width", pa.int32(), "columns of the sample's bin"),
    ("box_top", pa.int32(), "content box"),
    ("box_left", pa.int32(), "content box"),
    ("box_height", pa.int32(), "content box"),
    ("box_width", pa.int32(), "content box"),
    ("content", pa.float32(), "share of the image that is neither constant border nor padding"),
    ("min", pa.int32(), "least grey level of what is neither border nor padding"),
    ("max", pa.int32(), "greatest grey level of the same"),
    ("mean", pa.float32(), "mean grey level of the same"),
    ("std", pa.float32(), "standard deviation of the same"),
    ("p0_5", pa.int32(), "0.5th percentile of the same"),
    ("p1", pa.int32(), "1st percentile of the same"),
    ("p99", pa.int32(), "99th percentile of the same"),
    ("p99_5", pa.int32(), "99.5th percentile of the same"),
    ("padding", pa.float32(), "share of padding pixels, now 0"),
    ("halvings", pa.int8(), "2x2 means taken to fit --max-side"),
    ("inverted", pa.bool_(), "whether values were inverted to MONOCHROME2 sense"),
    ("phash", pa.uint64(), "63-bit DCT hash"),
]
ORIGIN = [
    ("source_rows", pa.int32(), "rows in the DICOM file"),
    ("source_cols", pa.int32(), "columns in the DICOM file"),
    ("source_bits", pa.int8(), "BitsStored"),
    ("signed", pa.bool_(), "whether stored values were signed"),
    ("photometric", _text, "MONOCHROME1 or MONOCHROME2"),
    ("slope", pa.float64(), "RescaleSlope, not applied; null where absent"),
    ("intercept", pa.float64(), "RescaleIntercept, not applied; null where absent"),
    ("modality_lut", pa.bool_(), "whether a Modality LUT sequence was applied"),
    ("transfer_syntax", _text, "UID"),
    ("lossy", pa.bool_(), "whether the file was compressed with loss"),
    ("decoder", _text, "library that decoded it, with version"),
    ("repairs", pa.list_(_text), "what had to be mended to decode it"),
    ("modality", _text, "code; by the SOP class where the header states none, null where that tells none either"),
    ("body_part", _text, "label, from an enumeration"),
    ("view", _text, "code"),
    ("laterality", _text, "R, L, U or B"),
    ("orientation", _text, "patient orientation"),
    ("presentation", _text, "presentation intent"),
    ("manufacturer", _text, "from an enumeration"),
    ("detector", _text, "detector type"),
    ("spacing_row", pa.float64(), "mm"),
    ("spacing_col", pa.float64(), "mm"),
    ("spacing_source", _text, "pixel or imager"),
    ("kvp", pa.float64(), "kV"),
    ("exposure", pa.float64(), "mAs"),
    ("window_center", pa.list_(pa.float64()), "grey levels after slope and intercept"),
    ("window_width", pa.list_(pa.float64()), "grey levels after slope and intercept"),
    ("voi_function", _text, "code"),
    ("sex", _text, "code, only with --demographics"),
    ("age", _text, "five-year step, only with --demographics"),
    ("patient", _text, "pseudonym"),
    ("study", _text, "pseudonym"),
    ("series", _text, "pseudonym"),
    ("device", _text, "pseudonym of manufacturer, model and serial number"),
    ("source", _text, "pseudonym of the path"),
]
DATASET = [
    ("flags", pa.list_(_text), "what a human may want to look at"),
    ("group", _text, "key that names a group of near-duplicates, null outside one"),
    ("split", _text, "train, val or test"),
]


def _schema(*parts: list[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema([pa.field(n, t, metadata={"description": d}) for part in parts for n, t, d in part])


SAMPLE = _schema(PIXELS, ORIGIN)
"""What the conversion of one file finds out; stands in the sample's JSON member too."""
SCHEMA = _schema(STORAGE, PIXELS, ORIGIN, DATASET)
_HASHES = "level_hash"
_STORED = pa.list_(pa.binary())
"""Its type in the file: pandas reads no list of binaries of a fixed size. Files of either type are read."""


def digest(table: pa.Table) -> str:
    """Return the SHA-256, in hex, of every column's name, type and values in row order, whatever Parquet's encoding."""
    sha = hashlib.sha256(f"shardkit manifest 1, {table.num_rows} rows".encode())
    for field in SCHEMA:
        sha.update(f"\n{field.name} {field.type} ".encode())
        _feed(sha, table[field.name].combine_chunks())
    return sha.hexdigest()


def _feed(sha: "hashlib._Hash", array: pa.Array | pa.ChunkedArray) -> None:
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    sha.update(np.packbits(pc.is_null(array).to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_list(array.type):
        sha.update(pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False).astype("<i4").tobytes())
        _feed(sha, array.flatten())
    elif pa.types.is_string(array.type) or pa.types.is_fixed_size_binary(array.type):
        values = array.drop_null()
        sizes = pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<i4")
        sha.update(sizes.tobytes())
        for start in range(0, len(values), 1 << 16):
            part = values.slice(start, 1 << 16).to_pylist()
            sha.update(b"".join(v.encode() if isinstance(v, str) else v for v in part))
    else:
        values = array.drop_null().to_numpy(zero_copy_only=False)
        sha.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())


def write(table: pa.Table, store: Store) -> str:
    """Write the manifest, and return its digest, which the file's own metadata name too.

    Pages have checksums and row groups are small, so that a loader can read few columns of few rows and still know
    that they are the dataset's.
    """
    table = table.cast(SCHEMA)
    name = digest(table)
    table = _as(table, _STORED).replace_schema_metadata({_DIGEST_FIELD: name})
    buffer = BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=ROW_GROUP, write_page_checksum=True)
    store.put(NAME, buffer.getvalue())
    return name


def typed(table: pa.Table) -> pa.Table:
    """Return a stored table with the types of SCHEMA.

    Raises
    ------
    pyarrow.ArrowInvalid
        A hash has another length.
    """
    return _as(table, SCHEMA.field(_HASHES).type)


def is_stored(name: str, kind: pa.DataType) -> bool:
    """Return whether a column of a manifest file may have a type."""
    return bool(kind == SCHEMA.field(name).type or (name == _HASHES and kind == _STORED))


def _as(table: pa.Table, kind: pa.DataType) -> pa.Table:
    """Return the table with its level hashes in this type."""
    at = table.schema.get_field_index(_HASHES)
    if at < 0 or table.schema.field(at).type == kind:
        return table
    return table.set_column(at, table.schema.field(at).with_type(kind), table[_HASHES].cast(kind))


def opened(source: Any) -> pq.ParquetFile:
    """Open a manifest's file, whose pages are held against their checksums; it is a context manager."""
    return pq.ParquetFile(source, page_checksum_verification=True)


def named_digest(file: pq.ParquetFile) -> str:
    """Return the digest that a manifest file names; empty where it names none."""
    return ((file.schema_arrow.metadata or {}).get(_DIGEST_FIELD) or b"").decode()
