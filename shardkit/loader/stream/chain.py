"""The readers of a loader, one around the other: the store, what a user wraps it in, retries, log, disk cache."""

import logging
from collections.abc import Mapping

from shardkit.loader.options import CacheOptions, ReadOptions
from shardkit.loader.stream.cache import Cached, ShardIndex
from shardkit.loader.stream.counters import FetchStats
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Logged, Reader, Retrying, StoreReader
from shardkit.loader.stream.several import Several
from shardkit.storage import Store

_MOST_THREADS = 16  # that read a local folder


def open_fetcher(
    stores: Mapping[str, Store], reading: ReadOptions, cache: CacheOptions | None, index: ShardIndex
) -> Fetcher:
    """Start fetching from stores.

    Parameters
    ----------
    stores : mapping of str to Store
        Where datasets lie, by what the names of their objects begin with: nothing, where there is one.
    reading : ReadOptions
        How it is read.
    cache : CacheOptions, optional
        Where whole shards are kept; None to read just the bytes needed.
    index : ShardIndex
        Knows what lies in a shard.
    """
    stats = FetchStats()
    return Fetcher(lambda: _chain(stores, reading, cache, index, stats), reading.connections, reading.attempts, stats)


def _chain(
    stores: Mapping[str, Store],
    reading: ReadOptions,
    cache: CacheOptions | None,
    index: ShardIndex,
    stats: FetchStats,
) -> Reader:
    readers = {
        prefix: StoreReader(store, threads=min(reading.connections, _MOST_THREADS)) for prefix, store in stores.items()
    }
    innermost: Reader = readers[""] if "" in readers else Several(readers)
    wrapped = reading.wrap(innermost) if reading.wrap else innermost
    reader: Reader = Retrying(wrapped, reading.attempts, reading.deadline)
    if logging.getLogger("shardkit.stream").isEnabledFor(logging.DEBUG):
        reader = Logged(reader)
    if cache is not None:
        reader = Cached(reader, cache, index, patience=reading.deadline, stats=stats.cache)
    return reader
