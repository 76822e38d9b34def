"""Where a loader's time goes, stage by stage and bin by bin."""

import threading
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from shardkit.catalog import Detail
from shardkit.plan.forming import MicroBatch
from shardkit.stream.cache import Cached
from shardkit.stream.fetch import Fetcher


@dataclass
class BinStats:
    """Of the images stored in one bin. decode_s adds up over threads."""

    images: int = 0
    bytes: int = 0
    mpx: float = 0.0
    decode_s: float = 0.0

    @property
    def mpx_per_decode_s(self) -> float:
        """Megapixels by second and thread."""
        return self.mpx / self.decode_s if self.decode_s else 0.0


@dataclass
class Stats:
    """Counters of a loader since it was made or `reset`. Seconds of threads that run side by side add up.

    wait_s: the consumer waited for batches. fetch_s: reads, over all connections. decode_s: over all threads.
    graph_s, assemble_s: of the producer. tokens: used, and slots: padding included. bad: messages, of this epoch.
    """

    batches: int = 0
    images: int = 0
    tokens: int = 0
    slots: int = 0
    wait_s: float = 0.0
    graph_s: float = 0.0
    assemble_s: float = 0.0
    bad: list[str] = field(default_factory=list)
    bins: dict[str, BinStats] = field(default_factory=lambda: defaultdict(BinStats))
    _fetchers: list[Fetcher] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def watch(self, fetcher: Fetcher) -> None:
        """Count what this fetcher reads."""
        self._fetchers.append(fetcher)

    def waited(self, seconds: float) -> None:
        """The consumer had to wait."""
        self.wait_s += seconds

    def decoded(self, detail: Detail, level: int, size: int, seconds: float) -> None:
        """A thread decoded an image."""
        name = f"{detail.number('bin_height'):04.0f}x{detail.number('bin_width'):04.0f}"
        pixels = (int(detail.number("height")) >> level) * (int(detail.number("width")) >> level)
        with self._lock:
            of = self.bins[name]
            of.images += 1
            of.bytes += size
            of.mpx += pixels / 1e6
            of.decode_s += seconds

    def built(self, micro: MicroBatch, graph_s: float, assemble_s: float) -> None:
        """The producer finished a batch."""
        self.batches += 1
        self.images += len(micro.views)
        self.tokens += micro.used + micro.again
        self.slots += micro.slots
        self.graph_s += graph_s
        self.assemble_s += assemble_s

    def where(self) -> str:
        """What has been done so far, for a message about a stall."""
        requests = sum(f.stats.requests for f in self._fetchers)
        return f"{requests:,} reads done, {sum(b.images for b in self.bins.values()):,} images decoded"

    def report(self) -> dict[str, Any]:
        """Plain numbers: stages, fetches, cache, and a row a bin."""
        fetched = [f.stats for f in self._fetchers]
        caches = [f.reader for f in self._fetchers if isinstance(f.reader, Cached)]
        with self._lock:
            bins = {k: asdict(v) | {"mpx_per_decode_s": v.mpx_per_decode_s} for k, v in sorted(self.bins.items())}
        return {
            "batches": self.batches,
            "images": self.images,
            "mpx": sum(b["mpx"] for b in bins.values()),
            "tokens": self.tokens,
            "slots": self.slots,
            "wait_s": self.wait_s,
            "fetch_s": sum(f.seconds for f in fetched),
            "requests": sum(f.requests for f in fetched),
            "read_bytes": sum(f.read_bytes for f in fetched),
            "refetched": sum(f.refetched for f in fetched),
            "decode_s": sum(b["decode_s"] for b in bins.values()),
            "graph_s": self.graph_s,
            "assemble_s": self.assemble_s,
            "bad": len(self.bad),
            "cache": {
                k: sum(getattr(c, k) for c in caches) for k in ("hits", "misses", "fills", "evictions", "filled_bytes")
            },
            "bins": bins,
        }
