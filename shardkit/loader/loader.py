"""`shardkit.Loader`: a dataset, or a mixture, as batches on a device, in an order that a state of five fields names.

loader = Loader("s3://bucket/dataset", batching=Packed(tokens=24576, patch=48), seed=0)
for batch in loader:        # one epoch of this rank's micro-batches
    ...
    if batch.position.last:
        optimizer.step()
        save(loader.state_dict())
"""

import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from shardkit.errors import ArgumentError
from shardkit.labels import Labels
from shardkit.labels.split_names import Split
from shardkit.loader import device as devices
from shardkit.loader import painting, photometric
from shardkit.loader.augmenting import Augment
from shardkit.loader.batch import BatchPosition
from shardkit.loader.buffers import Buffers
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import Loaded
from shardkit.loader.course import Course
from shardkit.loader.graph import load_dali
from shardkit.loader.graph_input import Normalise, check_normalise
from shardkit.loader.graphs import Graphs
from shardkit.loader.index import Where
from shardkit.loader.makers import maker
from shardkit.loader.mixture_index import open_index
from shardkit.loader.mixture_report import without
from shardkit.loader.options import CacheOptions, ReadOptions, check_counts
from shardkit.loader.prefetch_config import PrefetchConfig, member_configs
from shardkit.loader.prefetcher import Prefetcher
from shardkit.loader.sample_index import numbered
from shardkit.loader.splits import counts, spec_of
from shardkit.loader.stats import Stats
from shardkit.loader.stream.cache import check_folder
from shardkit.loader.stream.chain import open_fetcher
from shardkit.loader.stream.reader import Reader
from shardkit.loader.world import Share, micro_batches
from shardkit.plan.base import Batching
from shardkit.plan.batching import as_batching
from shardkit.plan.epoch import WINDOW, EpochPlan, EpochStats
from shardkit.plan.sizes import check_sizes
from shardkit.plan.spec import PlanSpec
from shardkit.terminal import reprs

_ELSEWHERE = (  # its rank was settled, and files and locks opened, where it was made
    "a Loader works only in the process it was made in: make one in every process that loads, and start those with the"
    " start method spawn, or with torchrun"
)


class Loader:
    """Iterates over this rank's micro-batches of an epoch; the next iteration is the next epoch.

    Parameters
    ----------
    url : str or Path
        Folder or bucket of a dataset, or a mixture's file, as `shardkit mix` writes it.
    batching : Batching or str
        How images become batches, such as `Packed(tokens=24576, patch=48)`, or its text, as commands have it:
        "packed:tokens=24576,patch=48". Needed.
    seed : int
        What order and crops are drawn from.
    epoch : int
        Epoch to begin with, from 0.
    split : str, optional
        train (the default), val or test; None or "all" for all; or the official one of a labels table, "nih14:train".
    weighted : bool
        Whether an epoch of a mixture shows samples as often as their members' weights say; else each once, as where
        something is measured. Such a loader has a digest of its own, and its states fit no other.
    where : callable, optional
        Which samples to take: from a table of the manifest's columns that `needs` names to a boolean a row.
    needs : tuple of str
        Columns that `where` is given.
    window : int
        Shards that are mixed at any time; default 256.
    rank, world_size : int, optional
        This process's share. Default: those of torch.distributed, else of torchrun's or Slurm's variables, as they are
        when an iteration begins.
    device : str or torch.device, optional
        "cpu" or "cuda:0"; default the current GPU where there is one, else the CPU.
    normalise : str or tuple of float
        What happens to grey levels: "percentile" (the default: 0.5th to 99.5th of the image to 0..1, cut off); "minmax"
        (least to greatest to 0..1); "none"; "fullscale" (all grey levels of its bit depth to 0..1); "zscore"; or a
        pair, a dataset's mean and standard deviation in full scale. What a mixture says of a member goes first.
    dtype : torch.dtype
        Of the images: float32 (the default), float16 or bfloat16.
    augment : callable, optional
        (image, seed) -> image: a change of each one, float32 (1, rows, cols) on the device, normalised, without
        padding; of the same shape. The seed is the plan's: see docs/loader.md. Called in a thread of the loader.
    cache : str or Path, optional
        Folder on a local disk for whole shards. Without one, just the bytes needed are read, every time.
    cache_bytes : int, optional
        Bytes that it may take; goes with `cache`.
    read_ahead : int
        Encoded bytes to have on their way; default 256 MiB.
    prefetch : int
        Finished batches to hold; default 1.
    connections : int
        Reads of the store at a time; default 32.
    threads : int, optional
        Threads that decode; default this rank's share of the cores, of which a GPU's feeding takes two.
    decoder : {"auto", "threads", "dali"}
        What decodes: OpenJPH on threads, or DALI, which gives the same pixels. "auto" is dali on a GPU, where all
        images are HTJ2K, and threads elsewhere.
    max_bad : float
        Share of an epoch's samples that may be unreadable, and are replaced, before `BadDataError`; default 0.001. At
        least one may, unless it is 0.
    attempts : int
        Times that bytes are read which come back wrong, before their sample is bad; default 5.
    deadline : float
        Seconds to wait for a store that is away, before opening, or an iteration, ends with StorageError; default 60.
        An iteration waits for one that refuses, too, and goes on from the state.
    wrap : callable, optional
        What to put around the reader of the store, e.g. `shardkit.testing.faults.FaultStore`.

    Raises
    ------
    ArgumentError
        For arguments that cannot be used.
    IntegrityError
        For a dataset that is not whole.
    StorageError
        Where the store cannot be read.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        batching: Batching | str | None = None,
        seed: int = 0,
        epoch: int = 0,
        split: str | None = "train",
        weighted: bool = True,
        where: Where | None = None,
        needs: tuple[str, ...] = (),
        window: int = WINDOW,
        rank: int | None = None,
        world_size: int | None = None,
        device: str | torch.device | None = None,
        normalise: Normalise = "percentile",
        dtype: torch.dtype = torch.float32,
        augment: Augment | None = None,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        read_ahead: int = ReadOptions.read_ahead,
        prefetch: int = 1,
        connections: int = ReadOptions.connections,
        threads: int | None = None,
        decoder: devices.Decoder = "auto",
        max_bad: float = ReadOptions.max_bad,
        attempts: int = ReadOptions.attempts,
        deadline: float = ReadOptions.deadline,
        wrap: Callable[[Reader], Reader] | None = None,
    ) -> None:
        self._process = os.getpid()
        self.batching = as_batching(batching)
        self.window, self._split = window, Split.named(split)
        self._share = Share(rank, world_size, self.batching.per_step)
        self.device, normalise = devices.chosen(device), check_normalise(normalise)
        devices.check_dtype(dtype)
        check_counts(prefetch=prefetch, threads=threads)
        self._reading = ReadOptions(
            read_ahead=read_ahead,
            connections=connections,
            attempts=attempts,
            deadline=deadline,
            max_bad=max_bad,
            wrap=wrap,
        )
        self._index = open_index(str(url), deadline, weighted)
        samples, self._filtered = (
            self._index.samples(self._split, where, needs, self.batching.content),
            where is not None,
        )
        spec = spec_of(samples, self._split, self._filtered, window, self.batching)
        self._course = Course(samples, spec, seed, epoch, self._index.digest, self._index.url)
        check_sizes(self.batching, samples, self.key)
        if (at := CacheOptions.of(cache, cache_bytes)) is not None:
            at.check_holds(self._index.largest_shard(self.batching.level))
            check_folder(at.folder)
        self._cache, self._stats, self._buffers, self._graphs = at, Stats(), Buffers(), Graphs()
        weakref.finalize(self, self._graphs.close).atexit = False  # an iteration that was cut short is in a cycle
        self._prefetcher: Prefetcher | None = None
        members = member_configs(self._index.members, decoder, self.device, normalise)
        self._config = PrefetchConfig(
            members=members,
            dtype=dtype,
            device=self.device,
            read_ahead=self._reading.read_ahead,
            prefetch=prefetch,
            threads=threads or devices.threads(self.device, members[0].streams is not None),
            stream=devices.stream(self.device),
            augment=augment,
            views=photometric.changing(self.batching.augmentation.views, [how.normalise for how in members]),
        )
        if self._config.graph:
            load_dali()
        else:
            painting.load()

    def __iter__(self) -> Iterator[Loaded]:
        """Go through this rank's micro-batches, from the current step to the end of the epoch.

        Threads run as long as the iterator lives: to its end, an exception, or until it is closed or dropped. A newer
        iterator of the same loader closes this one.
        """
        if os.getpid() != self._process:
            raise ArgumentError(_ELSEWHERE)
        plan = self._course.begin()
        if self._prefetcher is not None:
            self._prefetcher.close()  # one iteration at a time: they would both move the state
        mine = self._share.begin()
        self._stats.bad.clear()
        config = replace(self._config, max_bad=self._reading.allowed(len(plan.draws) / mine.size))
        canvas = Canvas(self.device, config.dtype, config.clip, self._buffers)
        fetcher = open_fetcher(self._index.stores, self._reading, self._cache, self._index)  # which may fail
        prefetcher = self._prefetcher = Prefetcher(
            micro_batches(plan, self.step, mine),
            config,
            self._index,
            maker(config, self.batching.augmentation, canvas, plan.images, self._graphs),
            canvas,
            fetcher,
            self._stats,
        )
        try:
            while (batch := prefetcher.get()) is not None:
                self._course.deliver(batch.position)
                yield batch
        finally:
            prefetcher.close()

    def __reduce__(self) -> Any:
        """Refuse to be pickled: no loader travels."""
        raise ArgumentError(_ELSEWHERE)

    @property
    def rank(self) -> int:
        """Which of `world_size` processes this one is, as of now."""
        return self._share.now().rank

    @property
    def world_size(self) -> int:
        """Processes that share every global step, as of now."""
        return self._share.now().size

    # --- plan and state

    @property
    def plan(self) -> EpochPlan:
        """The current epoch's plan."""
        return self._course.plan

    @property
    def epoch(self) -> int:
        """The epoch that is, or will be, iterated."""
        return self._course.epoch

    @property
    def step(self) -> int:
        """Global steps of it that were handed out in full."""
        return self._course.step

    def __len__(self) -> int:
        """Count the micro-batches of a whole epoch on this rank; plans all of it."""
        return len(self.plan) * self.batching.per_step // self._share.told().size

    def account(self) -> EpochStats:
        """Count the current epoch's tokens: real, padding, repeated, dropped. Plans all of it."""
        return self.plan.account()

    @property
    def plan_spec(self) -> PlanSpec:
        """What decides the plan, besides dataset, seed and epoch."""
        return self._course.spec

    def key(self, row: int) -> str:
        """Return the key of the sample in a manifest row."""
        return self._index.detail(row).key

    @property
    def splits(self) -> dict[str, int]:
        """Samples of each split, and of each official one of the labels tables that this loader's split names."""
        return {**self._index.splits, **(counts(self._index.members, self._split) if self._split else {})}

    @property
    def members(self) -> dict[str, range]:
        """Rows of each member of a mixture, by name; of a dataset, all of them under an empty name."""
        return {member.name: member.rows for member in self._index.members}

    @property
    def digests(self) -> dict[str, str]:
        """Digest of each member of a mixture, by name; of a dataset, its own under an empty name."""
        return {member.name: member.index.digest for member in self._index.members}

    @property
    def normalised(self) -> dict[str, Normalise]:
        """How each of `members` is normalised: as its mixture says, or as this loader does."""
        return {name: how.normalise for name, how in zip(self.members, self._config.members, strict=True)}

    def columns(self, *names: str) -> pa.Table:
        """Read columns of the manifest, all rows: `loader.columns("view", "age")`; ArgumentError for unknown ones."""
        return self._index.columns(*names)

    def labels(self, name: str) -> Labels:
        """Read a labels table by manifest row: `loader.labels("nih14").values[batch.rows]`; ArgumentError for none.

        Where `batch.weight` is 0 there is no image, and row -1 gives the last sample's labels: leave these out. Nothing
        is known of samples of a mixture whose dataset has no such table.
        """
        return self._index.labels(name)

    def bins(self) -> tuple[list[str], npt.NDArray[np.int16]]:
        """Say which bin each sample is stored in.

        Returns
        -------
        names : list of str
            The dataset's bins.
        numbers : ndarray of int16, (rows,)
            Index in `names`, for each manifest row.
        """
        columns, bins = self._index.columns("bin_height", "bin_width"), self._index.bins
        return [each.name for each in bins.bins], numbered(columns, bins)

    def state_dict(self, after: BatchPosition | None = None) -> dict[str, Any]:
        """Return where the loader stands: five plain fields, the same on all ranks, and good for any world size.

        In the middle of an epoch of more than 262,144 samples there is a sixth, with which a resume need not plan the
        steps before.

        The state moves on when a step's last batch is handed out.

        Parameters
        ----------
        after : BatchPosition, optional
            Position of the last batch that was used, for programs that look ahead, as prefetchers do; default the last
            one that was handed out.
        """
        return self._course.state(after)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` gave a state; StateError for one of another dataset or plan."""
        self._course.load(state)

    def stats(self) -> dict[str, Any]:
        """Say where the time went: see `shardkit.loader.stats.Stats`."""
        return self._stats.report()

    def _facts(self) -> reprs.Facts:
        absent = without(self.plan.samples, list(self.members))
        return {
            "url": self._index.url,
            "batching": self.batching,
            "split": str(self._split or "all"),
            "samples": f"{len(self.plan.draws):,}{' (filtered)' * self._filtered}{absent and f', none of {absent}'}",
            "seed": self._course.seed,
            "epoch": self.epoch,
            "step": self.step,
            "device": self.device,
            "share": self._share.foreseen() or "unknown yet",
        }

    def __repr__(self) -> str:
        """Show dataset, batching, split and where it stands."""
        return reprs.line("Loader", self._facts())

    def _repr_html_(self) -> str:
        return reprs.table("Loader", self._facts())
