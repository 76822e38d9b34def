"""Files in an export that are no DICOM and known by their first bytes: archives, and what macOS leaves beside files."""

START = 265
"""Bytes from a file's start that tell."""

_PACKED = "unpack it into the export and build again"
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x1f\x8b", "compressed with gzip"),
    (0, b"\x1f\x9d", "compressed with compress (.Z)"),
    (0, b"BZh", "compressed with bzip2"),
    (0, b"\xfd7zXZ\0", "compressed with xz"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with Zstandard"),
    (0, b"\x04\x22\x4d\x18", "compressed with LZ4"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (0, b"MSCF", "a cabinet archive"),
    (257, b"ustar", "a tar archive"),
)
_APPLE_DOUBLE = b"\x00\x05\x16\x07"


def packed(start: bytes) -> str | None:
    """Return what to say of an archive or compressed file, by its first `START` bytes; None for anything else."""
    return next((f"{what}: {_PACKED}" for at, magic, what in _MAGIC if start[at:].startswith(magic)), None)


def is_apple_double(path: bytes, start: bytes) -> bool:
    """Return whether this is a macOS `._` file. Name and bytes must agree: an image may have such a name."""
    return path.rpartition(b"/")[2].startswith(b"._") and start.startswith(_APPLE_DOUBLE)
