"""What a file is, by its first bytes; its name counts only where they tell nothing, or were to be an image's."""

from shardkit.errors import Dropped, Quarantined, Verdict
from shardkit.sources.images import jpeg, nifti, png, tiff
from shardkit.sources.images.base import ImageFormat

START = 1 << 12
"""Bytes from a file's start that tell."""

_FORMATS: tuple[tuple[bytes, ImageFormat], ...] = (
    (png.SIGNATURE, png),
    (jpeg.SIGNATURE, jpeg),
    *((signature, tiff) for signature in tiff.SIGNATURES),
)
_UNREAD: tuple[tuple[int, bytes, str], ...] = (
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (0, b"\x00\x00\x00\x0cJXL ", "a JPEG XL image"),
    (0, b"\xff\x0a", "a JPEG XL image"),
    (4, b"ftyp", "an HEIF or AVIF image, or a film"),
    (0, b"8BPS", "a Photoshop image"),
    (0, b"NRRD", "an NRRD volume"),
    (0, b"\x93NUMPY", "a NumPy array"),
    (0, b"\x89HDF", "an HDF5 file"),
)
_DOCUMENTS: tuple[tuple[int, bytes], ...] = (
    (0, b"%PDF"),
    (0, b"PK\x03\x04"),  # XLSX, DOCX; a zip of images is an archive, which is read as one
    (0, b"PK\x05\x06"),
    (0, b"\xd0\xcf\x11\xe0"),  # XLS, DOC, Thumbs.db
    (0, b"\x00\x00\x00\x01Bud1"),  # .DS_Store
    (0, b"PAR1"),
    (0, b"SQLite format 3"),
    (0, b"{\\rtf"),
)
_IMAGE_NAMES = (b".png", b".jpg", b".jpeg", b".jpe", b".tif", b".tiff", b".nii", b".nii.gz", b".dcm", b".dicom")
_BITMAP = b"BM"
_FEW = 8  # bytes that may be the start of anything


def recognised(path: bytes, start: bytes, expected: bool = False) -> ImageFormat:
    """Return the module that reads a file.

    Parameters
    ----------
    path : bytes
        Its name.
    start : bytes
        Its first `START` bytes.
    expected : bool
        Whether it must be an image, because a table names it as one.

    Raises
    ------
    Dropped
        not_an_image: a table, a document, or what a system keeps beside files.
    Quarantined
        empty_file, unknown_format.
    """
    found = known(start)
    if found is not None:
        return found
    raise _verdict(start, expected or path.lower().endswith(_IMAGE_NAMES))


def known(start: bytes) -> ImageFormat | None:
    """Return the module that reads a file which begins so; None for any other."""
    for signature, module in _FORMATS:
        if start.startswith(signature):
            return module
    inside = nifti.inflated_start(start) if start.startswith(nifti.GZIP) else start
    return nifti if nifti.recognised(inside) else None


def _verdict(start: bytes, expected: bool) -> Verdict:
    if not start:
        return Quarantined("empty_file", "the file has no bytes")
    for at, magic, what in _UNREAD:
        if start[at:].startswith(magic) and (magic != _BITMAP or not _text(start)):
            return Quarantined("unknown_format", f"{what}, which is not read: convert it to PNG or TIFF")
    if any(start[at:].startswith(magic) for at, magic in _DOCUMENTS) or _text(_unpacked(start)):
        if expected:
            return Quarantined(
                "unknown_format", "its name is that of an image, and it holds text or a document: fetch it again"
            )
        return Dropped("not_an_image", "a table, a document or a note")
    return Quarantined("unknown_format", "its first bytes are those of no format that is read")


def _unpacked(start: bytes) -> bytes:
    return nifti.inflated_start(start) if start.startswith(nifti.GZIP) else start


def _text(start: bytes) -> bool:
    """Whether bytes read as text: no control characters but those of lines, in UTF-8, UTF-16 or a Latin alphabet."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    if len(start) < _FEW or any(byte < 32 and byte not in (9, 10, 12, 13, 27) for byte in start):
        return False
    try:
        start[:-3].decode()
    except UnicodeDecodeError as error:
        if error.start < len(start) - 6:
            return sum(byte > 127 for byte in start) < len(start) // 2
    return True
