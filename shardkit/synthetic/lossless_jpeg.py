"""Lossless JPEG (ITU-T T.81 annex H) written pixel by pixel, with the features that real encoders use.

The libraries here encode neither restart intervals nor a point transform. Slow: for small images in tests.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# One table for all: categories 0-14 have 4 bits, 15 and 16 have 6; no code is all ones (T.81 C.2).
_COUNTS = (0, 0, 0, 15, 0, 2, *(0,) * 10)
_CODES = {**{c: (c, 4) for c in range(15)}, 15: (0b111100, 6), 16: (0b111101, 6)}


def encode(
    values: npt.NDArray[np.integer],
    precision: int,
    *,
    predictor: int = 1,
    point_transform: int = 0,
    restart_rows: int = 0,
    modulus: int = 1 << 16,
) -> bytes:
    """Encode values as a lossless JPEG stream.

    Parameters
    ----------
    values : numpy.ndarray
        Unsigned values of shape (rows, cols).
    precision : int
        Bits of a value.
    predictor : int
        Which of the standard's predictors.
    point_transform : int
        Bits that values are shifted to the right.
    restart_rows : int
        Rows in a restart interval, 0 for none.
    modulus : int
        Modulus of the differences: the standard's is 2**16, some encoders take 2**precision.

    Returns
    -------
    bytes
        The stream.
    """
    image = np.asarray(values).astype(int) >> point_transform
    rows, cols = image.shape
    step = restart_rows or rows
    out = bytearray(b"\xff\xd8" + _segment(0xC4, bytes((0, *_COUNTS, *range(17)))))
    size = rows.to_bytes(2, "big") + cols.to_bytes(2, "big")
    out += _segment(0xC3, bytes((precision,)) + size + bytes((1, 1, 0x11, 0)))
    if restart_rows:
        out += _segment(0xDD, (restart_rows * cols).to_bytes(2, "big"))
    out += _segment(0xDA, bytes((1, 1, 0, predictor, 0, point_transform)))
    for number, start in enumerate(range(0, rows, step)):
        if number:
            out += bytes((0xFF, 0xD0 + (number - 1) % 8))
        out += _interval(image[start : start + step], predictor, 1 << (precision - point_transform - 1), modulus)
    return bytes(out + b"\xff\xd9")


def _segment(code: int, content: bytes) -> bytes:
    return bytes((0xFF, code)) + (len(content) + 2).to_bytes(2, "big") + content


def _interval(image: npt.NDArray[np.int_], predictor: int, first: int, modulus: int) -> bytes:
    bits = []
    for (row, col), value in np.ndenumerate(image):
        difference = (int(value) - _predicted(image, row, col, predictor, first)) % modulus
        if difference > modulus // 2 or (difference == modulus // 2 and modulus < 1 << 16):
            difference -= modulus
        category = abs(difference).bit_length()
        code, length = _CODES[category]
        bits.append(f"{code:0{length}b}")
        if 0 < category < 16:
            bits.append(f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}")
    text = "".join(bits)
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def _predicted(image: npt.NDArray[np.int_], row: int, col: int, predictor: int, first: int) -> int:
    if row == 0:
        return int(image[0, col - 1]) if col else first
    if col == 0:
        return int(image[row - 1, 0])
    a, b, c = int(image[row, col - 1]), int(image[row - 1, col]), int(image[row - 1, col - 1])
    return (a, b, c, a + b - c, a + ((b - c) >> 1), b + ((a - c) >> 1), (a + b) >> 1)[predictor - 1]
