"""A run and some samples, opened to be looked at: the model with its weights, and the run's loader without chance."""

from collections.abc import Collection
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import pyarrow as pa
import pyarrow.compute as pc

from shardkit import Loader, from_text
from shardkit.errors import ArgumentError
from trainer.config import from_flat
from trainer.models.base import EncoderConfig, Model, ModelConfig
from trainer.models.classifier import Classifier
from trainer.models.registry import described
from trainer.runs import checkpoint, folder, unpickling
from trainer.tasks.config import TaskConfig

Record = TypeVar("Record")


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
    """Open a run's loader on some samples of a dataset.

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
    normalise: Any = facts["config"]["loader.normalise"]
    mean, comma, deviation = normalise.partition(",")
    return Loader(
        data,
        batching=plain_batching(facts),
        seed=seed,
        split=None,
        where=None if wanted is None else lambda table: pc.is_in(table["key"], wanted),
        needs=() if wanted is None else ("key",),
        rank=0,
        world_size=1,
        normalise=(float(mean), float(deviation)) if comma else normalise,
    )


def open_run(run: Path, loader: Loader) -> Opened:
    """Build a run's model with the weights of its best checkpoint, or the newest.

    Parameters
    ----------
    run
        Folder of a run, or of one of its checkpoints.
    loader
        Of the dataset that is looked at: names of classes that the run does not say are those of its labels.

    Raises
    ------
    ArgumentError
        For what is no run.
    TrainingError
        For a checkpoint that cannot be read.
    """
    path, facts = found(run)
    described_by = described(_part(facts["config"], "model."))
    task, classes = None, tuple[str, ...]()
    if _is_task(facts):
        task = nested(TaskConfig, _part(facts["config"], "objective."))
        classes = _classes(facts, task, loader)
    model: Model = described_by.build() if task is None else _classifier(task, described_by, len(classes))
    checkpoint.weights(path, model)
    model.eval().requires_grad_(False).to(loader.device)
    step = int(unpickling.progress(path)["step"])
    return Opened(path, step, facts, model, task.kind if task else "", classes)


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
    of = path.parent if (path.parent / folder.FACTS).exists() else path.parent.parent
    return path, folder.facts(of)


def nested(kind: type[Record], values: dict[str, Any]) -> Record:
    """Return a record, and those within it, made of what `trainer.config.flat` said of one."""
    hints, plain = get_type_hints(kind), dict(values)
    for f in fields(kind):  # type: ignore[arg-type]
        if is_dataclass(hints[f.name]) and (own := _part(values, f"{f.name}.")):
            plain = {name: value for name, value in plain.items() if not name.startswith(f"{f.name}.")}
            plain[f.name] = nested(hints[f.name], own)
    return from_flat(kind, plain)


def _part(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def _is_task(facts: dict[str, Any]) -> bool:
    return "objective.labels" in facts["config"] and "objective.kind" in facts["config"]


def _classes(facts: dict[str, Any], task: TaskConfig, loader: Loader) -> tuple[str, ...]:
    """Return the names of a run's classes: as it says itself, else as the labels of this dataset have them."""
    said = facts.get("classes") or facts.get("objective", {}).get("classes")
    return tuple(said) if said else task.targets(loader).classes


def _classifier(task: TaskConfig, model: ModelConfig, classes: int) -> Classifier:
    if not isinstance(model, EncoderConfig):
        raise ArgumentError(f"a {type(model).__name__.removesuffix('Config')} has no encoder that a task could use")
    return Classifier(model.encoder(last_norm=not task.head.norm), classes, task.head)
