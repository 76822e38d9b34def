"""Compressed frame -> stored values, through the fastest library that is correct for the syntax.

The choice depends on the bytes alone, never on timing: lossy JPEG differs by one grey level between decoders, so a
build must not let two of them race. Which one decoded a sample is recorded with its version.
"""

import functools
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.uid as uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from shardkit.errors import Quarantined

Array = npt.NDArray[np.integer]

_JPEG = {str(uid.JPEGBaseline8Bit), str(uid.JPEGExtended12Bit)}
_JPEG_LOSSLESS = {str(uid.JPEGLossless), str(uid.JPEGLosslessSV1)}
_JPEG_LS = {str(uid.JPEGLSLossless), str(uid.JPEGLSNearLossless)}
_J2K = {str(uid.JPEG2000Lossless), str(uid.JPEG2000)}
_HTJ2K = {str(uid.HTJ2KLossless), str(uid.HTJ2KLosslessRPCL), str(uid.HTJ2K)}
_RLE = {str(uid.RLELossless)}
SUPPORTED = _JPEG | _JPEG_LOSSLESS | _JPEG_LS | _J2K | _HTJ2K | _RLE
LOSSY = {str(uid.JPEGBaseline8Bit), str(uid.JPEGExtended12Bit), str(uid.JPEGLSNearLossless)}

_SOI, _EOI, _SOC, _JP2 = b"\xff\xd8", b"\xff\xd9", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  "
SIGNATURES: dict[str, tuple[bytes, ...]] = {
    **dict.fromkeys(_JPEG | _JPEG_LOSSLESS | _JPEG_LS, (_SOI,)),
    **dict.fromkeys(_J2K | _HTJ2K, (_SOC, _JP2)),
    **dict.fromkeys(_RLE, ()),
}
_IMAGECODECS, _PYDICOM = f"imagecodecs {version('imagecodecs')}", f"pydicom {version('pydicom')}"


def decode(stream: bytes, syntax: str, dataset: Dataset) -> tuple[Array, str, tuple[str, ...]]:
    """Stored values (rows, cols), integer, as the codec gives them; the decoder's name; repairs made.

    Raises Quarantined (decode_error, dimension_mismatch).
    """
    repairs: tuple[str, ...] = ()
    _require_whole(stream, syntax, dataset)
    if syntax in _JPEG:
        stream, repairs = repair_jpeg_sos(stream)
    attempts: list[tuple[str, tuple[str, ...], Callable[[], Array]]] = []
    library = _library(syntax, stream)
    if library is not None:
        attempts.append((f"{_IMAGECODECS} {library.__name__}", (), functools.partial(library, stream)))
    if syntax in _RLE | _JPEG | _J2K:  # of lossless JPEG and JPEG-LS, pylibjpeg reads broken streams without a word
        attempts.append((f"{_PYDICOM} pylibjpeg", (), functools.partial(_pydicom, stream, syntax, dataset)))
    if library is not None and syntax in _J2K and (cut := repair_j2k_com(stream)) is not None:
        attempts.append((f"{_IMAGECODECS} {library.__name__}", ("j2k_com",), functools.partial(library, cut)))
    failure = ""
    for name, repair, attempt in attempts:
        try:
            image = attempt()
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in a Rust library is no Exception
            # Only the class of a library's error is kept: its text is not known to be free of header values.
            failure = f"{name}: {type(error).__name__}"
            continue
        return _one_plane(image, dataset), name, repairs + repair
    raise Quarantined("decode_error", f"no decoder reads the compressed stream (last tried {failure})")


def _require_whole(stream: bytes, syntax: str, dataset: Dataset) -> None:
    """Most codecs decode a stream cut short as if it were whole, so its end is looked for first."""
    # The coded data of all three JPEGs never hold the end marker's two bytes (T.81 B.1.1.5, T.87 A.1).
    if syntax in _JPEG | _JPEG_LOSSLESS | _JPEG_LS and _EOI not in stream[-64:]:
        raise Quarantined("decode_error", "the compressed stream has no end marker: it is cut short")
    if syntax in _HTJ2K and not _whole_codestream(stream):
        raise Quarantined("decode_error", "the compressed stream's tile-parts are not all there: it is cut short")
    if syntax in _RLE and int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8 > 64 * len(stream):
        # PS3.5 G.3: two bytes of a segment stand for 128 at most.
        raise Quarantined("size_mismatch", "the header claims more pixels than the run-length stream can hold")


def _whole_codestream(stream: bytes) -> bool:
    """Whether every tile-part has the length it declares and EOC follows (15444-1 A.4.2)."""
    at = stream.find(b"\xff\x90")
    while at >= 0 and stream[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(stream[at + 6 : at + 10], "big")
        if length == 0:  # the last tile-part may leave its length open
            return stream.rstrip(b"\0").endswith(b"\xff\xd9")
        at += length
    return stream[at : at + 2] == b"\xff\xd9"


def _library(syntax: str, stream: bytes) -> Callable[[bytes], Array] | None:
    if syntax in _JPEG:
        return imagecodecs.jpeg8_decode
    if syntax in _JPEG_LOSSLESS:
        # liblj92 is twice as fast as the alternatives but knows neither restarts nor a point transform.
        return imagecodecs.ljpeg_decode if _plain_lossless(stream) else imagecodecs.jpegsof3_decode
    if syntax in _JPEG_LS:
        return imagecodecs.jpegls_decode
    if syntax in _J2K:
        return imagecodecs.jpeg2k_decode
    if syntax in _HTJ2K:
        return imagecodecs.htj2k_decode
    return None


def _one_plane(image: Array, dataset: Dataset) -> Array:
    image = np.asarray(image)
    rows, cols = int(dataset.Rows), int(dataset.Columns)
    if image.ndim == 3 and 1 in (image.shape[0], image.shape[2]):
        image = image.reshape(image.shape[:2] if image.shape[2] == 1 else image.shape[1:])
    if image.shape != (rows, cols):
        raise Quarantined(
            "dimension_mismatch",
            f"the stream holds {'x'.join(map(str, image.shape))}, the header says {rows}x{cols}",
        )
    return image


def _pydicom(stream: bytes, syntax: str, dataset: Dataset) -> Array:
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": 1,
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": int(dataset.get("BitsStored") or dataset.BitsAllocated),
        "pixel_representation": int(dataset.PixelRepresentation),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(uid.UID(syntax))
    array, _ = decoder.as_array(encapsulate([stream]), index=0, raw=True, decoding_plugin="pylibjpeg", **options)
    return array


def is_lossy(stream: bytes | memoryview, syntax: str) -> bool:
    """Whether the stream's own coding loses: by its syntax, or by the wavelet that its JPEG 2000 header names."""
    if syntax in _J2K | _HTJ2K:
        at = bytes(stream[:65536]).find(b"\xff\x52")  # COD; its last byte but precincts is the transform (A.6.1)
        return at >= 0 and at + 13 < len(stream) and stream[at + 13] == 0
    return syntax in LOSSY


def native(
    frame: bytes | memoryview, rows: int, cols: int, bits_allocated: int, big_endian: bool, words: bool = True
) -> Array:
    """Uncompressed samples, padded to whole words, -> (rows, cols) uint8 or uint16 in the machine's byte order."""
    if bits_allocated == 8:
        if big_endian and words:  # PS3.5 8.1.2: OW swaps the two 8-bit samples of each word
            frame = np.frombuffer(bytes(frame).ljust(len(frame) + len(frame) % 2, b"\0"), "u2").byteswap().tobytes()
        return np.frombuffer(frame, np.uint8, rows * cols).reshape(rows, cols)
    if bits_allocated == 16:
        order = ">u2" if big_endian else "<u2"
        return np.frombuffer(frame, order, rows * cols).reshape(rows, cols).astype("=u2", copy=False)
    raise Quarantined("bad_value", f"BitsAllocated {bits_allocated}: only 8 and 16 bits make a radiograph")


def _markers(stream: bytes) -> list[tuple[int, int]]:
    """(marker code, offset of its segment) of a JPEG stream up to and including the first SOS (ITU-T T.81 B.1.1)."""
    found, at = [], 2
    while at + 4 <= len(stream) and stream[at] == 0xFF:
        code = stream[at + 1]
        if code == 0xFF:
            at += 1
            continue
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if end > len(stream):
            break
        found.append((code, at + 2))
        if code == 0xDA:
            break
        at = end
    return found


def _plain_lossless(stream: bytes) -> bool:
    """One component, first-order predictors without point transform, no restart intervals."""
    markers = dict(_markers(stream))
    if 0xDD in markers or 0xC3 not in markers or 0xDA not in markers:
        return False
    sof, sos = markers[0xC3], markers[0xDA]
    if stream[sof + 7] != 1 or stream[sos + 2] != 1:
        return False
    predictor, point_transform = stream[sos + 5], stream[sos + 7] & 0x0F
    return predictor == 1 and point_transform == 0 and stream[sof + 2] > 8


def repair_jpeg_sos(stream: bytes) -> tuple[bytes, tuple[str, ...]]:
    """Some PACS write the scan's end of spectral selection as 0; sequential DCT demands 63 (T.81 table B.3)."""
    markers = dict(_markers(stream))
    if 0xDA in markers and (0xC0 in markers or 0xC1 in markers):
        se = markers[0xDA] + 3 + 2 * stream[markers[0xDA] + 2] + 1
        if se < len(stream) and stream[se] == 0:
            return stream[:se] + b"\x3f" + stream[se + 1 :], ("jpeg_sos",)
    return stream, ()


def repair_j2k_com(stream: bytes) -> bytes | None:
    """Cut a comment segment that stands between the tile data and EOC, where the standard allows none."""
    at = stream.rfind(b"\xff\x64")
    tail = stream[at:]
    if at < 0 or b"\xff\xd9" not in tail[-4:] or b"\xff\x93" not in stream[:at]:
        return None
    return stream[:at] + b"\xff\xd9"
