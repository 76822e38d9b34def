"""Stored values -> uniform pixels: unsigned, MONOCHROME2 sense, background 0, native size, nothing windowed.

Polarity. The sense of *stored* values is MONOCHROME1 xor negative rescale slope xor decreasing Modality LUT (PS3.3
C.7.6.3.1.2, C.11.1). A Modality LUT sequence is applied here, which realises its direction in the values, so what is
left to undo after it is MONOCHROME1 alone; slope and intercept stay metadata and count only by the slope's sign.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from shardkit.content import Pixels
from shardkit.errors import Quarantined
from shardkit.sources.base import Invert
from shardkit.sources.dicom.decoding import Samples
from shardkit.sources.dicom.elements import value
from shardkit.sources.dicom.reading import PixelModule
from shardkit.sources.dicom.stored import Stored, stored_values

Array = npt.NDArray[np.integer]


@dataclass(frozen=True, slots=True)
class Uniform:
    """Unsigned pixels in MONOCHROME2 sense.

    Attributes
    ----------
    pixels : ndarray of uint16, (rows, cols)
        In [0, 2**bits - 1].
    bits : int
        Depth, 1 to 16.
    inverted : bool
        Whether stored values were turned around.
    padding : float
        Share of padding pixels, in [0, 1].
    flags, repairs : tuple of str
        What a person may want to look at; what was mended.
    """

    pixels: Pixels
    bits: int
    inverted: bool
    padding: float
    flags: tuple[str, ...]
    repairs: tuple[str, ...] = ()


def to_uniform(samples: Samples, module: PixelModule, dataset: Dataset, *, invert: Invert = "full") -> Uniform:
    """Return the uniform pixels of samples as their decoder gave them.

    Parameters
    ----------
    samples : Samples
        Decoded values.
    module : PixelModule
        What the header says of them.
    dataset : Dataset
        The header, for rescale and look-up tables.
    invert : str
        "full": 2**bits - 1 - x; "imagemax": max(image) - x.

    Raises
    ------
    Quarantined
        bad_value.
    """
    slope = rescale(dataset)[0]
    stored = stored_values(samples, module, dataset)
    table = modality_lut(dataset, module.signed)
    if table is None:
        values: Array = stored.values if stored.low == 0 else stored.values.astype(np.int32) - stored.low
        bits, negative = stored.bits, slope < 0
    else:
        first, entries = table
        index = np.clip(stored.values.astype(np.int32) - first, 0, len(entries) - 1)
        # The descriptor's depth is that of its container, 8 or 16; the entries' own tells what they reach.
        values, bits, negative = entries[index], max(stored.bits, int(entries.max()).bit_length()), False
    pixels: Pixels = values.astype(np.uint16, copy=False)  # may still be a read-only view of the file
    inverted = (module.photometric == "MONOCHROME1") != negative
    if inverted:
        top = (1 << bits) - 1 if invert == "full" else int(pixels.max(initial=0, where=_inside(stored)))
        pixels = np.subtract(np.uint16(top), pixels)
    share = 0.0
    if stored.padding is not None:
        share = float(np.count_nonzero(stored.padding)) / stored.padding.size
        pixels = np.where(stored.padding, np.uint16(0), pixels)
    flags = stored.flags + (("polarity_conflict",) if polarity_conflict(dataset, module.photometric) else ())
    return Uniform(pixels, bits, inverted, share, flags, stored.repairs)


def _inside(stored: Stored) -> npt.NDArray[np.bool_] | bool:
    return True if stored.padding is None else ~stored.padding


def rescale(dataset: Dataset) -> tuple[float, float]:
    """Return (slope, intercept), (1, 0) where absent.

    Raises
    ------
    Quarantined
        bad_value, when they are not numbers.
    """
    values = []
    for keyword, default in (("RescaleSlope", 1.0), ("RescaleIntercept", 0.0)):
        try:
            found = value(dataset, keyword)
            number = default if found is None or found == "" else float(found)
        except (TypeError, ValueError, OverflowError):
            raise Quarantined("bad_value", f"{keyword} is not one number") from None
        values.append(number)
    if not all(map(math.isfinite, values)) or values[0] == 0:
        raise Quarantined("bad_value", "RescaleSlope is zero or not finite")
    return values[0], values[1]


def modality_lut(dataset: Dataset, signed: bool) -> tuple[int, Pixels] | None:
    """Return (first stored value mapped, entries) of the Modality LUT sequence, or None.

    An item with neither descriptor nor data is no LUT: some exports keep the empty shell.

    Raises
    ------
    Quarantined
        bad_value.
    """
    sequence = value(dataset, "ModalityLUTSequence")
    if not sequence:
        return None
    try:
        if "LUTDescriptor" not in sequence[0] and "LUTData" not in sequence[0]:
            return None
        first, entries = _lut(sequence[0], dataset.original_encoding[1] is False)
    except (MemoryError, Quarantined):
        raise
    except Exception:
        raise Quarantined("bad_value", "the Modality LUT sequence cannot be read") from None
    if signed and first >= 1 << 15:
        first -= 1 << 16
    return first, entries


def _lut(item: Dataset, big_endian: bool) -> tuple[int, Pixels]:
    """Return (first value mapped as an unsigned word, entries) of a LUT (PS3.3 C.11.1.1). Raises as its values do."""
    count, first, bits = (int(v) for v in item.LUTDescriptor)
    data = item["LUTData"].value
    count = count or 65536  # 0 stands for 2**16
    if isinstance(data, bytes):
        order = ">" if big_endian else "<"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * count else "u1")
    entries = np.asarray(data).astype(np.uint16).ravel()
    if len(entries) < count or not 1 <= bits <= 16:
        raise Quarantined("bad_value", "the Modality LUT has fewer entries than its descriptor says")
    return first, entries[:count]


def polarity_conflict(dataset: Dataset, photometric: str) -> bool:
    """Return whether the header also says that the image is displayed in the other sense than it is written in.

    PresentationLUTShape must be INVERSE for MONOCHROME1 and IDENTITY for MONOCHROME2 (PS3.3 C.8.11.3.1.2); a VOI LUT
    that decreases turns the display around.
    """
    try:
        shape = str(value(dataset, "PresentationLUTShape") or "").strip().upper()
        if shape in ("INVERSE", "IDENTITY") and (shape == "INVERSE") != (photometric == "MONOCHROME1"):
            return True
        sequence = value(dataset, "VOILUTSequence")
        if not sequence:
            return False
        _, entries = _lut(sequence[0], dataset.original_encoding[1] is False)
    except MemoryError:
        raise
    except Exception:  # metadata only: what cannot be read tells nothing
        return False
    return int(entries[0]) > int(entries[-1])
