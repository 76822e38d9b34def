"""Checkpoints of a run: written in the background, whole or not at all, on a disk or in a bucket.

On a disk a checkpoint's name ends in `.part` until all of it is there. One that is damaged later is set aside as
`.damaged`. In a bucket an index is put last: see `trainer.runs.bucket_checkpoints`.
"""

import json
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from shardkit.errors import StorageError
from trainer.parallel import World, from_first
from trainer.runs import best, checkpoint, places
from trainer.runs.bucket_checkpoints import BucketCheckpoints
from trainer.runs.checkpoint import Found, Translated
from trainer.runs.state import TrainingState

Facts = dict[str, Any]


class Place(Protocol):
    """Where checkpoints lie. All processes call the same methods in the same order, but for `finish` and `choose`."""

    remedy: str
    """What to do where one cannot be written."""

    def latest(self) -> Found:
        """Find the newest whole one; on each machine its files are there."""

    def set_aside(self, found: Found) -> None:
        """Rename the damaged ones, so that they are not counted among those to keep."""

    def shown(self, step: int) -> str:
        """Name one in messages."""

    def begin(self, step: int, facts: Facts) -> dcp.FileSystemWriter:
        """Return what writes one."""

    def finish(self, step: int, facts: Facts) -> None:
        """Give a written one its name, and remove old ones: the first process does."""

    def choose(self, step: int) -> None:
        """Keep one as the best: the first process does."""


class Checkpoints:
    """The checkpoints of one run. All processes call the same methods in the same order.

    Parameters
    ----------
    run
        Folder of the run.
    keep
        Number of the last ones to keep.
    world
        Which process this is.
    """

    def __init__(self, run: Path, keep: int, world: World) -> None:
        bucket = places.bucket(run)
        self._place: Place = (
            DiskCheckpoints(run, keep, world) if bucket is None else BucketCheckpoints(bucket, keep, world)
        )
        self._world = world
        self._pending: tuple[Future[Any], int, Facts] | None = None

    def latest(self) -> Found:
        """Find the newest whole one.

        Raises
        ------
        TrainingError
            Where all are damaged.
        """
        return self._place.latest()

    def set_aside(self, found: Found) -> None:
        """Rename the damaged ones, so that they are not counted among those to keep."""
        self._place.set_aside(found)

    def choose(self, step: int) -> None:
        """Make a whole one the chosen one, which stays when others are removed.

        Raises
        ------
        StorageError
            Where that cannot be written.
        """
        if self._world.is_main:
            self._place.choose(step)

    def save(self, step: int, state: TrainingState, facts: Facts) -> None:
        """Copy the state now, and write it while training goes on.

        Parameters
        ----------
        step
            Number of global steps done.
        state
            What is written.
        facts
            Plain values for `progress.json`.

        Raises
        ------
        StorageError
            Where it cannot be written, or the one before could not be.
        """
        self.wait()
        with self._sentence(step):
            writer, alone = self._place.begin(step, facts), not dist.is_initialized()
            future = dcp.async_save(
                state.tensors(), storage_writer=writer, process_group=self._world.group, no_dist=alone
            )
        assert isinstance(future, Future)
        self._pending = (future, step, facts)

    def poll(self) -> None:
        """Give the checkpoint its name if it has been written."""
        if self._pending is not None and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait until what is being written is whole.

        Raises
        ------
        StorageError
            Where it could not be written.
        """
        if self._pending is None:
            return
        (future, step, facts), self._pending = self._pending, None
        with self._sentence(step):
            future.result()
            if self._world.is_main:
                self._place.finish(step, facts)

    def _sentence(self, step: int) -> Translated:
        what = f"the checkpoint {self._place.shown(step)} cannot be written"
        return Translated(StorageError, what, self._place.remedy)


class DiskCheckpoints:
    """See `Place`. Several machines need a folder that all of them see."""

    remedy = "free some space and run it again"

    def __init__(self, run: Path, keep: int, world: World) -> None:
        self._run, self._folder, self._keep, self._world = run, run / checkpoint.FOLDER, keep, world

    def latest(self) -> Found:
        """See `Place`."""
        return from_first(lambda: checkpoint.newest(self._folder), self._world)

    def set_aside(self, found: Found) -> None:
        """See `Place`."""
        for path, _ in found.damaged if self._world.is_main else ():
            aside = path.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)

    def shown(self, step: int) -> str:
        """See `Place`."""
        return str(self._path(step))

    def begin(self, step: int, facts: Facts) -> dcp.FileSystemWriter:
        """See `Place`."""
        part = self._path(step).with_suffix(".part")
        if self._world.is_main:
            for left in self._folder.glob("*.part"):  # of a run that was killed
                shutil.rmtree(left)
            part.mkdir(parents=True, exist_ok=True)
        if dist.is_initialized():
            dist.barrier(self._world.group)
        return dcp.FileSystemWriter(part)

    def finish(self, step: int, facts: Facts) -> None:
        """See `Place`."""
        path = self._path(step)
        part, old = path.with_suffix(".part"), path.with_suffix(".old.part")
        (part / "progress.json").write_text(json.dumps(facts, indent=1))
        if path.exists():  # trained or validated again: one of them has the name, but for a moment
            path.rename(old)
        part.rename(path)
        shutil.rmtree(old, ignore_errors=True)
        for old in sorted(self._folder.glob(checkpoint.STEPS))[: -self._keep]:
            shutil.rmtree(old)

    def choose(self, step: int) -> None:
        """See `Place`."""
        best.keep(self._run, self._path(step))

    def _path(self, step: int) -> Path:
        return self._folder / checkpoint.of_step(step)
