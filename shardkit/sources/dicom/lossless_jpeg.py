"""Lossless JPEG (ITU-T T.81 annex H): decoding that notices damage.

libjpeg-turbo has every feature (seven predictors, restart intervals, point transform, 2-16 bits) and is the fastest,
but says nothing of damaged data. So its result is held against the stream: the values' codes must begin at each row
with just the bits that stand there, and end where the coded data do. A decoder that lost its way, by a hole, a cut or
an error of its own, is out of step by the next row. What remains is damage that is itself the code of some image: the
format has no redundancy for it.
"""

from typing import cast

import imagecodecs
import numpy as np
import numpy.typing as npt

from shardkit.errors import Quarantined
from shardkit.sources.dicom.streams import REMEDY, Huffman, Jpeg, Scan, damaged

Words = npt.NDArray[np.uint16]
Codes = npt.NDArray[np.uint64]

_SLACK = 16  # bytes of zeros or ones: some encoders pad the last interval to their own word
_BLOCK = 1 << 16  # values measured at once, so that they stay in the cache
_COMPARED = 8  # values of a row whose codes are compared bit by bit
_LINEAR = 4  # up to this predictor, sums modulo 2**16 are also right modulo 2**precision


def decode(stream: bytes, header: Jpeg) -> tuple[Words, tuple[str, ...]]:
    """Decode a one-component stream.

    Returns
    -------
    values : ndarray of uint16, (rows, cols)
        Within the stream's precision.
    repairs : tuple of str
        "jpeg_modulo", where sums were taken modulo 2**precision.

    Raises
    ------
    Quarantined
        decode_error, when the coded data are damaged or of a kind that no decoder here has.
    """
    scan = _one_scan(header)
    # With 16 bits declared the decoder keeps all 16 of its sums: some encoders rely on a modulus of 2**precision. The
    # first prediction, half the range, is the only thing that the declared precision changes (H.1.2.1).
    wide = bytearray(stream[: header.end])
    wide[header.precision_at] = 16
    sums = np.asarray(imagecodecs.jpeg8_decode(bytes(wide)))
    if sums.shape != (header.rows, header.cols) or sums.dtype != np.uint16:
        raise damaged("its decoder gave another image than its header declares")
    shift = scan.point_transform
    sums = cast(Words, sums >> shift if shift else sums)
    _check_codes(stream, sums, header, scan)
    first = (1 << (15 - shift)) - (1 << (header.precision - shift - 1))
    values, top, repairs = sums - np.uint16(first), (1 << (header.precision - shift)) - 1, tuple[str, ...]()
    if int(values.max()) > top:
        if scan.selection > _LINEAR:
            raise damaged("its values leave its precision")
        values, repairs = values & np.uint16(top), ("jpeg_modulo",)
    return cast(Words, values << np.uint16(shift)), repairs


def _one_scan(header: Jpeg) -> Scan:
    scan = header.scans[0]
    if len(header.scans) != 1 or scan.components != 1:
        raise damaged("a grey image has one scan of one component")
    if not 1 <= scan.selection <= 7:
        raise damaged("it names a predictor that does not exist")
    if not 2 <= header.precision <= 16 or scan.point_transform >= header.precision:
        raise damaged("it declares a precision that lossless JPEG does not have")
    if header.restart % header.cols:
        raise Quarantined(
            "decode_error", f"the lossless JPEG restarts inside a row, which no decoder here reads: {REMEDY}"
        )
    if scan.table not in header.tables:
        raise damaged("its Huffman table is missing")
    return scan


def _check_codes(stream: bytes, sums: Words, header: Jpeg, scan: Scan) -> None:
    """Quarantine where the coded data are not exactly the codes of the values."""
    step = header.restart // header.cols or header.rows
    starts = range(0, header.rows, step)
    if len(starts) != len(scan.intervals):
        raise damaged("it has another number of restart intervals than its rows need")
    differences = _differences(sums, scan.selection, step, 1 << (15 - scan.point_transform))
    codes, lengths = _code_of_differences(header.tables[scan.table], header.precision - scan.point_transform)
    for row, (start, end) in zip(starts, scan.intervals, strict=True):
        coded = stream[start:end].replace(b"\xff\0", b"\xff")
        rows = differences[row : row + step]
        ends = np.cumsum(_row_bits(rows, lengths))
        left = 8 * len(coded) - int(ends[-1])
        padded = end == scan.end and left < 8 * _SLACK and {*coded[len(coded) - left // 8 :]} <= {0x00, 0xFF}
        if not 0 <= left < 8 and not (left > 0 and padded):
            raise damaged("its coded data do not end where the image does")
        begin = np.append(0, ends[:-1])
        parts = ((begin, rows[:, :_COMPARED]), (begin[-1:], rows[-1:]))  # the last row to its end
        if not all(_in_step(coded, at, part, codes, lengths) for at, part in parts):
            raise damaged("its coded data are not those of an image of its size")


def _row_bits(differences: Words, lengths: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Bits that each row's codes take."""
    out = np.empty(len(differences), np.int64)
    rows = max(1, _BLOCK // differences.shape[1])
    for start in range(0, len(out), rows):
        block = slice(start, start + rows)
        out[block] = np.take(lengths, differences[block]).sum(axis=1, dtype=np.int64)
    return out


def _in_step(
    coded: bytes, begin: npt.NDArray[np.int64], first: Words, codes: Codes, lengths: npt.NDArray[np.uint8]
) -> bool:
    """Whether the codes of each row's `first` differences stand where the rows begin, in bits from the start."""
    # Every eight bytes as one number, at every offset.
    windows = np.ndarray((len(coded) + 1,), ">u8", np.frombuffer(coded + bytes(8), np.uint8), strides=(1,))
    length = lengths[first].astype(np.int64)
    at = begin[:, None] + np.cumsum(length, axis=1) - length
    found = windows[at >> 3] << (at & 7).astype(np.uint64) >> (64 - length).astype(np.uint64)
    return np.array_equal(found, codes[first])


def _code_of_differences(table: Huffman, precision: int) -> tuple[Codes, npt.NDArray[np.uint8]]:
    """Return the code of every difference modulo 2**16, and its length in bits.

    Its category's code, then as many bits of the difference as the category says, less 1 if negative (H.1.2.2).
    """
    difference = np.arange(65536).astype(np.uint16).view(np.int16).astype(np.int64)
    category = np.ceil(np.log2(np.abs(difference) + 1)).astype(np.int64)
    more = np.where(category == 16, 0, category)  # 32,768 needs no further bit
    rest = (difference - (difference < 0)) & ((1 << more) - 1)
    length = table.lengths[category].astype(np.int64)
    code = table.codes[category].astype(np.int64) << more | rest
    # What has no code, or leads from no value to another, matches nothing: 40 bits, of which the first is set.
    missing = (length == 0) | (category > precision + 1)  # predictors 4 to 6 leave the range by one bit
    return np.where(missing, 1 << 39, code).astype(np.uint64), np.where(missing, 40, length + more).astype(np.uint8)


def _differences(x: Words, predictor: int, step: int, first: int) -> Words:
    """Each value less its prediction, modulo 2**16 (table H.1); rows 0, step, 2 step, ... begin anew."""
    out = np.empty_like(x)
    out[:, 1:] = x[:, 1:] - x[:, :-1]
    out[1:, 0] = x[1:, 0] - x[:-1, 0]
    if predictor > 1:
        a, b, c = x[1:, :-1], x[:-1, 1:], x[:-1, :-1]
        out[1:, 1:] = x[1:, 1:] - _prediction(predictor, a, b, c)
        out[::step, 1:] = x[::step, 1:] - x[::step, :-1]
    out[::step, 0] = x[::step, 0] - np.uint16(first)
    return out


def _prediction(predictor: int, a: Words, b: Words, c: Words) -> Words:
    if predictor in (2, 3):
        return b if predictor == 2 else c
    if predictor == 4:
        return a + b - c
    left, above, corner = (v.astype(np.int32) for v in (a, b, c))
    half = (left + above) >> 1
    if predictor == 5:
        half = left + ((above - corner) >> 1)
    elif predictor == 6:
        half = above + ((left - corner) >> 1)
    return half.astype(np.uint16)
