"""How often an epoch shows each sample: once, or as the weight of its member of a mixture says.

Of weight w, a sample is shown floor(w) or ceil(w) times. Which samples are shown the once more is decided by a keyed
hash, anew each epoch: those with the least, as many as make w a sample on average, so that a member's share of an epoch
hardly varies. NumPy only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from shardkit.plan.samples import Ints, Samples
from shardkit.plan.shuffle import key_of, mix, uniform

_CHUNK = 1 << 20  # samples hashed together


@dataclass(frozen=True)
class Draws:
    """What an epoch shows, one pass over the samples after another: whose weight is above k are in pass k, or may be.

    Passes are shuffled as if they were other shards, so that a sample that is shown again is shown at another time.

    Attributes
    ----------
    starts : ndarray of int64, (stretches + 1,)
        First draw of each stretch, which is what a pass shows of a shard, and the end; none is empty.
    samples : ndarray of int32 or int64, (draws,), optional
        The sample that each draw shows; None where draw i shows sample i.
    passes : ndarray of int64
        First draw of each pass.
    """

    starts: Ints
    samples: npt.NDArray[np.signedinteger[Any]] | None
    passes: Ints

    @classmethod
    def of(cls, samples: Samples, key: int) -> "Draws":
        """Draw an epoch.

        Parameters
        ----------
        samples : Samples
            What there is to show.
        key : int
            64-bit key of the epoch; see `shardkit.plan.shuffle.key_of`.
        """
        if all(weight == 1 for weight in samples.weights):
            return cls(samples.starts, None, np.zeros(1, np.int64))
        times, kind = _times(samples, key), np.int32 if len(samples) < 1 << 31 else np.int64
        shards = samples.starts.astype(kind)
        shown, counts, passes = [np.zeros(0, kind)], [np.zeros(0, np.int64)], []
        for number in range(ceil(max(samples.weights))):
            passes.append(sum(map(len, shown)))
            members = [m for m in samples.of_members() if m.weight > number]
            index = [m.start + np.flatnonzero(times[m.start : m.end] > number).astype(kind) for m in members]
            shown.append(np.concatenate([np.zeros(0, kind), *index], dtype=kind))
            counts.append(np.diff(np.searchsorted(shown[-1], shards)))
        of_stretches = np.concatenate(counts)
        starts = np.concatenate([[0], np.cumsum(of_stretches[of_stretches > 0])])
        return cls(starts, np.concatenate(shown), np.array(passes))

    def __len__(self) -> int:
        """Count the draws."""
        return int(self.starts[-1])

    def sample(self, draw: Ints) -> Ints:
        """Return the samples of draws."""
        return draw if self.samples is None else self.samples[draw].astype(np.int64)

    def turn(self, draw: Ints) -> Ints | None:
        """Return how often the samples of draws were shown in passes before; None where there is one pass."""
        if self.samples is None:
            return None
        found: Ints = np.searchsorted(self.passes, draw, side="right") - 1
        return found

    def find(self, index: Ints, turn: Ints) -> Ints:
        """Return the draws that show samples, of which each was shown `turn` times before."""
        if self.samples is None:
            return index
        found, ends = np.empty(len(index), np.int64), np.append(self.passes, len(self.samples))
        for number in np.unique(turn).tolist():
            start, mine = int(ends[number]), turn == number
            shown = self.samples[start : int(ends[number + 1])]  # ascending
            found[mine] = start + np.searchsorted(shown, index[mine].astype(shown.dtype))
        return found


def _times(samples: Samples, key: int) -> npt.NDArray[np.uint16]:
    """Count how often each sample is shown."""
    times = np.empty(len(samples), np.uint16)
    for number, member in enumerate(samples.of_members()):
        whole = int(member.weight)
        times[member.start : member.end] = whole
        share = member.weight - whole
        rest = float(uniform(key_of(key, "rest"), np.array([number]))[0])  # so that it is the share on average
        count = int((member.end - member.start) * share + rest)
        if share and count:
            hashes = np.concatenate(list(_hashes(samples, member.start, member.end, key)))
            times[member.start : member.end] += hashes <= np.partition(hashes, count - 1)[count - 1]
    return times


def _hashes(samples: Samples, start: int, end: int, key: int) -> Iterator[npt.NDArray[np.uint32]]:
    """Hash samples by their rows, a part at a time: half the bits are enough, and take half the memory."""
    for at in range(start, end, _CHUNK):
        rows = samples.row(np.arange(at, min(at + _CHUNK, end)))
        yield (mix(key, rows) >> np.uint64(32)).astype(np.uint32)
