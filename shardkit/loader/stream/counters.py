"""What a fetcher and a disk cache count."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field


@dataclass
class CacheStats:
    """Counts of a disk cache.

    Attributes
    ----------
    misses : int
        Reads whose shard was not there.
    fills : int
        Shards that were brought in by this process.
    evictions : int
        Shards that this process removed for room.
    filled_bytes : int
        Bytes of the shards that were brought in.
    hits_by_bin : Counter
        Reads that found their shard, by the folder that it lies in.
    """

    misses: int = 0
    fills: int = 0
    evictions: int = 0
    filled_bytes: int = 0
    hits_by_bin: Counter[str] = field(default_factory=Counter)

    @property
    def hits(self) -> int:
        """Reads that found their shard."""
        return self.hits_by_bin.total()


@dataclass
class FetchStats:
    """Counts of a fetcher.

    Attributes
    ----------
    requests : int
        Reads that were answered.
    read_bytes : int
        Bytes of the answers.
    seconds : float
        Time that reads took, added up over those that ran side by side.
    refetched : int
        Ranges that were read again, because their bytes were wrong.
    bad : int
        Ranges that stayed wrong.
    bins : dict
        `seconds` by the folder that a shard lies in.
    cache : CacheStats
        Counts of the disk cache, if there is one.
    """

    requests: int = 0
    read_bytes: int = 0
    seconds: float = 0.0
    refetched: int = 0
    bad: int = 0
    bins: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    cache: CacheStats = field(default_factory=CacheStats)
