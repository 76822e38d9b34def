"""Where a loader's time goes, stage by stage and bin by bin."""

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from shardkit.dataset.rounding import halved
from shardkit.loader.sample_index import Detail
from shardkit.loader.stream.fetch import Fetcher
from shardkit.plan.shapes import MicroBatch

_FETCH = ("requests", "read_bytes", "seconds", "refetched")
_CACHE = ("hits", "misses", "fills", "evictions", "filled_bytes")

Shares = Mapping[str, float]
"""Bin -> share of a batch's pixels."""


@dataclass
class BinStats:
    """Counters of the images that are stored in one bin.

    Attributes
    ----------
    images : int
        Images that were decoded.
    bytes : int
        Their encoded bytes.
    mpx : float
        Their pixels, in millions.
    cache_hits : int
        Reads that found their shard in the disk cache.
    wait_s : float
        Seconds that the consumer waited, shared among a batch's bins by pixels.
    fetch_s : float
        Seconds of reads, added up over connections.
    decode_s : float
        Seconds of decoding, added up over threads; 0 where the graph decodes, whose `graph_s` has it.
    """

    images: int = 0
    bytes: int = 0
    mpx: float = 0.0
    cache_hits: int = 0
    wait_s: float = 0.0
    fetch_s: float = 0.0
    decode_s: float = 0.0


@dataclass
class Stats:
    """Counters of a loader since it was made. Seconds of threads that run side by side add up.

    Attributes
    ----------
    batches, images : int
        Batches that were made, and images in them.
    decodes : int
        Decodes that these batches took, again ones included; none for an image whose bytes could not be read.
    tokens, padded_tokens : int
        Tokens of images, and tokens with padding included.
    wait_s : float
        Seconds that the consumer waited for batches.
    graph_s, augment_s, assemble_s : float
        Seconds that images were cut out, resized and normalised: by the producer where a graph does it, else added up
        over threads; that the producer changed the grey levels of views and had images augmented; and that it laid
        images out in batches.
    bad : list of str
        What was wrong with samples of this epoch.
    bins : dict of BinStats
        Counters by bin.
    """

    batches: int = 0
    images: int = 0
    decodes: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    wait_s: float = 0.0
    graph_s: float = 0.0
    augment_s: float = 0.0
    assemble_s: float = 0.0
    bad: list[str] = field(default_factory=list)
    bins: dict[str, BinStats] = field(default_factory=lambda: defaultdict(BinStats))
    _ended: dict[str, float] = field(default_factory=lambda: defaultdict(float))  # of fetchers that are closed
    _fetcher: Fetcher | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, fetcher: Fetcher | None) -> None:
        """Count what this fetcher reads from now on; None: keep the last one's counts and forget it."""
        with self._lock:
            if self._fetcher is not None:
                for name, value in _counts(self._fetcher).items():
                    self._ended[name] += value
                for name, (seconds, hits) in _by_bin(self._fetcher).items():
                    self.bins[name].fetch_s += seconds
                    self.bins[name].cache_hits += hits
            self._fetcher = fetcher

    def waited(self, seconds: float, shares: Shares) -> None:
        """Count that the consumer had to wait for a batch."""
        self.wait_s += seconds
        with self._lock:
            for name, share in shares.items():
                self.bins[name].wait_s += share * seconds

    def decoded(self, detail: Detail, level: int, size: int, seconds: float, painting: float) -> None:
        """Count that a thread decoded an image, and painted it."""
        with self._lock:
            of = self.bins[detail.bin]
            of.images += 1
            of.bytes += size
            of.mpx += halved(int(detail.number("height")), level) * halved(int(detail.number("width")), level) / 1e6
            of.decode_s += seconds
            self.graph_s += painting

    def changed(self, graph_s: float, augment_s: float) -> None:
        """Count the producer's seconds for images that were not painted where they belong."""
        with self._lock:
            self.graph_s += graph_s
            self.augment_s += augment_s

    def built(self, micro: MicroBatch, decodes: int, assemble_s: float) -> None:
        """Count that the producer finished a batch."""
        self.batches += 1
        self.images += len(micro.crops)
        self.decodes += decodes
        self.tokens += micro.real_tokens + micro.repeated_tokens
        self.padded_tokens += micro.padded_tokens
        self.assemble_s += assemble_s

    def where(self) -> str:
        """Say what has been done so far, for a message about a stall."""
        report = self.report()
        return f"{report['requests']:,.0f} reads done, {report['images']:,} images in batches"

    def report(self) -> dict[str, Any]:
        """Gather plain numbers: stages, fetches, cache, and a row a bin with Mpx by second and decoding thread."""
        with self._lock:
            counts, bins = dict(self._ended), {name: asdict(of) for name, of in sorted(self.bins.items())}
            for name, value in _counts(self._fetcher).items():
                counts[name] = counts.get(name, 0) + value
            for name, (seconds, hits) in _by_bin(self._fetcher).items():
                row = bins.setdefault(name, asdict(BinStats()))
                row["fetch_s"] += seconds
                row["cache_hits"] += hits
        for row in bins.values():
            row["mpx_per_decode_s"] = row["mpx"] / row["decode_s"] if row["decode_s"] else 0.0
        return {
            "batches": self.batches,
            "images": self.images,
            "decodes_per_sample": self.decodes / self.images if self.images else 0.0,
            "mpx": sum(row["mpx"] for row in bins.values()),
            "tokens": self.tokens,
            "padded_tokens": self.padded_tokens,
            "wait_s": self.wait_s,
            "fetch_s": counts.get("seconds", 0.0),
            **{name: counts.get(name, 0) for name in ("requests", "read_bytes", "refetched")},
            "decode_s": sum(row["decode_s"] for row in bins.values()),
            "graph_s": self.graph_s,
            "augment_s": self.augment_s,
            "assemble_s": self.assemble_s,
            "bad": len(self.bad),
            "cache": {name: counts.get(name, 0) for name in _CACHE},
            "bins": bins,
        }


def _counts(fetcher: Fetcher | None) -> dict[str, float]:
    if fetcher is None:
        return {}
    stats = fetcher.stats
    return {name: getattr(stats, name) for name in _FETCH} | {name: getattr(stats.cache, name) for name in _CACHE}


def _by_bin(fetcher: Fetcher | None) -> dict[str, tuple[float, int]]:
    """Seconds of reads and cache hits by bin."""
    if fetcher is None:
        return {}
    hits = fetcher.stats.cache.hits_by_bin
    return {name: (seconds, hits[name]) for name, seconds in list(fetcher.stats.bins.items())}
