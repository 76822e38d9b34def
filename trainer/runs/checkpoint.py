"""Checkpoints of a run: written in the background, whole or not at all, readable on any number of processes.

`<run>/checkpoints/step_00000500/` holds torch's distributed checkpoint (weights, moments, average, the objective's
state, random states) and `progress.json` (step, counts, the loader's state). Its name ends in `.part` until all of it
is on disk. One that a disk damaged later is set aside as `.damaged`, and the newest whole one is gone on with.
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
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from shardkit.errors import ArgumentError, ShardkitError, StorageError
from shardkit.storage import no_folder
from trainer.errors import TrainingError
from trainer.objectives.base import Objective
from trainer.optim import Average
from trainer.parallel import World, from_first
from trainer.runs import best, unpickling

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is on one process, on purpose

Facts = dict[str, Any]
_FLAT = StateDictOptions(flatten_optimizer_state_dict=True)  # by parameter, so that another sharding can read it
_PREFIX = "step_"


@dataclass(frozen=True, slots=True)
class Found:
    """What a search for the newest whole checkpoint found.

    Attributes
    ----------
    path : Path or None
        The checkpoint, if there is any.
    damaged : tuple of (Path, str)
        Newer ones that are not whole, each with what it lacks.
    """

    path: Path | None
    damaged: tuple[tuple[Path, str], ...] = ()

    @property
    def told(self) -> str:
        """The damaged ones and what they lack, for a sentence."""
        return ", ".join(f"{path.name} is not whole: {lacks}" for path, lacks in self.damaged)


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
        self._folder, self._keep, self._world = run / "checkpoints", keep, world
        self._pending: tuple[Future[Any], Path, Facts] | None = None

    def latest(self) -> Found:
        """Find the newest whole one.

        Raises
        ------
        TrainingError
            Where all are damaged.
        """
        return from_first(lambda: newest(self._folder), self._world)

    def set_aside(self, found: Found) -> None:
        """Rename the damaged ones, so that they are not counted among those to keep."""
        for path, _ in found.damaged if self._world.is_main else ():
            aside = path.with_suffix(".damaged")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)

    def path(self, step: int) -> Path:
        """Return the folder of the checkpoint after so many steps."""
        return self._folder / f"{_PREFIX}{step:08d}"

    def save(self, step: int, state: "TrainingState", facts: Facts) -> None:
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
        path = self.path(step)
        part = path.with_suffix(".part")
        if self._world.is_main:
            for left in self._folder.glob("*.part"):  # of a run that was killed
                shutil.rmtree(left)
            part.mkdir(parents=True, exist_ok=True)
        if dist.is_initialized():
            dist.barrier(self._world.group)
        with _sentence(path):
            single = not dist.is_initialized()
            future = dcp.async_save(
                state.tensors(), checkpoint_id=part, process_group=self._world.group, no_dist=single
            )
        assert isinstance(future, Future)
        self._pending = (future, path, facts)

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
        (future, path, facts), self._pending = self._pending, None
        with _sentence(path):
            future.result()
            if not self._world.is_main:
                return
            part = path.with_suffix(".part")
            (part / "progress.json").write_text(json.dumps(facts, indent=1))
            old = path.with_suffix(".old.part")
            if path.exists():  # trained or validated again: one of them has the name, but for a moment
                path.rename(old)
            part.rename(path)
            shutil.rmtree(old, ignore_errors=True)
            for old in sorted(self._folder.glob(f"{_PREFIX}????????"))[: -self._keep]:
                shutil.rmtree(old)


class TrainingState:
    """What a checkpoint holds of model, optimiser, average and objective, and this process's random numbers.

    Parameters
    ----------
    model
        The model, or what wraps it.
    optimizer
        The model's.
    average
        Average of the weights, if one is kept.
    rank
        Number of this process.
    objective
        Whose own tensors are saved.
    """

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
        """Return all of it, nested and in torch's own names."""
        weights, moments = get_state_dict(self.model, self.optimizer, options=_FLAT)
        rng = {"cpu": torch.get_rng_state()}
        if torch.cuda.is_available():
            rng["cuda"] = torch.cuda.get_rng_state()
        average = {} if self.average is None else {"average": self.average.state}
        own = {} if self.objective is None else self.objective.state_dict()
        state = {"objective": own} if own else {}
        return {"model": weights, "optim": moments, "rng": {str(self.rank): rng}, **average, **state}

    def load(self, path: Path) -> Facts:
        """Take over a checkpoint's values in place.

        A process that the checkpoint has no random state of keeps its own.

        Returns
        -------
        dict of str to object
            The checkpoint's facts.

        Raises
        ------
        TrainingError
            For a checkpoint of another model, or one that cannot be read.
        """
        held = self.tensors()
        with _readable(path):
            facts = unpickling.progress(path)
            names = _check_shapes(path, "model", held["model"])
            _check_shapes(path, "objective", held.get("objective", {}))
            if not any(name.startswith(f"rng.{self.rank}.") for name in names):
                del held["rng"]
            unpickling.load(held, path, alone=not dist.is_initialized())
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
    """Find the newest whole checkpoint in a folder.

    Raises
    ------
    TrainingError
        Where there are some, and all are damaged.
    """
    damaged: list[tuple[Path, str]] = []
    for path in sorted(folder.glob(f"{_PREFIX}????????"), reverse=True):
        lacks = unpickling.damage(path)
        if not lacks:
            return Found(path, tuple(damaged))
        damaged.append((path, lacks))
    if damaged:
        raise TrainingError(
            f"{folder} has no whole checkpoint ({Found(None, tuple(damaged)).told}): restore one, or remove the folder"
            " to begin anew"
        )
    return Found(None)


def latest(folder: Path) -> Path | None:
    """Return the newest whole checkpoint in a folder, None without any."""
    return newest(folder).path


def named(path: Path) -> Path:
    """Return the checkpoint that a path is, or that of the run that it is: the best one, else the newest whole one.

    Raises
    ------
    ArgumentError
        Where it is neither, or the checkpoint is not whole.
    """
    if (path / best.NAME).exists():
        path = path / best.NAME
    if not (path / unpickling.TABLE).exists():
        found = latest(path / "checkpoints")
        if found is None:
            raise ArgumentError(
                no_folder(path) or f"{path} contains no complete checkpoint: name a run or a checkpoint"
            )
        return found
    if lacks := unpickling.damage(path):
        raise ArgumentError(f"the checkpoint {path} is not whole ({lacks}): name another one of the run")
    return path


def weights(path: Path, model: nn.Module, average: bool = False, under: str = "") -> None:
    """Load a checkpoint's weights, or their average, into a model on one process.

    Buffers, and parameters that were not trained, have no average: they are as they were last.

    Parameters
    ----------
    path
        The checkpoint.
    model
        Takes the weights.
    average
        Whether the average is taken.
    under
        What comes before the model's names there, where it was a part of a larger one.

    Raises
    ------
    TrainingError
        For a checkpoint of another model, one without an average, or one that cannot be read.
    """
    held = dict(model.state_dict())
    with _readable(path):
        there = unpickling.shapes(path)
        if average and not any(name.startswith("average.") for name in there):
            raise TrainingError(f"{path} holds no average of the weights: its run had --optim.ema 0")
        own: dict[str, dict[str, Tensor]] = {}
        for name, value in held.items():
            kind = "average" if average and f"average.{under}{name}" in there else "model"
            own.setdefault(kind, {})[f"{under}{name}"] = value
        for kind, values in own.items():
            _check_shapes(path, kind, values)
        unpickling.load(own, path, alone=True)
        model.load_state_dict(held)


def names(path: Path) -> frozenset[str]:
    """Return the names of a checkpoint's weights."""
    with _readable(path):
        return frozenset(n.removeprefix("model.") for n in unpickling.shapes(path) if n.startswith("model."))


def fill(path: Path, held: dict[str, Tensor]) -> None:
    """Fill tensors with a checkpoint's weights of these names, in place, on one process.

    Raises
    ------
    TrainingError
        For a checkpoint of another model, or one that cannot be read.
    """
    with _readable(path):
        _check_shapes(path, "model", held)
        unpickling.load({"model": held}, path, alone=True)


def _check_shapes(path: Path, kind: str, held: dict[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Check that a checkpoint's weights are those of this model; return the shapes of all that it holds."""
    there = unpickling.shapes(path)
    for name, value in held.items():
        if (shape := there.get(f"{kind}.{name}")) != tuple(value.shape):
            raise TrainingError(
                f"the checkpoint {path} is of another model: {name} is {shape or 'missing'} there and"
                f" {tuple(value.shape)} here; use the model options that it was written with"
            )
    return there


def _sentence(path: Path) -> contextlib.AbstractContextManager[None]:
    return _Translated(StorageError, f"the checkpoint {path} cannot be written", "free some space and run it again")


def _readable(path: Path) -> contextlib.AbstractContextManager[None]:
    return _Translated(TrainingError, f"the checkpoint {path} cannot be read", "remove it to go on from the one before")


class _Translated(contextlib.AbstractContextManager[None]):
    """Turns whatever goes wrong inside into one sentence."""

    def __init__(self, kind: type[Exception], what: str, remedy: str) -> None:
        self.kind, self.what, self.remedy = kind, what, remedy

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, ShardkitError):
            return
        if isinstance(error, Exception) or type(error).__name__ == "CheckpointException":
            cause = str(error).strip().splitlines()
            raise self.kind(f"{self.what}: {cause[-1] if cause else type(error).__name__}; {self.remedy}") from error
