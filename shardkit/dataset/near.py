"""Near-duplicates: pairs of close perceptual hashes, which the correlation of two thumbnails confirms.

NumPy in, NumPy out; no I/O.
"""

from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Pairs = npt.NDArray[np.int64]
Thumbs = npt.NDArray[np.uint8]

HASH_BITS = 63
MAX_DISTANCE = 3
"""Measured on real radiographs: 0 within lossy copies of one image, 14 and more between different images."""
MIN_CORRELATION = 0.98

_BANDS = 5  # a distance of 3 leaves at least two of five bands untouched, so some pair of bands agrees
_BUCKET = 64  # compare within runs of this many when a bucket is larger (images without content hash alike)
_MASK = np.uint64((1 << HASH_BITS) - 1)


def near_pairs(hashes: Hashes, others: Hashes | None = None, distance: int = MAX_DISTANCE) -> Pairs:
    """Return pairs of hashes that differ in at most `distance` <= 3 bits.

    Exact for buckets of up to 64 equal band pairs; larger ones are compared within sorted runs of 64, so that a
    thousand blank images do not cost a million comparisons.

    Parameters
    ----------
    hashes : ndarray of uint64, (n,)
        Of which the lower 63 bits count.
    others : ndarray of uint64, optional
        Pairs have one hash in each array; default: both in `hashes`.
    distance : int
        Bits, at most 3.

    Returns
    -------
    ndarray of int64, (pairs, 2)
        Indices; i < j within one array.
    """
    both = hashes if others is None else np.concatenate([hashes, others])
    n = len(hashes)
    cuts = np.linspace(0, HASH_BITS, _BANDS + 1).astype(int)
    masks = [np.uint64((1 << int(b)) - (1 << int(a))) for a, b in pairwise(cuts)]
    found = [np.zeros((0, 2), np.int64)]
    for first, second in combinations(range(_BANDS), 2):
        band = both & (masks[first] | masks[second])
        order = np.lexsort((both, band))
        ends = np.flatnonzero(np.diff(band[order])) + 1
        run = np.searchsorted(ends, np.arange(len(both)), side="right")
        for step in range(1, _BUCKET):
            same = run[step:] == run[:-step]
            if not same.any():
                break
            i, j = order[:-step][same], order[step:][same]
            close = np.bitwise_count(both[i] ^ both[j]) <= distance
            i, j = np.minimum(i[close], j[close]), np.maximum(i[close], j[close])
            if others is not None:
                across = (i < n) & (j >= n)
                i, j = i[across], j[across] - n
            found.append(np.stack([i, j], 1))
    return np.unique(np.concatenate(found), axis=0)


def inverted_pairs(hashes: Hashes, others: Hashes | None = None) -> Pairs:
    """Return pairs where one hash is nearly the complement of the other: an image and its negative.

    Parameters
    ----------
    hashes, others : ndarray of uint64
        As for `near_pairs`.

    Returns
    -------
    ndarray of int64, (pairs, 2)
        Indices; i < j within one array.
    """
    # 63 coefficients cannot split evenly around their median, so a negative differs from the complement in one bit.
    pairs = near_pairs(hashes, ~(hashes if others is None else others) & _MASK, MAX_DISTANCE)
    return pairs if others is not None else pairs[pairs[:, 0] < pairs[:, 1]]


def correlation(a: Thumbs, b: Thumbs) -> npt.NDArray[np.float64]:
    """Return the Pearson correlation of each row of `a` with the same row of `b`: (n, pixels) uint8 -> (n,)."""
    x, y = (t.astype(np.float64) - t.mean(1, keepdims=True) for t in (a, b))
    norm = np.sqrt((x * x).sum(1) * (y * y).sum(1))
    return np.asarray((x * y).sum(1) / np.maximum(norm, 1e-9))
