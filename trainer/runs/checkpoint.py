"""Checkpoints of a run, found and read: whole ones only, on any number of processes.

`<run>/checkpoints/step_00000500/` holds torch's distributed checkpoint (weights, moments, average, the objective's
state, random states) and `progress.json` (step, counts, the loader's state). One that a disk damaged is passed over,
and the newest whole one is gone on with. `trainer.runs.saving` writes them.
"""

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from shardkit.errors import ArgumentError, ShardkitError
from shardkit.storage import no_folder
from trainer.errors import TrainingError
from trainer.runs import best, unpickling

FOLDER: Final = "checkpoints"
PREFIX: Final = "step_"
STEPS: Final = f"{PREFIX}????????"


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


def of_step(step: int) -> str:
    """Return the name of the checkpoint after so many global steps."""
    return f"{PREFIX}{step:08d}"


def newest(folder: Path) -> Found:
    """Find the newest whole checkpoint in a folder.

    Raises
    ------
    TrainingError
        Where there are some, and all are damaged.
    """
    tried = ((path, unpickling.damage(path)) for path in sorted(folder.glob(STEPS), reverse=True))
    return first_whole(tried, folder, "the folder")


def first_whole(tried: Iterable[tuple[Path, str]], folder: Path, removed: str) -> Found:
    """Find the first whole one of some.

    Parameters
    ----------
    tried
        Each, the newest first, and what it lacks in words; none is asked for after a whole one.
    folder
        In which they lie, in messages.
    removed
        What to remove to begin anew, in messages.

    Raises
    ------
    TrainingError
        Where there are some, and all are damaged.
    """
    damaged: list[tuple[Path, str]] = []
    for path, lacks in tried:
        if not lacks:
            return Found(path, tuple(damaged))
        damaged.append((path, lacks))
    if damaged:
        raise TrainingError(
            f"{folder} has no whole checkpoint ({Found(None, tuple(damaged)).told}): restore one, or remove {removed}"
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
        found = latest(path / FOLDER)
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
    with readable(path):
        there = unpickling.shapes(path)
        if average and not any(name.startswith("average.") for name in there):
            raise TrainingError(f"{path} holds no average of the weights: its run had --optim.ema 0")
        own: dict[str, dict[str, Tensor]] = {}
        for name, value in held.items():
            kind = "average" if average and f"average.{under}{name}" in there else "model"
            own.setdefault(kind, {})[f"{under}{name}"] = value
        for kind, values in own.items():
            check_shapes(path, kind, values)
        unpickling.load(own, path, alone=True)
        model.load_state_dict(held)


def names(path: Path) -> frozenset[str]:
    """Return the names of a checkpoint's weights."""
    with readable(path):
        return frozenset(n.removeprefix("model.") for n in unpickling.shapes(path) if n.startswith("model."))


def fill(path: Path, held: dict[str, Tensor]) -> None:
    """Fill tensors with a checkpoint's weights of these names, in place, on one process.

    Raises
    ------
    TrainingError
        For a checkpoint of another model, or one that cannot be read.
    """
    with readable(path):
        check_shapes(path, "model", held)
        unpickling.load({"model": held}, path, alone=True)


def check_shapes(path: Path, kind: str, held: dict[str, Any]) -> dict[str, tuple[int, ...] | None]:
    """Check that a checkpoint's weights are those of this model; return the shapes of all that it holds."""
    there = unpickling.shapes(path)
    for name, value in held.items():
        if (shape := there.get(f"{kind}.{name}")) != tuple(value.shape):
            raise TrainingError(
                f"the checkpoint {path} is of another model: {name} is {shape or 'missing'} there and"
                f" {tuple(value.shape)} here; use the model options that it was written with"
            )
    return there


def readable(path: Path) -> contextlib.AbstractContextManager[None]:
    """Turn whatever goes wrong while a checkpoint is read into one sentence."""
    return Translated(TrainingError, f"the checkpoint {path} cannot be read", "remove it to go on from the one before")


class Translated(contextlib.AbstractContextManager[None]):
    """Turns whatever goes wrong inside into one sentence."""

    def __init__(self, kind: type[Exception], what: str, remedy: str) -> None:
        self.kind, self.what, self.remedy = kind, what, remedy

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:  # noqa: D105
        if isinstance(error, ShardkitError):
            return
        if isinstance(error, Exception | dcp.CheckpointException):
            raise self.kind(f"{self.what}: {_cause(error)}; {self.remedy}") from error


def _cause(error: BaseException) -> str:
    """Return the last line of what went wrong; of several processes, of the first of them whose sentence is ours."""
    if isinstance(error, dcp.CheckpointException):
        causes = [cause for cause, _ in error.failures.values()]
        error = next((cause for cause in causes if isinstance(cause, ShardkitError)), error)
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
