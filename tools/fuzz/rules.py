"""The project's pixel rules said a second time, simply: from stored values to uniform pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

Ints = npt.NDArray[np.int64]


def uniform(values: Ints, ds: Dataset, bits: int, signed: bool) -> tuple[Ints, int, npt.NDArray[np.bool_]]:
    """Apply the project's pixel rules to stored values.

    Returns
    -------
    tuple
        Uniform pixels, their depth, and where the stored value is padding or next to it.
    """
    allocated = int(ds.BitsAllocated)
    stored = _two(values, bits, signed)
    low = -(1 << (bits - 1)) if signed else 0
    padding, near = _padding(values, stored, ds, bits, signed, allocated)
    table = modality_table(ds, signed)
    slope = float(ds.get("RescaleSlope") or 1)
    if table is None:
        pixels, depth = stored - low, bits
    else:
        first, entries = table
        # Padding has no grey value; it stands at the least index.
        pixels = entries[np.clip(np.where(padding, low, stored) - first, 0, len(entries) - 1)]
        depth = max(bits, int(entries.max()).bit_length())
    if (str(ds.PhotometricInterpretation).strip() == "MONOCHROME1") != (table is None and slope < 0):
        pixels = (1 << depth) - 1 - pixels
    return np.where(padding, 0, pixels), depth, near


def _two(values: Ints, bits: int, signed: bool) -> Ints:
    """Take the low `bits` bits, as two's complement where signed."""
    low = values & ((1 << bits) - 1)
    return np.where(low >> (bits - 1) & 1, low - (1 << bits), low) if signed else low


def _padding(
    values: Ints, stored: Ints, ds: Dataset, bits: int, signed: bool, allocated: int
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    none = np.zeros(values.shape, bool)
    ends: list[int | None] = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        try:
            ends.append(int(_two(np.int64(int(ds.get(name))), allocated, signed)))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            ends.append(None)
    if ends[0] is None:
        return none, none
    first, last = sorted((ends[0], ends[0] if ends[1] is None else ends[1]))
    low = -(1 << (bits - 1)) if signed else 0
    inside = low <= first and last < low + (1 << bits)
    words = stored if inside else _two(values, allocated, signed)
    return (words >= first) & (words <= last), (words >= first - 2) & (words <= last + 2)


def modality_table(ds: Dataset, signed: bool) -> tuple[int, Ints] | None:
    """Return a Modality LUT that can be used: the first value mapped, and its entries."""
    try:
        item = ds.ModalityLUTSequence[0]
        count, first, _ = (int(v) for v in item.LUTDescriptor)
        data = item["LUTData"].value
        if isinstance(data, bytes):
            order = "<" if ds.original_encoding[1] else ">"
            data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * (count or 65536) else "u1")
        entries = np.asarray(data, np.int64)[: count or 65536]
    except Exception:
        return None
    return (first - 65536 if signed and first > 32767 else first), entries
