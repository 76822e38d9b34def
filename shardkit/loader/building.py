"""From the images of a micro-batch to its batch: what stands in for bad ones, what changes them, where they are put."""

import time

import torch

from shardkit.errors import BadDataError, ShardkitError
from shardkit.loader import augmenting, photometric
from shardkit.loader.batch import Batch, BatchItem
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import collate
from shardkit.loader.graph import cut_off
from shardkit.loader.graph_input import Prepared
from shardkit.loader.makers import Maker
from shardkit.loader.prefetch_config import PrefetchConfig
from shardkit.loader.stats import Stats
from shardkit.loader.stream.files import Threads
from shardkit.loader.work import Ready, Work, chosen
from shardkit.terminal.output import logger

_log = logger("shardkit.loader")
_BLAME = 8  # bad samples named in an error


class Builder:
    """Makes batches, one after the other.

    Parameters
    ----------
    maker : Maker
        Makes the images.
    config : PrefetchConfig
        What all batches have in common.
    canvas : Canvas
        Where images are put.
    threads : Threads
        Those that decode; they change grey levels, too.
    stats : Stats
        Where to count.
    """

    def __init__(self, maker: Maker, config: PrefetchConfig, canvas: Canvas, threads: Threads, stats: Stats) -> None:
        self._maker, self._config, self._canvas, self._threads, self._stats = maker, config, canvas, threads, stats

    def build(self, work: Work, ready: Ready) -> Batch:
        """Make the batch of a micro-batch.

        Parameters
        ----------
        work : Work
            Which.
        ready : list of Prepared or ShardkitError
            What became of each crop. Those that cannot be used after all become errors here.

        Raises
        ------
        BadDataError
            Where more samples are bad than is allowed.
        IntegrityError
            Where the graph fails altogether.
        """
        begun = time.perf_counter()
        told = set[int]()
        shown = self._substituted(work, ready, told)
        batch, changed = self._maker.whole(work, shown), begun
        if batch is None:
            while (images := self._maker.images(work, ready, shown)) is None:
                shown = self._substituted(work, ready, told)
            made = time.perf_counter()
            self._change(work, images, chosen(ready, shown), shown)
            changed = time.perf_counter()
            batch = collate(work.micro, shown, images, work.position, self._canvas)
            self._stats.changed(made - begun, changed - made)
        self._finished()  # whole before anybody sees it
        self._stats.built(work.micro, len(work.decodes), time.perf_counter() - changed)
        return batch

    def _change(
        self, work: Work, images: list[torch.Tensor], prepared: list[Prepared], shown: list[BatchItem | None]
    ) -> None:
        if self._config.views:
            photometric.change(self._config.views, work.views, shown, images, prepared, self._threads)
            cut_off(images, prepared)  # a blur's weights sum to 1 within rounding
            self._finished()
        if self._config.augment is not None:
            augmenting.change(self._config.augment, work.views, shown, images, work.details)
            self._finished()

    def _finished(self) -> None:
        """Wait for a GPU to do what it was given."""
        if self._config.device.type == "cuda":
            torch.cuda.current_stream(self._config.device).synchronize()

    def _substituted(self, work: Work, ready: Ready, told: set[int]) -> list[BatchItem | None]:
        """Choose what is shown of each crop: itself, else by the plan's rule another, else nothing.

        told: crops whose badness has been counted and logged.
        """
        shown: list[BatchItem | None] = []
        for at, image in enumerate(ready):
            source: int | None = at
            if isinstance(image, ShardkitError):
                good = [i for i in work.micro.substitutes(at) if isinstance(ready[i], Prepared)]
                source = good[0] if good else None
                if at not in told:
                    told.add(at)
                    self._bad(work, at, image, source)
            shown.append(None if source is None else BatchItem(source, int(work.micro.crops.row[source])))
        return shown

    def _bad(self, work: Work, at: int, error: ShardkitError, source: int | None) -> None:
        instead = "nothing" if source is None else f"the image {work.details[source].key}"
        _log.warning("%s; showing %s in its place", error, instead)
        self._stats.bad.append(str(error))
        if len(self._stats.bad) > self._config.max_bad:
            some = "; ".join(self._stats.bad[-_BLAME:])
            raise BadDataError(
                f"{len(self._stats.bad):,} samples of this epoch are bad, more than max_bad allows: {some}"
            )
