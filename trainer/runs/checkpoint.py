"""Checkpoints of a run: written in the background, whole or not at all, readable on any number of processes.

`<run>/checkpoints/step_00000500/` holds torch's distributed checkpoint (weights, moments, average, the
objective's state, random states) and
`progress.json` (step, counts, the loader's state). It has the name `.part` until all of it is on disk; one that a disk
damaged later is set aside as `.damaged`, and the newest whole one is gone on with.
"""

import contextlib
import json
import shutil
import warnings
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from shardkit.errors import ArgumentError, ShardkitError, StorageError
from shardkit.storage import no_folder
from trainer.errors import TrainingError
from trainer.objectives.base import Objective
from trainer.optim import Average
from trainer.parallel import World, from_first
from trainer.runs import unpickling

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is on one process, on purpose

Facts = dict[str, Any]
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by parameter, so that another sharding can read it
_PREFIX = "step_"


@dataclass(frozen=True, slots=True)
class Found:
    """place: the newest whole checkpoint. damaged: newer ones, each with what it lacks."""

    place: Path | None
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def told(self) -> str:
        """About the damaged ones, for a sentence."""
        return ", ".join(f"{place.name} is not whole: {lacks}" for place, lacks in self.damaged)


class Checkpoints:
    """Those of one run. All processes call the same methods in the same order."""

    def __init__(self, run: Path, keep: int, world: World) -> None:
        self._folder, self._keep, self._world = run / "checkpoints", keep, world
        self._pending: tuple[Future[Any], Path, Facts] | None = None

    def latest(self) -> Found:
        """The newest whole one. Raises TrainingError where all are damaged."""
        return from_first(lambda: newest(self._folder), self._world)

    def set_aside(self, found: Found) -> None:
        """Rename the damaged ones, so that they are not counted among those to keep."""
        for place, _ in found.damaged if self._world.is_main else ():
            aside = place.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            place.rename(aside)

    def save(self, step: int, state: "State", facts: Facts) -> None:
        """Copy the state now, write it while training goes on. Raises StorageError if the one before failed."""
        self.wait()
        place = self._folder / f"{_PREFIX}{step:08d}"
        part = place.with_suffix(".part")
        if self._world.is_main:
            for left in self._folder.glob("*.part"):  # of a run that was killed
                shutil.rmtree(left)
            part.mkdir(parents=True, exist_ok=True)
        if dist.is_initialized():
            dist.barrier(self._world.group)
        with _sentence(place):
            single = not dist.is_initialized()
            future = dcp.async_save(
                state.tensors(), checkpoint_id=part, process_group=self._world.group, no_dist=single
            )
        assert isinstance(future, Future)
        self._pending = (future, place, facts)

    def poll(self) -> None:
        """Name it if it has been written."""
        if self._pending is not None and self._pending[0].done():
            self.wait()

    def wait(self) -> None:
        """Until what is being written is whole. Raises StorageError if it could not be."""
        if self._pending is None:
            return
        (future, place, facts), self._pending = self._pending, None
        with _sentence(place):
            future.result()
            if not self._world.is_main:
                return
            part = place.with_suffix(".part")
            (part / "progress.json").write_text(json.dumps(facts, indent=1))
            if place.exists():  # of steps that were trained again
                shutil.rmtree(place)
            part.rename(place)
            for old in sorted(self._folder.glob(f"{_PREFIX}????????"))[: -self._keep]:
                shutil.rmtree(old)


class State:
    """What a checkpoint holds of model, optimiser, average and objective, and this process's random numbers."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: Average | None,
        rank: int,
        objective: Objective | None = None,
    ) -> None:
        self.model, self.optimizer, self.average, self.rank = model, optimizer, average, rank
        self.objective = objective

    def tensors(self) -> dict[str, Any]:
        """In torch's own names."""
        weights, moments = get_state_dict(self.model, self.optimizer, options=_FLAT)
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        average = {} if self.average is None else {"average": self.average.state}
        own = {} if self.objective is None else self.objective.state_dict()
        state = {"objective": own} if own else {}
        return {"model": weights, "optim": moments, "rng": {str(self.rank): rng}, **average, **state}

    def load(self, place: Path) -> Facts:
        """Take over a checkpoint's values in place; returns its facts. A process that it has no random state of keeps
        its own. Raises TrainingError for one of another model."""
        held = self.tensors()
        with _readable(place):
            facts = unpickling.progress(place)
            names = _check_shapes(place, "model", held["model"])
            _check_shapes(place, "objective", held.get("objective", {}))
            if not any(name.startswith(f"rng.{self.rank}.") for name in names):
                del held["rng"]
            unpickling.load(held, place, alone=not dist.is_initialized())
        set_state_dict(
            self.model, self.optimizer, model_state_dict=held["model"], optim_state_dict=held["optim"], options=_FLAT
        )
        if self.objective is not None and "objective" in held:
            self.objective.load_state_dict(held["objective"])
        if own := held.get("rng", {}).get(str(self.rank)):
            torch.set_rng_state(own["cpu"])
            if "cuda" in own:
                torch.cuda.set_rng_state(own["cuda"])
        return facts


def newest(folder: Path) -> Found:
    """The newest whole checkpoint in a folder. Raises TrainingError where there are some and all are damaged."""
    damaged: list[tuple[Path, str]] = []
    for place in sorted(folder.glob(f"{_PREFIX}????????"), reverse=True):
        lacks = unpickling.damage(place)
        if not lacks:
            return Found(place, tuple(damaged))
        damaged.append((place, lacks))
    if damaged:
        raise TrainingError(
            f"{folder} has no whole checkpoint ({Found(None, tuple(damaged)).told}): restore one, or remove the folder"
            " to begin anew"
        )
    return Found(None)


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder."""
    return newest(folder).place


def named(place: Path) -> Path:
    """The checkpoint that `place` is, or the newest whole one of the run that it is. Raises ArgumentError."""
    if not (place / unpickling.TABLE).exists():
        found = latest(place / "checkpoints")
        if found is None:
            raise ArgumentError(
                no_folder(place) or f"{place} contains no complete checkpoint: name a run or a checkpoint"
            )
        return found
    if lacks := unpickling.damage(place):
        raise ArgumentError(f"the checkpoint {place} is not whole ({lacks}): name another one of the run")
    return place


def weights(place: Path, model: nn.Module, average: bool = False) -> None:
    """Load a checkpoint's weights, or their average, into a model on one process. Raises TrainingError."""
    held, kind = dict(model.state_dict()), "average" if average else "model"
    own = {name: held[name] for name, _ in model.named_parameters() if name in held} if average else held
    with _readable(place):
        if average and not any(name.startswith("average.") for name in unpickling.shapes(place)):
            raise TrainingError(f"{place} holds no average of the weights: its run had --optim.ema 0")
        _check_shapes(place, kind, own)
        unpickling.load({kind: own}, place, alone=True)
        model.load_state_dict({**held, **own})


def _check_shapes(place: Path, kind: str, held: dict[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Raises TrainingError where a checkpoint's weights are not those of this model; returns all its names."""
    there = unpickling.shapes(place)
    for name, value in held.items():
        if (shape := there.get(f"{kind}.{name}")) != tuple(value.shape):
            raise TrainingError(
                f"the checkpoint {place} is of another model: {name} is {shape or 'missing'} there and"
                f" {tuple(value.shape)} here; use the model options that it was written with"
            )
    return there


def _sentence(place: Path) -> contextlib.AbstractContextManager[None]:
    return _Translated(StorageError, f"the checkpoint {place} cannot be written", "free some space and run it again")


def _readable(place: Path) -> contextlib.AbstractContextManager[None]:
    return _Translated(
        TrainingError, f"the checkpoint {place} cannot be read", "remove it to go on from the one before"
    )


class _Translated(contextlib.AbstractContextManager[None]):
    """Whatever goes wrong inside becomes one sentence."""

    def __init__(self, kind: type[Exception], what: str, remedy: str) -> None:
        self.kind, self.what, self.remedy = kind, what, remedy

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ShardkitError):
            return
        if isinstance(error, Exception) or type(error).__name__ == "CheckpointException":
            cause = str(error).strip().splitlines()
            raise self.kind(f"{self.what}: {cause[-1] if cause else type(error).__name__}; {self.remedy}") from error
