"""Checkpoints of a run in a bucket.

Each process writes its own files to a scratch folder, as on a disk, and puts them into the bucket; torch's own exchange
of what was written is the barrier. Then the first process puts the table of contents, `progress.json`, the logs up to
here and, last, the index that makes the checkpoint whole. All of that happens in the background. A checkpoint of a step
that is there already goes to another folder, so that no object of a whole one is ever written again.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from trainer.parallel import World, from_each, from_first
from trainer.runs import checkpoint, mirror, places, unpickling
from trainer.runs.bucket import BEST, Bucket
from trainer.runs.checkpoint import Found

Facts = dict[str, Any]
_found: dict[Path, Found] = {}  # of runs that are begun: downloaded once


class BucketCheckpoints:
    """See `trainer.runs.saving.Place`.

    Parameters
    ----------
    bucket
        The run.
    keep
        Number of the last ones to keep.
    world
        Which process this is.
    """

    remedy = "mend that and run the same command again, which goes on from the checkpoint before"

    def __init__(self, bucket: Bucket, keep: int, world: World) -> None:
        self._bucket, self._keep, self._world = bucket, keep, world
        self._folder = bucket.folder / checkpoint.FOLDER

    def latest(self) -> Found:
        """Find the newest whole one, and download it to each machine."""
        if (known := _found.get(self._folder)) is None:
            known = _found[self._folder] = self._newest()
        return known

    def _newest(self) -> Found:
        tried = (
            (self._folder / step, next(filter(None, from_each(partial(self._fetched, step))), ""))
            for step in from_first(self._bucket.steps, self._world)
        )
        return checkpoint.first_whole(tried, self._folder, "its objects")

    def _fetched(self, step: str) -> str:
        """Download a checkpoint, one process a machine; return what it lacks."""
        if not places.leads(self._bucket.folder):
            return ""
        return self._bucket.fetch_checkpoint(step) or unpickling.damage(self._folder / step)

    def set_aside(self, found: Found) -> None:
        """Rename the indices of the damaged ones: their objects stay, and are not counted among those to keep."""
        for path, _ in found.damaged if self._world.is_main else ():
            index = f"{checkpoint.FOLDER}/{path.name}.json"
            self._bucket.put(f"{checkpoint.FOLDER}/{path.name}.damaged.json", self._bucket.get(index) or b"")
            self._bucket.delete([index])
        _found[self._folder] = Found(found.path)

    def shown(self, step: int) -> str:
        """Name one in messages."""
        return f"{self._bucket.url}/{checkpoint.FOLDER}/{checkpoint.of_step(step)}"

    def begin(self, step: int, facts: Facts) -> dcp.FileSystemWriter:
        """Return what writes one: all processes call it."""
        _found.pop(self._folder, None)
        name = from_first(lambda: self._bucket.free_folder(checkpoint.of_step(step)), self._world)
        return _Writer(self._folder / name, self._bucket, lambda files: self._publish(step, name, files, facts))

    def finish(self, step: int, facts: Facts) -> None:
        """Do nothing: the writer has done it."""

    def _publish(self, step: int, name: str, files: Facts, facts: Facts) -> None:
        """Make a checkpoint whole, and remove old ones."""
        there = f"{checkpoint.FOLDER}/{name}"
        progress = self._bucket.folder / there / unpickling.PROGRESS
        progress.write_text(json.dumps(facts, indent=1))
        for path in (progress.with_name(unpickling.TABLE), progress):
            files[path.name] = self._bucket.move_in(f"{there}/{path.name}", path)
        own = mirror.of(self._bucket.folder)
        own.sync()
        own.check()
        index = {"folder": name, "files": files}
        self._bucket.put(f"{checkpoint.FOLDER}/{checkpoint.of_step(step)}.json", json.dumps(index, indent=1).encode())
        self._bucket.prune(self._keep)

    def choose(self, step: int) -> None:
        """Make one the chosen one: a small object names it, and it is kept."""
        self._bucket.put(BEST, json.dumps({"checkpoint": checkpoint.of_step(step)}).encode())


@dataclass(frozen=True)
class _Put:
    """What torch's table says of a value, and what the index says of the file that it lies in."""

    info: Any
    file: str
    about: dict[str, Any]


class _Writer(dcp.FileSystemWriter):
    """Writes files of a process, and moves them into a bucket."""

    def __init__(self, folder: Path, bucket: Bucket, publish: Callable[[Facts], None]) -> None:
        super().__init__(folder)
        self._bucket, self._publish = bucket, publish

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """See `torch.distributed.checkpoint.StorageWriter`."""
        folder = Path(self.path)
        results = super().write_data(plan, planner).wait()
        files = {
            name: self._bucket.move_in(f"{checkpoint.FOLDER}/{folder.name}/{name}", folder / name)
            for name in sorted({one.storage_data.relative_path for one in results})
        }
        for one in results:
            name = one.storage_data.relative_path
            object.__setattr__(one, "storage_data", _Put(one.storage_data, name, files[name]))
        done: Future[list[WriteResult]] = Future()
        done.set_result(results)
        return done

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """See `torch.distributed.checkpoint.StorageWriter`. All files of all processes are there."""
        files: Facts = {}
        for one in (one for each in results for one in each):
            files[one.storage_data.file] = one.storage_data.about
            object.__setattr__(one, "storage_data", one.storage_data.info)
        super().finish(metadata, results)
        self._publish(files)

    def storage_meta(self) -> StorageMeta | None:
        """Return what the table says of itself: no folder of this machine."""
        return StorageMeta(save_id=self.save_id)
