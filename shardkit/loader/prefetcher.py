"""The threads between a plan and its batches: fetch ahead, decode ahead, build, hand over.

    plan --(this rank's micro-batches)--> event loop: fetch --> threads: decode --> producer: build --> queue

On a CPU the threads that decode also paint: the producer has next to nothing to do. Every stage is bounded: encoded
bytes by `read_ahead`, decoded micro-batches by three, finished batches by `prefetch`.
"""

import asyncio
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from shardkit.codecs.placement import Placement
from shardkit.errors import ArgumentError, BadDataError, IntegrityError, ShardkitError
from shardkit.loader import closing
from shardkit.loader.batch import Batch, BatchPosition
from shardkit.loader.building import Builder
from shardkit.loader.canvas import Canvas
from shardkit.loader.graph_input import Pixels, Prepared, prepared
from shardkit.loader.index import Index
from shardkit.loader.makers import Maker
from shardkit.loader.prefetch_config import MemberConfig, PrefetchConfig
from shardkit.loader.stats import Shares, Stats
from shardkit.loader.stream.fetch import Fetcher, Got, Want
from shardkit.loader.stream.files import Threads
from shardkit.loader.work import Ready, Work
from shardkit.plan.shapes import MicroBatch
from shardkit.terminal.output import logger

_log = logger("shardkit.loader")
_DECODED = 2  # micro-batches decoded at a time: one that becomes a batch, one behind it
_AT_ONCE = 4  # micro-batches asked for before the next one is looked at
_PATIENCE = 30  # seconds without a batch until a line is logged
_CLOSING = 15.0  # seconds that closing waits at most: more than a fetcher does
_DECODING = 2.0  # seconds of these for images that are being decoded

MicroBatches = Iterator[tuple[BatchPosition, MicroBatch]]


@dataclass(frozen=True, slots=True)
class _Handed:
    """A batch, an error or the end, on its way to the consumer."""

    item: Batch | BaseException | None
    shares: Shares = field(default_factory=dict)


class Prefetcher:
    """Runs from construction to `close`; `get` hands out batches in the order of the plan, then None.

    The producer cleans up behind itself, so that closing is a signal, given from any thread and in a finaliser too.

    Parameters
    ----------
    micro_batches : iterator
        What to make batches of, and where each stands in the plan.
    config : PrefetchConfig
        What all batches of a loader have in common.
    index : Index
        Knows where samples lie.
    maker : Maker
        Makes images of what is decoded. It is closed at the end.
    canvas : Canvas
        Where images are put.
    fetcher : Fetcher
        Reads. It is closed at the end.
    stats : Stats
        Where to count.
    """

    def __init__(
        self,
        micro_batches: MicroBatches,
        config: PrefetchConfig,
        index: Index,
        maker: Maker,
        canvas: Canvas,
        fetcher: Fetcher,
        stats: Stats,
    ) -> None:
        self._micro_batches, self._config, self._index, self._stats = micro_batches, config, index, stats
        self._maker, self._fetcher = maker, fetcher
        self._stats.watch(self._fetcher)
        self._decoders = Threads(config.threads, "shardkit-decode")
        self._builder = Builder(maker, config, canvas, self._decoders, stats)
        self._awaited: Future[Any] | None = None  # what the producer waits for
        self._pending: deque[Work] = deque()
        self._ahead = 0  # encoded bytes asked for and not yet in a batch
        self._out: queue.Queue[_Handed] = queue.Queue(config.prefetch)
        self._stopped, self._pid = threading.Event(), os.getpid()
        self._producer = threading.Thread(target=self._produce, name="shardkit-producer", daemon=True)
        self._producer.start()
        closing.watch(self)

    # --- the consumer's side

    def get(self) -> Batch | None:
        """Wait for the next batch, None at the end; what went wrong in any stage is raised here."""
        if os.getpid() != self._pid:
            raise ArgumentError(
                "this iteration belongs to the process that forked this one: make a loader of its own here"
            )
        begun = time.perf_counter()
        handed = None
        while handed is None and not self._stopped.is_set():
            try:
                handed = self._out.get(timeout=_PATIENCE)
            except queue.Empty:
                _log.warning("no batch for %.0f s: %s", time.perf_counter() - begun, self._stats.where())
                if not self._producer.is_alive():
                    raise BadDataError("the loader's producer thread is gone: load again from the last state") from None
        if handed is None or self._stopped.is_set():
            raise ArgumentError(
                "this iteration was closed when another one of the same loader began: use one iterator per Loader"
            )
        self._stats.waited(time.perf_counter() - begun, handed.shares)
        if isinstance(handed.item, BaseException):
            raise handed.item
        if handed.item is not None and self._config.device.type == "cuda":
            handed.item.record_stream(torch.cuda.current_stream(self._config.device))
        return handed.item

    def close(self) -> None:
        """Stop all stages; returns in bounded time, and at once in a forked process. May be called twice."""
        if os.getpid() != self._pid or self._stopped.is_set():
            return
        self._stopped.set()
        if (awaited := self._awaited) is not None:
            awaited.cancel()
        with suppress(queue.Full):
            self._out.put_nowait(_Handed(None))  # wakes a thread that waits in `get`
        if closing.may_wait(self._pid):
            self._producer.join(_CLOSING)

    # --- the producer thread

    def _produce(self) -> None:
        try:
            with nullcontext() if self._config.stream is None else torch.cuda.stream(self._config.stream):
                self._produce_all()
        except CancelledError:
            if not self._stopped.is_set():
                lost = BadDataError("the loader's fetcher was cancelled: load again from the last state")
                self._hand_over(_Handed(lost))
        except BaseException as error:  # whatever it is, the consumer must hear of it
            self._hand_over(_Handed(error))
        finally:
            self._clean_up()

    def _clean_up(self) -> None:
        self._fetcher.close()
        self._decoders.close(wait=_DECODING)
        self._maker.close()
        self._stats.watch(None)

    def _produce_all(self) -> None:
        while not self._stopped.is_set():
            self._top_up()
            if not self._pending:
                return self._hand_over(_Handed(None))
            head = self._pending.popleft()
            self._open_gates(_DECODED, head)
            assert head.future is not None
            self._awaited = head.future
            if self._stopped.is_set():  # `close` may have looked for it too early
                return None
            ready = head.future.result()
            self._ahead -= head.size
            self._top_up()
            self._open_gates(_DECODED)
            self._hand_over(_Handed(self._builder.build(head, ready), head.shares()))
        return None

    def _hand_over(self, item: _Handed) -> None:
        while not self._stopped.is_set():
            with suppress(queue.Full):
                self._out.put(item, timeout=0.1)
                return

    def _top_up(self) -> None:
        """Ask for more micro-batches until enough bytes are on their way; a few at a time, lest the next one waits."""
        for _ in range(_AT_ONCE):
            if self._pending and self._ahead >= self._config.read_ahead:
                return
            following = next(self._micro_batches, None)
            if following is None:
                return
            self._submit(*following)

    def _submit(self, position: BatchPosition, micro: MicroBatch) -> None:
        details = [self._index.detail(row) for row in micro.crops.row.tolist()]
        wants = []
        for detail, level in zip(details, micro.crops.level.tolist(), strict=True):
            span = (detail.start(level), detail.prefix(level), detail.hash(level))
            wants.append(Want(detail.object(level), *span, f"the image {detail.key}"))
        size = sum(want.length for want in wants)
        item = Work(position, micro, micro.views(), details, asyncio.Event(), size)

        async def prepare(got: list[Got]) -> Ready:
            await item.gate.wait()
            await asyncio.wrap_future(self._decoders.submit(self._maker.begin, item))
            ready: list[Any] = [None] * len(got)

            def one(at: int) -> None:
                if not self._stopped.is_set():
                    ready[at] = self._prepare(item, at, got[at])

            await asyncio.gather(*map(asyncio.wrap_future, self._decoders.share(one, len(got))))
            return ready

        item.future = self._fetcher.submit(wants, prepare)
        self._ahead += size
        self._pending.append(item)

    def _open_gates(self, count: int, *more: Work) -> None:
        for item in [*more, *list(self._pending)[:count]][:count]:
            self._fetcher.call(item.gate.set)

    # --- the decoding threads

    def _prepare(self, item: Work, at: int, data: Got) -> Prepared | ShardkitError:
        if isinstance(data, ShardkitError):
            return data
        crops, detail = item.micro.crops, item.details[at]
        level, bits = int(crops.level[at]), int(detail.number("bits"))
        begun, member = time.perf_counter(), self._config.members[detail.shard.member]
        try:
            if not self._config.decode:
                item.decodes.append(at)
            pixels = _pixels(member, data, level, bits, detail.placement)
            decoded = time.perf_counter()
            image = prepared(pixels, item.micro, at, detail, bits, member.normalise, item.views)
            image = self._maker.take(item, at, image)
        except ShardkitError as error:
            return IntegrityError(f"{detail.shard.name}: the image {detail.key} cannot be decoded: {error}")
        took = 0.0 if self._config.decode else decoded - begun
        self._stats.decoded(detail, level, len(data), took, time.perf_counter() - decoded)
        return image


def _pixels(member: MemberConfig, data: bytes, level: int, bits: int, placement: Placement) -> Pixels:
    if (streams := member.streams) is not None:
        streams.check(data, placement)  # here, because the graph takes memory by what a stream claims
        return np.frombuffer(streams.standalone(data, level), np.uint8)
    return member.codec.decode(data, level, bits, placement)
