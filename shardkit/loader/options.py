"""A loader's keyword arguments as records: how it reads from a store, and what it keeps on a local disk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shardkit.errors import ArgumentError
from shardkit.loader.stream.reader import Reader
from shardkit.storage.waiting import check_patience


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How samples are read from the store.

    Attributes
    ----------
    read_ahead : int
        Encoded bytes to have on their way.
    connections : int
        Reads at a time.
    attempts : int
        Times that bytes are read which come back wrong, before their sample is bad.
    deadline : float
        Seconds to wait for a store that is away.
    max_bad : float
        Share of an epoch's samples that may be unreadable, and are replaced.
    wrap : callable, optional
        What to put around the reader of the store.

    Raises
    ------
    ArgumentError
        For numbers that nothing can be read with.
    """

    read_ahead: int = 256 << 20
    connections: int = 32
    attempts: int = 5
    deadline: float = 60.0
    max_bad: float = 0.001
    wrap: Callable[[Reader], Reader] | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        if not 0 <= self.max_bad <= 1:
            raise ArgumentError(f"max_bad={self.max_bad} must be a share between 0 and 1")
        check_counts(read_ahead=self.read_ahead, connections=self.connections)
        check_patience(self.attempts, self.deadline)

    def allowed(self, samples: float) -> float:
        """Return how many of an epoch's samples may be bad: at least one, unless none may."""
        return max(1.0, self.max_bad * samples) if self.max_bad else 0.0


@dataclass(frozen=True, kw_only=True)
class CacheOptions:
    """Where whole shards are kept on a local disk.

    Attributes
    ----------
    folder : Path
        Where; processes and datasets may share it.
    bytes : int
        What it may take at most.
    """

    folder: Path
    bytes: int

    @classmethod
    def of(cls, folder: str | Path | None, limit: int | None) -> "CacheOptions | None":
        """Make the record of two arguments that are both given, or None of two that are not.

        Raises
        ------
        ArgumentError
            Where one is given and the other is not.
        """
        if (folder is None) != (limit is None):
            raise ArgumentError("cache and cache_bytes go together: a folder, and the bytes it may take")
        return None if folder is None or limit is None else cls(folder=Path(folder), bytes=limit)

    def check_holds(self, shard_bytes: int) -> None:
        """Refuse a limit without room for a shard of this size.

        Raises
        ------
        ArgumentError
            Names both sizes.
        """
        if self.bytes < shard_bytes:
            raise ArgumentError(f"cache_bytes={self.bytes:,} holds no shard: the largest has {shard_bytes:,} bytes")


def check_counts(**counts: int | None) -> None:
    """Refuse numbers below 1; None is none.

    Raises
    ------
    ArgumentError
        Names the argument.
    """
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1")
