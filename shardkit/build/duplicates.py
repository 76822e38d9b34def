"""What only the whole dataset can tell: groups that a split must not cut, and images of reversed polarity.

NumPy in, NumPy out; no I/O.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shardkit.dataset.near import Pairs, Thumbs

SPLITS = ("train", "val", "test")
_ROWS = 256  # thumbnails worked on at once, which a processor's cache holds


def components(n: int, pairs: Pairs) -> npt.NDArray[np.int64]:
    """Return the label of the connected component of each of n nodes, (n,): 0, 1, ... by their first nodes.

    In NumPy, because loading scipy.sparse takes a fifth of a second at the end of every build.
    """
    first = np.arange(n)  # of each node, one of its component that is not behind it
    if len(pairs):
        while True:
            ends = first[pairs]
            lowest = ends.min(1)
            if (ends.max(1) == lowest).all():
                break
            for end in ends.T:
                np.minimum.at(first, end, lowest)
            while (first != (further := first[first])).any():
                first = further
    return np.asarray(np.unique(first, return_inverse=True)[1], np.int64)


def shared_splits(own: npt.NDArray[np.int8], pairs: Pairs) -> npt.NDArray[np.int8]:
    """Return the split of every patient, one for all that links connect: the most exposed of what their hashes give.

    A new link can therefore only move patients towards training, never an image that a model has seen into a test.

    Parameters
    ----------
    own : ndarray of int8, (n,)
        What each patient's hash gives, an index into SPLITS.
    pairs : ndarray of int64, (links, 2)
        Patients who may be one, or who share an image.

    Returns
    -------
    ndarray of int8, (n,)
        Indices into SPLITS.
    """
    shared = own.copy()
    linked = np.unique(pairs)
    labels = components(len(linked), np.searchsorted(linked, pairs))
    best = np.full(int(labels.max(initial=-1)) + 1, len(SPLITS) - 1, np.int8)
    np.minimum.at(best, labels, own[linked])
    shared[linked] = best[labels]
    return shared


def minority_sides(n: int, same: Pairs, inverse: Pairs) -> npt.NDArray[np.int64]:
    """Which nodes of each image-and-negative group are suspect: the smaller side, or both when they are even."""
    joined = components(n, np.concatenate([same, inverse]))
    sides = components(n, same)
    suspects: list[int] = []
    for group in np.unique(joined[inverse[:, 0]]):
        nodes = np.flatnonzero(joined == group)
        labels, counts = np.unique(sides[nodes], return_counts=True)
        if len(labels) == 2 and counts[0] != counts[1]:
            suspects.extend(nodes[sides[nodes] == labels[np.argmin(counts)]])
        else:
            suspects.extend(nodes)
    return np.array(sorted(suspects), np.int64)


class Templates:
    """Mean thumbnails of body part and view, against which an image of reversed polarity correlates negatively."""

    MIN_IMAGES = 20
    THRESHOLD = -0.4

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], npt.NDArray[np.float64]] = {}
        self._counts: dict[tuple[str, str], int] = {}

    def add(self, kinds: Sequence[tuple[str, str]], thumbs: Thumbs) -> None:
        """First pass: take in thumbnails (n, pixels) of known body part and view."""
        for kind, rows in _by_kind(kinds):
            total = standardise(thumbs[rows]).sum(0)
            self._sums[kind] = self._sums.get(kind, 0) + total
            self._counts[kind] = self._counts.get(kind, 0) + len(rows)

    def suspects(self, kinds: Sequence[tuple[str, str]], thumbs: Thumbs) -> npt.NDArray[np.bool_]:
        """Second pass: which rows correlate at -0.4 or less with the mean of the others of their kind."""
        out = np.zeros(len(thumbs), bool)
        for kind, rows in _by_kind(kinds):
            if self._counts.get(kind, 0) >= self.MIN_IMAGES:
                for some in np.split(rows, range(_ROWS, len(rows), _ROWS)):
                    x = standardise(thumbs[some])
                    rest = self._sums[kind] - x
                    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-9)
                    out[some] = (x * rest).sum(1) <= self.THRESHOLD
        return out


def standardise(thumbs: Thumbs) -> npt.NDArray[np.float64]:
    """Rows with mean 0 and norm 1."""
    out = np.empty(thumbs.shape, np.float64)
    for start in range(0, len(thumbs), _ROWS):
        x = out[start : start + _ROWS]
        x[:] = thumbs[start : start + _ROWS]
        x -= x.mean(1, keepdims=True)
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    return out


def _by_kind(kinds: Sequence[tuple[str, str]]) -> Iterator[tuple[tuple[str, str], npt.NDArray[np.int64]]]:
    for kind in sorted(set(kinds)):
        if kind[0]:
            yield kind, np.array([i for i, k in enumerate(kinds) if k == kind])
