"""The order of an epoch's samples: shards permuted, samples spread over a window of shards. NumPy only.

Every sample gets a position: its shard's number in the permutation, shifted by a random share of the window. Sorting by
position mixes the samples of about `window` shards at any time, from the first sample to the last, and an order can be
computed piece by piece: a piece looks at the shards around it and at nothing before. Randomness is a hash of
(key, index), not a generator's stream, so that no version of NumPy changes an epoch.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_UNIT = 2.0**-53


def key_of(*words: object) -> int:
    """Hash words into a 64-bit key."""
    text = "\x1f".join(str(word) for word in words)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def mix(key: int, values: npt.NDArray[np.integer]) -> Words:
    """Hash each value into 64 uniform bits: SplitMix64 (Steele, Lea & Flood 2014), keyed twice.

    Parameters
    ----------
    key : int
        See `key_of`.
    values : ndarray of int
        Any shape.

    Returns
    -------
    ndarray of uint64
        Of that shape.
    """
    x = values.astype(np.uint64)
    with np.errstate(over="ignore"):
        for word in (key, key >> 32 | (key & 0xFFFFFFFF) << 32):
            x = (x ^ np.uint64(word)) * _GOLDEN
            x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            x ^= x >> np.uint64(31)
    return x


def uniform(key: int, values: npt.NDArray[np.integer]) -> npt.NDArray[np.float64]:
    """Hash each value into a number in [0, 1), as `mix` does."""
    drawn: npt.NDArray[np.float64] = (mix(key, values) >> np.uint64(11)).astype(np.float64) * _UNIT
    return drawn


@dataclass(frozen=True)
class Order:
    """The shuffled order of `starts[-1]` samples that lie in shards.

    Attributes
    ----------
    starts : ndarray of int64, (shards + 1,)
        First sample of each shard, and the end; no shard is empty.
    window : int
        Shards that are mixed at any time.
    key : int
        See `key_of`.
    """

    starts: Ints
    window: int
    key: int

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return len(self.starts) - 1

    @property
    def width(self) -> int:
        """The window, or all shards where there are fewer."""
        return max(1, min(self.window, self.shards))

    @property
    def pieces(self) -> int:
        """How many pieces the order is computed in; a piece holds about a window's samples."""
        return ceil_div(self.shards, self.width)

    @cached_property
    def permutation(self) -> Ints:
        """The shards in the order they are drawn from."""
        return np.argsort(mix(self.key, np.arange(self.shards)), kind="stable")

    @cached_property
    def lows(self) -> npt.NDArray[np.float64]:
        """Least position of each shard's samples, in the permutation's order; never decreases."""
        middle = np.arange(self.shards) + 0.5 - self.width / 2
        return np.clip(middle, 0.0, self.shards - self.width)

    def _near(self, piece: int) -> slice:
        """Find the part of the permutation whose shards may have samples in a piece: positions are [low, low + width].

        Rounding may put a position on the very end of its range, and that belongs to the next piece.
        """
        first = np.searchsorted(self.lows, (piece - 1) * self.width, side="left")
        last = np.searchsorted(self.lows, (piece + 1) * self.width, side="left")
        return slice(int(first) if piece else 0, int(last))

    def near(self, piece: int) -> Ints:
        """Return the shards that a piece draws samples from."""
        return self.permutation[self._near(piece)]

    def piece(self, number: int) -> Ints:
        """Return the samples of piece `number`, 0 to pieces - 1, in order; the pieces join to the whole order."""
        near = self._near(number)
        shards = self.permutation[near]
        counts = (self.starts[1:] - self.starts[:-1])[shards]
        ends = np.cumsum(counts)
        samples = np.arange(int(ends[-1])) + np.repeat(self.starts[shards] - (ends - counts), counts)
        positions = np.repeat(self.lows[near], counts) + self.width * uniform(self.key ^ 1, samples)
        inside = positions >= number * self.width
        if number < self.pieces - 1:  # the last one includes its end
            inside &= positions < (number + 1) * self.width
        samples, positions = samples[inside], positions[inside]
        ordered: Ints = samples[np.argsort(positions, kind="stable")]
        return ordered
