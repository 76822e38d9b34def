"""`shardkit.Loader`: a dataset as packed or binned batches on a device, in an order that a state of five fields names.

loader = Loader("s3://bucket/dataset", batching=Packed(tokens=24576, patch=48), seed=0)
for batch in loader:        # one epoch of this rank's micro-batches
    ...
    if batch.place.last:
        optimizer.step()
        save(loader.state_dict())
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from shardkit.codecs import codec
from shardkit.codecs.base import CodestreamCodec
from shardkit.errors import ArgumentError, StateError
from shardkit.loader import device as devices
from shardkit.loader import saved, world
from shardkit.loader.buffers import Buffers
from shardkit.loader.collate import BatchPosition
from shardkit.loader.graph import CLIPPED, Graph, GraphConfig, Normalise, load_dali
from shardkit.loader.manifest_index import Catalog, Where
from shardkit.loader.prefetcher import Batch, Engine, Planned, Setup
from shardkit.loader.stats import Stats
from shardkit.loader.stream.cache import Cached
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Logged, Reader, Retrying, StoreReader
from shardkit.loader.world import World
from shardkit.plan.batching import Batching, check_sizes, from_text, settled
from shardkit.plan.epoch import WINDOW, EpochPlan, EpochStats
from shardkit.plan.spec import PlanSpec
from shardkit.storage.waiting import check_patience
from shardkit.terminal import reprs
from shardkit.terminal.output import logger

_ELSEWHERE = (  # its rank was settled, and files and locks opened, where it was made
    "a Loader works only in the process it was made in: make one in every process that loads, and start those with the"
    " start method spawn, or with torchrun"
)
_log = logger("shardkit.loader")

_NO_BATCHING = (
    "Loader needs batching, which says how images become batches: packed (tokens of whole images in a row), binned"
    " (padded to their bin), resized (to side x side), fixed (padded to side x side) or exact (one by one), e.g."
    ' Loader(url, batching="packed:tokens=24576,patch=48")'
)


class Loader:
    """Iterates over this rank's micro-batches of an epoch; the next iteration is the next epoch.

    url: folder or bucket of a dataset. batching, needed: see `shardkit.plan.batching`; or the command line's text, as
    "packed:tokens=24576,patch=48". epoch: to begin with. split: train, val, test, or None or "all" for all.
    where: a function from a table of manifest columns, those named in `needs`, to a boolean a row: which samples to
    take. window: shards that are mixed at any time.
    rank, world_size: default those of torch.distributed, else of torchrun's or Slurm's variables, as they are when an
    iteration begins. device: "cpu", "cuda:0"; default the current GPU where there is one.
    normalise: none (grey levels), percentile (0.5th to 99.5th of the image to 0..1, cut off), minmax, fullscale (all
    grey levels of its bit depth to 0..1), zscore, or a pair: a dataset's mean and standard deviation in full scale.
    dtype: of the images, float32, float16 or bfloat16.
    cache: folder for whole shards on a local disk, of at most `cache_bytes`; without one, just the bytes needed are
    read, every time.
    read_ahead: encoded bytes to have on their way. prefetch: finished batches to hold. connections: reads at a time.
    threads: that decode; default this rank's share of the cores. decoder: threads (OpenJPH), dali, or auto: dali on a
    GPU, threads on a CPU, where they are nearly twice as fast.
    max_bad: share of an epoch's samples that may be unreadable and replaced before `BadDataError`; at least one may,
    unless it is 0. attempts: times that bytes are read which come back wrong, before their sample is bad. deadline:
    seconds to wait for a store that is away, before opening, or an iteration, ends with StorageError; an iteration
    waits for one that refuses, too, and goes on from the state. wrap: what to put around the reader of the
    store, e.g. `FaultStore`.

    Raises ArgumentError for arguments that cannot be used, IntegrityError for a dataset that is not whole, and
    StorageError.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        batching: Batching | str | None = None,
        seed: int = 0,
        epoch: int = 0,
        split: str | None = "train",
        where: Where | None = None,
        needs: tuple[str, ...] = (),
        window: int = WINDOW,
        rank: int | None = None,
        world_size: int | None = None,
        device: str | torch.device | None = None,
        normalise: Normalise = "percentile",
        dtype: torch.dtype = torch.float32,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        read_ahead: int = 256 << 20,
        prefetch: int = 1,
        connections: int = 32,
        threads: int | None = None,
        decoder: Literal["auto", "threads", "dali"] = "auto",
        max_bad: float = 0.001,
        attempts: int = 5,
        deadline: float = 60.0,
        wrap: Callable[[Reader], Reader] | None = None,
    ) -> None:
        if batching is None:
            raise ArgumentError(_NO_BATCHING)
        self._process = os.getpid()
        self._named = world.given(rank, world_size)
        self.device = devices.chosen(device)
        _check(normalise, dtype, max_bad)
        _check_counts(prefetch=prefetch, read_ahead=read_ahead, connections=connections, threads=threads)
        check_patience(attempts, deadline)
        self.batching = settled(from_text(batching) if isinstance(batching, str) else batching)
        self.window, self._split, self._max_bad = window, None if split == "all" else split, max_bad
        if (foreseen := world.foreseen(self._named)) is not None:
            foreseen.check(self.batching.per_step)
        self._told: World | None = None  # whose length was asked for
        self._catalog = Catalog(str(url), deadline)
        self._samples, self._filtered = self._catalog.samples(self._split, where, needs), where is not None
        self._seed, self._epoch, self._step = seed, epoch, 0
        self._plan: EpochPlan | None = None
        _ = self.plan  # refuses what cannot be planned, now
        check_sizes(self.batching, self._samples, self.key)
        self._reading, self._wrap = (attempts, deadline, connections), wrap
        self._cache = self._check_cache(cache, cache_bytes)
        self._reader(None)  # refuses what cannot be read from or cached in, now
        self._stats, self._buffers = Stats(), Buffers()
        self._engine: Engine | None = None
        how = codec(self._catalog.codec)
        in_graph = decoder == "dali" or (decoder == "auto" and self.device.type == "cuda")
        if decoder == "dali" and not isinstance(how, CodestreamCodec):
            raise ArgumentError(f"decoder=dali decodes htj2k, and {self._catalog.url} holds {self._catalog.codec}")
        load_dali()
        self._setup = Setup(
            codec=how,
            streams=how if in_graph and isinstance(how, CodestreamCodec) else None,
            normalise=normalise,
            dtype=dtype,
            device=self.device,
            read_ahead=read_ahead,
            prefetch=prefetch,
            threads=threads or devices.threads(self.device),
            stream=devices.stream(self.device),
        )

    # --- iteration

    def __iter__(self) -> Iterator[Batch]:
        """This rank's micro-batches from the current step to the end of the epoch.

        Threads run as long as the iterator lives: to its end, an exception, or until it is closed or dropped.
        """
        if os.getpid() != self._process:
            raise ArgumentError(_ELSEWHERE)
        plan, epoch, mine = self.plan, self._epoch, self._world()
        if not plan.has(0):
            raise ArgumentError(
                f"{self.batching} leaves no full step of an epoch: choose remainder=fill, or less a step"
            )
        if self._step and not plan.has(self._step):
            raise StateError(f"epoch {epoch} has {len(plan):,} steps, and the state is at step {self._step:,}")
        if self._engine is not None:
            self._engine.close()  # one iteration at a time: they would both move the state
        self._compare(mine)
        world.warn(self._named)
        self._stats.bad.clear()
        engine = self._engine = Engine(
            self._planned(plan.copy(), epoch, self._step, mine),
            replace(self._setup, max_bad=self._allowed(mine)),
            self._catalog,
            self._fetcher,
            self._graph(),
            self._buffers,
            self._stats,
        )
        try:
            while (batch := engine.get()) is not None:
                if batch.place.last:
                    self._delivered(batch.place)
                yield batch
        finally:
            engine.close()

    def __reduce__(self) -> Any:
        """No loader travels. Raises ArgumentError."""
        raise ArgumentError(_ELSEWHERE)

    def _planned(self, plan: EpochPlan, epoch: int, step: int, mine: World) -> Planned:
        while plan.has(step):
            micros, ends = plan[step], not plan.has(step + 1)
            for at in range(mine.rank, len(micros), mine.size):
                last = at + mine.size >= len(micros)
                yield BatchPosition(epoch, step, at, len(micros), last, ends), micros[at]
            step += 1

    def _delivered(self, place: BatchPosition) -> None:
        """The state moves on with a step's last micro-batch; at the end of an epoch, to the next one's start."""
        self._epoch, self._step = place.following
        if place.ends:
            self._plan = None

    # --- its share

    def _world(self) -> World:
        """As it is now: a launcher may make the process group long after the loader."""
        found = world.current(self._named)
        found.check(self.batching.per_step)
        return found

    @property
    def rank(self) -> int:
        """Which of `world_size` processes this one is, as of now."""
        return self._world().rank

    @property
    def world_size(self) -> int:
        """Processes that share every global step, as of now."""
        return self._world().size

    def _allowed(self, mine: World) -> float:
        """Bad samples that an epoch of this rank may have."""
        return max(1.0, self._max_bad * len(self._samples) / mine.size) if self._max_bad else 0.0

    # --- plan and state

    @property
    def plan(self) -> EpochPlan:
        """The current epoch's plan."""
        if self._plan is None:
            self._plan = EpochPlan(self._samples, self._seed, self._epoch, self.batching, self.window)
        return self._plan

    @property
    def epoch(self) -> int:
        """The epoch that is, or will be, iterated."""
        return self._epoch

    @property
    def step(self) -> int:
        """Global steps of it that were handed out in full."""
        return self._step

    def __len__(self) -> int:
        """Micro-batches of an epoch on this rank, from its first step; plans the whole epoch."""
        self._compare(mine := self._world())  # list() asks, too, before anything is iterated
        self._told = mine
        return len(self.plan) * self.batching.per_step // mine.size

    def _compare(self, mine: World) -> None:
        if self._told not in (None, mine):
            _log.warning("the loader's length was asked for as %s, and it is %s now: ask again", self._told, mine)

    def account(self) -> EpochStats:
        """Tokens of the current epoch: used, padded, repeated, dropped; plans the whole epoch."""
        return self.plan.account()

    @property
    def plan_spec(self) -> PlanSpec:
        """What decides the plan, besides dataset, seed and epoch."""
        rows = self._samples.digest[:12] if self._filtered else ""
        return PlanSpec(self._split, rows, self.window, self.batching)

    def key(self, row: int) -> str:
        """The key of the sample in a manifest row."""
        return self._catalog.detail(row).key

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split of the dataset."""
        return dict(self._catalog.description.splits)

    def bins(self) -> tuple[list[str], npt.NDArray[np.int16]]:
        """Names of the dataset's bins, and the number of the bin that each manifest row is stored in."""
        bins = self._catalog.bins.bins
        number = {(of.height, of.width): i for i, of in enumerate(bins)}
        table = self._catalog.columns("bin_height", "bin_width")
        pairs, of = np.unique(
            np.stack([table[name].to_numpy() for name in ("bin_height", "bin_width")], 1), axis=0, return_inverse=True
        )
        numbers = np.array([number[int(high), int(wide)] for high, wide in pairs], np.int16)
        return [each.name for each in bins], numbers[of.reshape(-1)]

    def state_dict(self, after: BatchPosition | None = None) -> dict[str, Any]:
        """Five plain fields; the same on all ranks after the same step, and good for any world size.

        It moves when a batch is handed out. Who looks ahead, as prefetchers do, says with `after` which batch was the
        last to be used: `loader.state_dict(after=batch.place)`.
        """
        epoch, step = (self._epoch, self._step) if after is None else after.following
        return saved.make(str(self.plan_spec), self._catalog.digest, self._seed, epoch, step)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises StateError for a state of another dataset or plan."""
        self._seed, self._epoch, self._step = saved.read(
            state, str(self.plan_spec), self._catalog.digest, self._catalog.url
        )
        self._plan = None

    def stats(self) -> dict[str, Any]:
        """Where the time went: see `shardkit.loader.stats.Stats`."""
        return self._stats.report()

    # --- how it shows itself

    def _facts(self) -> reprs.Facts:
        return {
            "url": self._catalog.url,
            "batching": self.batching,
            "split": self._split or "all",
            "samples": f"{len(self._samples):,}" + (" (filtered)" if self._filtered else ""),
            "seed": self._seed,
            "epoch": self._epoch,
            "step": self._step,
            "device": self.device,
            "share": world.foreseen(self._named) or "unknown yet",
        }

    def __repr__(self) -> str:
        return reprs.line("Loader", self._facts())

    def _repr_html_(self) -> str:
        return reprs.table("Loader", self._facts())

    # --- parts

    def _reader(self, wrap: Callable[[Reader], Reader] | None) -> Reader:
        attempts, deadline, connections = self._reading
        store: Reader = StoreReader(self._catalog.store, threads=min(connections, 16))
        reader: Reader = Retrying(wrap(store) if wrap else store, attempts, deadline)
        if logging.getLogger("shardkit.stream").isEnabledFor(logging.DEBUG):
            reader = Logged(reader)
        if self._cache is not None:
            reader = Cached(reader, *self._cache, self._catalog, patience=deadline)
        return reader

    def _fetcher(self) -> Fetcher:
        return Fetcher(lambda: self._reader(self._wrap), self._reading[2], self._reading[0])

    def _graph(self) -> Graph:
        augmentation, device = self.batching.augmentation, self.device
        return Graph(
            GraphConfig(
                device_id=(device.index or 0) if device.type == "cuda" else None,
                decode=self._setup.decode,
                slice=augmentation.side is None and (augmentation.content or augmentation.crop is not None),
                flip=augmentation.flip > 0,
                resize=augmentation.side is not None,
                max_images=self.plan.images,
                threads=self._setup.threads,
            )
        )

    def _check_cache(self, folder: str | Path | None, limit: int | None) -> tuple[Path, int] | None:
        if (folder is None) != (limit is None):
            raise ArgumentError("cache and cache_bytes go together: a folder, and the bytes it may take")
        if folder is None or limit is None:
            return None
        level = self._catalog.levels if self.batching.level == "auto" else self.batching.level
        largest = max(self._catalog.shard_bytes([level]).values())
        if limit < largest:
            raise ArgumentError(f"cache_bytes={limit:,} holds no shard: the largest has {largest:,} bytes")
        return Path(folder), limit


def _check(normalise: Normalise, dtype: torch.dtype, max_bad: float) -> None:
    if not isinstance(normalise, tuple) and normalise not in (*CLIPPED, "none", "zscore"):
        raise ArgumentError(f"normalise={normalise!r} is unknown: none, {', '.join(CLIPPED)}, zscore, or (mean, std)")
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise ArgumentError(f"dtype={dtype} is none of float32, float16, bfloat16")
    if not 0 <= max_bad <= 1:
        raise ArgumentError(f"max_bad={max_bad} must be a share between 0 and 1")


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ArgumentError(f"{name}={value} must be at least 1")
