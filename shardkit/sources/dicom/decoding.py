"""Compressed frame -> stored values, through the fastest library that is correct for the stream.

The stream decides, not the transfer syntax that the file declares (repair `wrong_ts`): which process it is, its
precision and its sign are read from its own markers. The choice of a library depends on the bytes alone, never on
timing, and is recorded with its version.

Damage. A library that notices none is helped: lossless JPEG is held against its codes, 12-bit JPEG and HTJ2K against a
second decoder; libjpeg-turbo in strict mode and CharLS find out themselves. What cannot be found is damage that is
itself a valid code: any bits of JPEG 2000's arithmetic code and of run lengths are, and some of the DCT's.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom.uid as uid
import simplejpeg
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from shardkit.errors import Quarantined
from shardkit.sources.dicom import lossless_jpeg, streams
from shardkit.sources.dicom.streams import Codestream, Jpeg

T = TypeVar("T")
Array = npt.NDArray[np.integer]

_SEQUENTIAL = {str(uid.JPEGBaseline8Bit), str(uid.JPEGExtended12Bit)}
_LOSSLESS = {str(uid.JPEGLossless), str(uid.JPEGLosslessSV1)}
_LS = {str(uid.JPEGLSLossless), str(uid.JPEGLSNearLossless)}
_PART_1 = {str(uid.JPEG2000Lossless), str(uid.JPEG2000)}
_HTJ2K = {str(uid.HTJ2KLossless), str(uid.HTJ2KLosslessRPCL), str(uid.HTJ2K)}
_JPEG, _J2K = _SEQUENTIAL | _LOSSLESS | _LS, _PART_1 | _HTJ2K
_RLE = {str(uid.RLELossless)}
SUPPORTED = _JPEG | _J2K | _RLE

SIGNATURES: dict[str, tuple[bytes, ...]] = {
    **dict.fromkeys(_JPEG, (streams.SOI,)),
    **dict.fromkeys(_J2K, (streams.SOC_SIZ, streams.JP2)),
    **dict.fromkeys(_RLE, ()),
}
_DCT = {0xC0, 0xC1, 0xC2}  # baseline, extended sequential, progressive; Huffman codes
_DCT_12 = 6  # levels that two decoders of 12-bit JPEG may differ by; measured: 4, of noise at any quality
_WAVELET = 4  # ... of the irreversible wavelet; measured: 1, at 16 bits 2
_HARMLESS = ("Unknown Adobe", "Warning: unknown JFIF")  # what libjpeg-turbo says of application segments


@dataclass(frozen=True, slots=True)
class Samples:
    """One frame as its codec gives it.

    Attributes
    ----------
    values : ndarray of int, (rows, cols)
        Stored values.
    decoder : str
        The library, its version and function.
    repairs : tuple of str
        What was mended.
    lossy : bool
        Whether its own coding loses.
    precision, signed : int, bool or None
        What the stream declares; None where it declares nothing (uncompressed, RLE).
    """

    values: Array
    decoder: str
    repairs: tuple[str, ...] = ()
    lossy: bool = False
    precision: int | None = None
    signed: bool | None = None


def decode(stream: bytes, syntax: str, dataset: Dataset) -> Samples:
    """Decode the compressed bytes of one frame.

    Parameters
    ----------
    stream : bytes
        The fragments, joined.
    syntax : str
        UID of the transfer syntax that the file declares.
    dataset : Dataset
        The header, for the size of the image.

    Raises
    ------
    Quarantined
        decode_error, dimension_mismatch, size_mismatch.
    """
    if syntax in _RLE:
        return _decode_rle(stream, syntax, dataset)
    attempt = _decode_jpeg if stream.startswith(streams.SOI) else _decode_j2k
    kind, samples = attempt(stream, dataset)
    return samples if syntax in kind else replace(samples, repairs=("wrong_ts", *samples.repairs))


def _decode_rle(stream: bytes, syntax: str, dataset: Dataset) -> Samples:
    if int(dataset.Rows) * int(dataset.Columns) * int(dataset.BitsAllocated) // 8 > 64 * len(stream):
        # PS3.5 G.3: two bytes of a segment stand for 128 at most.
        raise Quarantined("size_mismatch", "the header claims more pixels than the run-length stream can hold")
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    values = _run("pydicom pylibjpeg", functools.partial(_pydicom, stream, syntax, dataset, bits))
    return Samples(_one_plane(values, dataset), _name("pydicom", "pylibjpeg"))


def _decode_jpeg(stream: bytes, dataset: Dataset) -> tuple[set[str], Samples]:
    """Return the transfer syntaxes of the stream's process, and its samples."""
    header = streams.jpeg(stream)
    _require_size(header, dataset)
    stream, repairs = stream[: header.end], tuple[str, ...]()
    values: Array
    if header.lossless:
        kind = _LOSSLESS
        values, repairs = _run("libjpeg-turbo", functools.partial(lossless_jpeg.decode, stream, header))
        name, lossy = _name("imagecodecs", "jpeg8_decode"), False
    elif header.ls:
        kind = _LS
        values = _run("CharLS", functools.partial(imagecodecs.jpegls_decode, stream))
        name, lossy = _name("imagecodecs", "jpegls_decode"), header.scans[0].selection != 0  # NEAR (T.87 C.2.3)
    elif header.process in _DCT:
        kind = _SEQUENTIAL
        stream, repairs = repair_jpeg_sos(stream, header)
        values, name = _decode_dct(stream, header, dataset)
        lossy = True
    else:
        raise Quarantined(
            "decode_error", f"its JPEG process ({_process(header)}) has no decoder here: {streams.REMEDY}"
        )
    return kind, Samples(_one_plane(values, dataset), name, repairs, lossy, header.precision, None)


def _process(header: Jpeg) -> str:
    kind = "arithmetic coding" if header.process > 0xC8 else "hierarchical" if header.process > 0xC4 else "unknown"
    return f"SOF{header.process & 15}, {kind}"


def _decode_dct(stream: bytes, header: Jpeg, dataset: Dataset) -> tuple[Array, str]:
    """Decode with libjpeg-turbo, strictly for 8 bits.

    The coded data of 12 bits are of the same kind: its strict face walks them, too, as if of 8 bits, and the values are
    held against libjpeg's.
    """
    at = header.precision_at
    walked = stream[:at] + b"\x08" + stream[at + 1 :]
    strict = _run("libjpeg-turbo", functools.partial(_strict, walked))
    if header.precision == 8:
        return strict, _name("simplejpeg", "decode_jpeg")
    values = _run("libjpeg-turbo", functools.partial(imagecodecs.jpeg8_decode, stream))
    syntax = str(uid.JPEGExtended12Bit)
    second = _run("libjpeg", functools.partial(_pydicom, stream, syntax, dataset, header.precision))
    # Decoders of the DCT round differently, and wrap where the other clamps.
    _require_agreement(values, second, header.precision, _DCT_12)
    return values, _name("imagecodecs", "jpeg8_decode")


def _strict(stream: bytes, colours: str = "GRAY") -> Array:
    try:
        return np.asarray(simplejpeg.decode_jpeg(stream, colours, strict=True))
    except ValueError as error:
        if str(error).startswith(_HARMLESS):
            return np.asarray(simplejpeg.decode_jpeg(stream, colours, strict=False))
        raise


def decode_colours(stream: bytes, rows: int, cols: int) -> Samples:
    """Decode a JPEG of three components and 8 bits; `values` are (rows, cols, 3), red, green and blue.

    Parameters
    ----------
    stream : bytes
        From its first marker on.
    rows, cols : int
        Size of the image.

    Raises
    ------
    Quarantined
        decode_error, dimension_mismatch.
    """
    header = streams.jpeg(stream)
    values = _run("libjpeg-turbo", functools.partial(_strict, stream[: header.end], "RGB"))
    if values.shape != (rows, cols, 3):
        raise Quarantined("dimension_mismatch", "the stream holds another image than its header declares")
    return Samples(values, _name("simplejpeg", "decode_jpeg"), (), True, header.precision)


def _decode_j2k(stream: bytes, dataset: Dataset) -> tuple[set[str], Samples]:
    """Return the transfer syntaxes of the stream's block coder, and its samples."""
    header = streams.codestream(stream)
    _require_size(header, dataset)
    described = (not header.reversible, header.precision, header.signed)
    if header.high_throughput:
        values, name = _decode_htj2k(stream[header.start :], header)
        return _HTJ2K, Samples(_one_plane(values, dataset), name, (), *described)
    name, failure = _name("imagecodecs", "jpeg2k_decode"), None
    for data, repairs in ((stream, ()), (repair_j2k_com(stream), ("j2k_com",))):
        if data is not None:
            try:
                values = _run("OpenJPEG", functools.partial(imagecodecs.jpeg2k_decode, data))
            except Quarantined as error:
                failure = failure or error
            else:
                return _PART_1, Samples(_one_plane(values, dataset), name, repairs, *described)
    assert failure is not None
    raise failure


def _decode_htj2k(stream: bytes, header: Codestream) -> tuple[Array, str]:
    """Decode twice, and take what both agree on: OpenJPH gives zeros for blocks it cannot read, OpenJPEG reads on."""
    if not streams.whole(stream, header.tiles - header.start):
        raise Quarantined("decode_error", "the compressed stream's tile-parts are not all there: it is cut short")
    first = _run("OpenJPH", functools.partial(imagecodecs.htj2k_decode, stream))
    second = _run("OpenJPEG", functools.partial(imagecodecs.jpeg2k_decode, stream))
    # Rounding of the irreversible wavelet; OpenJPH wraps its overshoot, so OpenJPEG's values are taken there.
    _require_agreement(first, second, header.precision, 0 if header.reversible else _WAVELET)
    if header.reversible:
        return first, _name("imagecodecs", "htj2k_decode")
    return second, _name("imagecodecs", "jpeg2k_decode")


def _require_agreement(first: Array, second: Array, bits: int, tolerance: int) -> None:
    """Quarantine unless two decoders give the same values modulo 2**bits, within `tolerance`."""
    if first.shape == second.shape:
        apart = (first.astype(np.int32) - second.astype(np.int32) + tolerance) & ((1 << bits) - 1)
        if int(apart.max()) <= 2 * tolerance:
            return
    raise streams.damaged("two decoders read different images from it")


def _run(name: str, attempt: Callable[[], T]) -> T:
    """Return what a library gives; quarantine for whatever else it does."""
    try:
        return attempt()
    except (MemoryError, KeyboardInterrupt, SystemExit, Quarantined):
        raise
    except BaseException as error:  # a panic in a Rust library is no Exception
        # Only the class of a library's error is kept: its text is not known to be free of header values.
        raise Quarantined(
            "decode_error", f"{name} cannot read the compressed stream ({type(error).__name__}): it is damaged"
        ) from None


def _name(library: str, function: str) -> str:
    return f"{library} {_version(library)} {function}"


_version = functools.cache(version)


def _require_size(header: Jpeg | Codestream, dataset: Dataset) -> None:
    """Quarantine another size than the header's, before anything is allocated."""
    rows, cols = int(dataset.Rows), int(dataset.Columns)
    if (header.rows, header.cols, header.components) != (rows, cols, 1):
        planes = f", {header.components} components" if header.components != 1 else ""
        raise Quarantined(
            "dimension_mismatch", f"the stream holds {header.rows}x{header.cols}{planes}, the header says {rows}x{cols}"
        )


def _one_plane(image: Array, dataset: Dataset) -> Array:
    rows, cols = int(dataset.Rows), int(dataset.Columns)
    if image.ndim == 3 and 1 in (image.shape[0], image.shape[2]):
        image = image.reshape(image.shape[:2] if image.shape[2] == 1 else image.shape[1:])
    if image.shape != (rows, cols):
        raise Quarantined(
            "dimension_mismatch",
            f"the stream holds {'x'.join(map(str, image.shape))}, the header says {rows}x{cols}",
        )
    return image


def _pydicom(stream: bytes, syntax: str, dataset: Dataset, bits: int) -> Array:
    options: dict[str, Any] = {
        "rows": int(dataset.Rows),
        "columns": int(dataset.Columns),
        "samples_per_pixel": 1,
        "photometric_interpretation": str(dataset.PhotometricInterpretation),
        "bits_allocated": int(dataset.BitsAllocated),
        "bits_stored": bits,
        "pixel_representation": int(dataset.PixelRepresentation),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
    }
    decoder = get_decoder(uid.UID(syntax))
    array, _ = decoder.as_array(encapsulate([stream]), index=0, raw=True, decoding_plugin="pylibjpeg", **options)
    return array


def native(
    frame: bytes | memoryview, rows: int, cols: int, bits_allocated: int, big_endian: bool, words: bool = True
) -> Samples:
    """Return uncompressed samples as (rows, cols) uint8 or uint16 in the machine's byte order.

    Parameters
    ----------
    frame : bytes or memoryview
        Padded to whole words.
    rows, cols, bits_allocated : int
        As the header says.
    big_endian : bool
        The order of bytes.
    words : bool
        Whether 8-bit samples come in 16-bit words (VR OW).

    Raises
    ------
    Quarantined
        bad_value, for other words than of 8 and 16 bits.
    """
    if bits_allocated == 8:
        if big_endian and words:  # PS3.5 8.1.2: OW swaps the two 8-bit samples of each word
            frame = np.frombuffer(bytes(frame).ljust(len(frame) + len(frame) % 2, b"\0"), "u2").byteswap().tobytes()
        return Samples(np.frombuffer(frame, np.uint8, rows * cols).reshape(rows, cols), "native")
    if bits_allocated == 16:
        order = ">u2" if big_endian else "<u2"
        values = np.frombuffer(frame, order, rows * cols).reshape(rows, cols)
        return Samples(values.astype("=u2", copy=False), "native")
    raise Quarantined("bad_value", f"BitsAllocated {bits_allocated}: only 8 and 16 bits make a radiograph")


def repair_jpeg_sos(stream: bytes, header: Jpeg) -> tuple[bytes, tuple[str, ...]]:
    """Return the stream with the end of its spectral selection as sequential DCT demands it, and the repair.

    Some PACS write 0 there instead of 63 (T.81 table B.3).
    """
    end = header.scans[0].start - 2  # Se is the last byte of the scan header but one
    if header.process in (0xC0, 0xC1) and stream[end] == 0:
        return stream[:end] + b"\x3f" + stream[end + 1 :], ("jpeg_sos",)
    return stream, ()


def repair_j2k_com(stream: bytes) -> bytes | None:
    """Cut a comment segment that stands between the tile data and EOC, where the standard allows none."""
    at = stream.rfind(b"\xff\x64")
    tail = stream[at:]
    if at < 0 or b"\xff\xd9" not in tail[-4:] or b"\xff\x93" not in stream[:at]:
        return None
    return stream[:at] + b"\xff\xd9"
