"""A run with a task, opened to be asked: its options as records again, its classes, and its weights."""

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

from shardkit.errors import ArgumentError
from shardkit.storage import no_folder
from trainer.config import Config, from_flat
from trainer.models.base import EncoderConfig
from trainer.models.classifier import Classifier
from trainer.models.registry import described
from trainer.runs import checkpoint, folder, unpickling
from trainer.runs.folder import Facts
from trainer.tasks.config import TaskConfig

BEST = "best"
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Trained:
    """A run with a task, and one of its checkpoints.

    Attributes
    ----------
    run, path : Path
        Folder of the run, and of the checkpoint.
    facts : dict
        What `run.json` says.
    progress : dict
        What the checkpoint says of itself.
    config : Config
        All options of the run.
    """

    run: Path
    path: Path
    facts: Facts
    progress: Facts
    config: Config

    @property
    def task(self) -> TaskConfig:
        """What the run was trained for."""
        assert isinstance(self.config.objective, TaskConfig)
        return self.config.objective

    @property
    def classes(self) -> tuple[str, ...]:
        """What its scores are of."""
        return tuple(self.facts["objective"]["classes"])

    @property
    def step(self) -> int:
        """Update that the weights are of."""
        return int(self.progress["step"])

    @property
    def seed(self) -> int | None:
        """Its seed, where the run is one of several."""
        seed = self.config.run.seed
        return seed if self.run.name == f"seed_{seed}" else None

    @property
    def selection(self) -> Facts:
        """By which `metric` of which `split` the checkpoint was chosen, and its `value`; empty where it was not."""
        found: Facts = self.progress.get("selection") or {}
        return found if found.get("step") == self.step else {}

    @property
    def began(self) -> str:
        """What its weights began with, and what those had seen, in words."""
        return str(self.facts.get("weights") or "not known")

    def classifier(self, classes: int) -> Classifier:
        """Build the network with the checkpoint's weights, ready to be asked.

        Raises
        ------
        TrainingError
            The checkpoint is of another model, or cannot be read.
        """
        made = self.network(classes)
        checkpoint.weights(self.path, made)
        return made.eval()

    def network(self, classes: int) -> Classifier:
        """Build the network, with random weights."""
        assert isinstance(self.config.model, EncoderConfig)
        return Classifier(self.config.model.encoder(last_norm=not self.task.head.norm), classes, self.task.head)


def members(run: Path) -> list[Path]:
    """Return the folders of a run: itself, or one for each seed.

    Raises
    ------
    ArgumentError
        There is no run.
    """
    seeds = [path.parent for path in sorted(run.glob(f"seed_*/{folder.FACTS}"))]
    if not seeds and not (run / folder.FACTS).exists():
        raise ArgumentError(no_folder(run) or f"{run} has no {folder.FACTS}: name the --out of a run")
    return sorted(seeds, key=lambda path: (len(path.name), path.name)) or [run]


def opened(run: Path, which: str = BEST) -> Trained:
    """Open a run.

    Parameters
    ----------
    run
        Its folder.
    which
        best: the checkpoint that validation chose, the last one where none was chosen. last, or a checkpoint's folder.

    Raises
    ------
    ArgumentError
        There is no such run, or it has no task.
    """
    facts = folder.facts(run)
    if not has_task(facts):
        kind = facts.get("objective", {}).get("kind", "Masked")
        raise ArgumentError(f"{run} is a run of the objective {kind}, without labels: fine-tune or probe it first")
    path = _checkpoint(run, which)
    return Trained(run, path, facts, unpickling.progress(path), _config(facts["config"]))


def has_task(facts: Facts) -> bool:
    """Return whether the run of a `run.json` learnt from labels."""
    return bool(facts.get("objective", {}).get("kind") == TaskConfig.__name__.removesuffix("Config"))


def _checkpoint(run: Path, which: str) -> Path:
    if which == BEST:
        return checkpoint.named(run / BEST if (run / BEST).exists() else run)
    if which != "last":
        return checkpoint.named(Path(which))
    found = checkpoint.latest(run / "checkpoints")
    return checkpoint.named(run) if found is None else found


def _config(options: Facts) -> Config:
    hints = get_type_hints(Config)
    parts: dict[str, Any] = {"model": described(_below(options, "model"))}
    parts["objective"] = _record(TaskConfig, _below(options, "objective"))
    names = (f.name for f in fields(Config) if f.name not in parts)
    return Config(**parts, **{name: _record(hints[name], _below(options, name)) for name in names})


def _below(options: Facts, name: str) -> Facts:
    return {at.removeprefix(f"{name}."): value for at, value in options.items() if at.startswith(f"{name}.")}


def _record(kind: type[Record], values: Facts) -> Record:
    """Return a record that may have records in it, of what `trainer.config.flat` said of it."""
    hints = get_type_hints(kind)
    nested = {f.name: hints[f.name] for f in fields(cast(Any, kind)) if is_dataclass(hints[f.name])}
    plain = {name: value for name, value in values.items() if name.partition(".")[0] not in nested}
    made = from_flat(kind, plain)
    parts = {name: _record(of, _below(values, name)) for name, of in nested.items()}
    return cast(Record, replace(cast(Any, made), **parts))
