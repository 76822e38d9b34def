"""A run and some samples, opened to be looked at: the model with its weights, and the run's loader without chance."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from shardkit import Dataset, Loader, from_text
from shardkit.commands.normalising import normalise_of
from shardkit.errors import ArgumentError
from trainer.models.base import Model
from trainer.models.initial import without_heads
from trainer.models.registry import described
from trainer.runs import best, checkpoint, folder, unpickling
from trainer.runs.training_data import normalise_at
from trainer.tasks import trained


@dataclass(frozen=True, slots=True)
class Opened:
    """A run's model, in evaluation mode and without gradients.

    Attributes
    ----------
    checkpoint : Path
        Where its weights are from.
    step : int
        Global steps that it was trained for.
    facts : dict
        Its `run.json`.
    model : Model
        A classifier, or whatever was pre-trained.
    kind : str
        What its classes are: multilabel, multiclass, regression; empty without classes.
    classes : tuple of str
        Names of the classifier's scores.
    """

    checkpoint: Path
    step: int
    facts: dict[str, Any]
    model: Model
    kind: str = ""
    classes: tuple[str, ...] = ()


def plain_batching(facts: dict[str, Any]) -> str:
    """Return a run's batching without random crops and flips, one micro-batch a step, no sample left out."""
    batching = from_text(facts["config"]["loader.batching"])
    return str(replace(batching, crop=None, flip=0.0, remainder="fill", per_step=1))


def plain_loader(facts: dict[str, Any], data: str, keys: Collection[str] | None, seed: int) -> Loader:
    """Open a run's loader on some samples of a dataset, whose grey levels are as the run saw them.

    Parameters
    ----------
    facts
        The run's.
    data
        Folder or url of the dataset.
    keys
        Of the samples; None for all.
    seed
        Of what is drawn of each image: masks.
    """
    wanted = pa.array(sorted(keys), pa.string()) if keys is not None else None
    normalise = normalise_at(facts, Dataset(data))
    return Loader(
        data,
        batching=plain_batching(facts),
        seed=seed,
        split=None,
        where=None if wanted is None else lambda table: pc.is_in(table["key"], wanted),
        needs=() if wanted is None else ("key",),
        rank=0,
        world_size=1,
        normalise=normalise_of(normalise, f"--loader.normalise {normalise}"),
    )


def open_run(run: Path, device: torch.device) -> Opened:
    """Build a run's model with the weights of its best checkpoint, or the newest.

    Parameters
    ----------
    run
        Folder of a run, or of one of its checkpoints.
    device
        Where the model goes.

    Raises
    ------
    ArgumentError
        For what is no run.
    TrainingError
        For a checkpoint that cannot be read.
    """
    path, facts = found(run)
    kind, classes = "", tuple[str, ...]()
    if trained.has_task(facts):
        of = trained.opened(best.run_of(path), str(path))
        kind, classes = of.task.kind, of.classes
        model: Model = of.classifier(len(classes))
    else:
        named = {n.removeprefix("model."): v for n, v in facts["config"].items() if n.startswith("model.")}
        model, under = without_heads(described(named), checkpoint.names(path))
        checkpoint.weights(path, model, under=under)
    model.eval().requires_grad_(False).to(device)
    return Opened(path, int(unpickling.progress(path)["step"]), facts, model, kind, classes)


def found(run: Path) -> tuple[Path, dict[str, Any]]:
    """Return the checkpoint that is meant by a path, and what its run's `run.json` says.

    Raises
    ------
    ArgumentError
        For what is no run.
    """
    if not (run / folder.FACTS).exists() and (seeds := sorted(run.glob(f"seed_*/{folder.FACTS}"))):
        raise ArgumentError(f"{run} holds runs of {len(seeds)} seeds: name one of them, such as {seeds[0].parent}")
    path = checkpoint.named(run)
    return path, folder.facts(best.run_of(path))
