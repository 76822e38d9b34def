"""What a command begins with, or goes on from: everything is read before anything is written."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.storage import shown
from trainer.config import Config, flat
from trainer.errors import TrainingError
from trainer.models.base import Grey
from trainer.models.initial import RANDOM, load_initial
from trainer.objectives.base import Objective
from trainer.parallel import World, from_first
from trainer.runs import folder, training_data, unpickling
from trainer.runs.changed import changed_since, data_of, data_of_run, other_targets
from trainer.runs.folder import Facts
from trainer.runs.lineage import facts_at
from trainer.runs.saving import Checkpoints
from trainer.selection import Selection, selection_notes


@dataclass(frozen=True, slots=True)
class Job:
    """What a command asks for.

    Attributes
    ----------
    recipe, config
        Name of the recipe, and its values with the command's changes.
    data, out
        Folder or url of the dataset, and folder of the run.
    init
        Weights to begin with, if named.
    typed
        Names of the options in the command; the others have the recipe's values.
    command
        Name of the command.
    init_channels
        How kernels of three channels become ones of grey.
    """

    recipe: str
    config: Config
    data: str
    out: Path
    init: str | None
    typed: frozenset[str] = frozenset()
    command: str = "pretrain"
    init_channels: Grey = "sum"


@dataclass(frozen=True, slots=True)
class Start:
    """What a run begins with.

    Attributes
    ----------
    facts
        Values for `run.json`.
    steps, done
        Number of global steps of the whole run, and how many of them are trained.
    anew
        Whether its epoch begins again, because the dataset has changed.
    notes
        Sentences for the user.
    finished
        Why nothing is left to train, in a sentence; empty where something is.
    """

    facts: Facts
    steps: int
    done: int
    anew: bool
    notes: tuple[str, ...]
    finished: str = ""


def start(job: Job, loader: Loader, objective: Objective, world: World) -> Start:
    """Find the run in the folder, or begin one with weights as asked for. Nothing is written.

    Raises
    ------
    TrainingError
        Where the folder holds another run, or one that cannot go on.
    ArgumentError
        For files that hold no weights.
    """
    before = from_first(lambda: folder.found(job.out), world)
    _check_objective(before, job)
    path = Checkpoints(job.out, job.config.save.keep, world).latest().path
    last = None if path is None else _progress(path)
    notes = folder.compare(before["config"], flat(job.config), job.out) if before else []
    _check_grey_levels(before, last, job, loader)
    weights = RANDOM
    if last is None and (init := job.init or objective.model.initial) is not None:
        weights = load_initial(objective.model, init, job.init_channels, objective.classes, flat(job.config))
        notes.append(weights)
    steps, done = _steps(before, last, job, loader), 0 if last is None else int(last["step"])
    finished = _finished(last, steps, done, job)
    anew = relabelled = False
    if last is not None and finished:
        notes += changed_since(before, last, loader, objective, job.data, job.out)
    elif last is not None:
        anew = _data_changed(before, last, job, loader, notes)
        relabelled = _targets_changed(before, last, job, objective, notes)
    if (anew or relabelled) and job.config.select.metric:
        notes.append("what was measured before does not compare: the best checkpoint is chosen anew")
    if done > steps:
        raise TrainingError(f"{job.out} has trained {done:,} steps: --run.steps and --run.epochs may not ask for fewer")
    about = _facts(before, last, job, loader, objective, world)
    changes = {at: change for at, change in about.get("changes", {}).items() if int(at) <= done} if last else {}
    new: dict[str, Any] = {}
    if last is not None and anew:
        new |= {"digest": about["digest"], "data": shown(job.data), "epoch": last["loader"]["epoch"]}
    if relabelled:
        new["targets_digest"] = objective.facts["targets_digest"]
    if last is not None and before is not None and steps != (old := before.get("steps", steps)):
        new["steps"] = steps
        notes.append(
            f"the run has {steps:,} steps now, and had {old:,}: from step {done + 1:,} on, learning rates are those of"
            f" a run of {steps:,}"
        )
    if new:
        changes[str(done)] = changes.get(str(done), {}) | new
    if last is None:
        about["weights"] = weights
    return Start({**about, "steps": steps, "changes": changes}, steps, done, anew, tuple(notes), finished)


def _finished(last: Facts | None, steps: int, done: int, job: Job) -> str:
    selection = Selection(job.config.select)
    selection.load({} if last is None else last.get("selection", {}))
    if selection.ended and done < steps:
        return (
            f"{job.out} stopped early at step {done:,}, after {selection.chosen.since} validations without a better"
            f" {selection.config.metric}: a greater --select.patience, or 0, trains on"
        )
    return f"{job.out} has all its {steps:,} steps: a greater --run.steps trains on" if done == steps else ""


def _kind(job: Job) -> str:
    """Return the name of the objective's kind: options alone do not tell kinds apart that have the same ones."""
    return type(job.config.objective).__name__.removesuffix("Config")


def _check_objective(before: Facts | None, job: Job) -> None:
    """Raise TrainingError where the folder's run minimises something else; old ones do not say what they do."""
    now = _kind(job)
    if before is not None and (was := before.get("objective", {}).get("kind", now)) != now:
        raise TrainingError(
            f"{job.out} holds a run of the objective {was}, not {now}: go on with its recipe, name another --out, or"
            f" begin from its weights with --init {job.out}"
        )


def _check_grey_levels(before: Facts | None, last: Facts | None, job: Job, loader: Loader) -> None:
    """Raise TrainingError where a mixture normalises a member in another way than the run has learnt from."""
    if last is not None and before is not None and (other := training_data.renormalised(before, loader)) is not None:
        name, was, now = other
        raise TrainingError(
            f"{job.out} was trained with {name or shown(job.data)} normalised by {was}, and not by {now}: shardkit mix"
            f" the same --normalise again, name another --out, or begin from its weights with --init {job.out}"
        )


def _progress(path: Path) -> Facts:
    last = unpickling.progress(path)
    if not isinstance(last.get("loader"), dict) or not isinstance(last.get("step"), int):
        raise TrainingError(f"{path} is of another version of the trainer: go on with that one, or use --init {path}")
    return last


def _steps(before: Facts | None, last: Facts | None, job: Job, loader: Loader) -> int:
    """Return the length of the run: as it began, unless the command changes it; a dataset that grew does not."""
    now = job.config.run
    begun = before is not None and last is not None and "steps" in before
    if before is not None and begun and not _typed(before["config"], job):
        return int(before["steps"])
    return now.steps or max(1, round(now.epochs * len(loader.plan)))


def one_length(job: Job) -> Job:
    """Return the command with one length of the run: epochs that were typed go before the recipe's steps.

    Raises
    ------
    ArgumentError
        Where steps and epochs were typed.
    """
    if "run.epochs" not in job.typed:
        return job
    if "run.steps" in job.typed:
        raise ArgumentError("--run.steps and --run.epochs both say how long the run is: give one of them")
    return replace(job, config=replace(job.config, run=replace(job.config.run, steps=None)))


def _length(job: Job) -> dict[str, Any]:
    """Return what the command says of the run's length; nothing where it leaves it to the recipe."""
    if "run.epochs" in job.typed:
        return {"run.epochs": job.config.run.epochs, "run.steps": None}
    return {"run.steps": job.config.run.steps} if "run.steps" in job.typed else {}


def _typed(config: dict[str, Any], job: Job) -> bool:
    """Return whether the command asks for another length than the run was begun with."""
    return any(config.get(name) != value for name, value in _length(job).items())


def _data_changed(before: Facts | None, last: Facts, job: Job, loader: Loader, notes: list[str]) -> bool:
    """Return whether the epoch has to begin anew; raise TrainingError unless the command says that it shall."""
    now = data_of(loader.state_dict())
    if now == data_of(last["loader"]):
        return False
    # By a command that ended before its first checkpoint.
    accepted = before is not None and data_of_run(before) == now
    if job.config.run.on_new_data == "refuse" and not accepted:
        raise TrainingError(
            f"{shown(job.data)} is not as it was at step {last['step']:,} of {job.out}: samples were added, or it is"
            " another dataset, or another split by its labels; go on with --run.on-new-data restart-epoch, which keeps"
            " weights, moments, step and schedule"
        )
    epoch = last["loader"].get("epoch")
    notes.append(f"the dataset has changed since step {last['step']:,}: epoch {epoch} begins anew with all of it")
    return True


def _targets_changed(before: Facts | None, last: Facts, job: Job, objective: Objective, notes: list[str]) -> bool:
    """Return whether labels say something else than before; raise TrainingError unless the command allows it."""
    was, now = (before or {}).get("objective", {}), objective.facts
    if not other_targets(before, objective):
        return False
    if was["classes"] != now["classes"]:
        raise TrainingError(
            f"{job.out} holds a run of the classes {', '.join(was['classes'])}, and the labels have"
            f" {', '.join(now['classes'])} now: name another --out, or begin from its weights with --init {job.out}"
        )
    if job.config.run.on_new_data == "refuse":
        raise TrainingError(
            f"the labels of {shown(job.data)} are not as they were at step {last['step']:,} of {job.out}: go on with"
            " --run.on-new-data restart-epoch, which keeps weights, moments, step and schedule"
        )
    notes.append(
        f"the labels have changed since step {last['step']:,}: from here on the run learns from them as they are"
    )
    return True


def _facts(
    before: Facts | None, last: Facts | None, job: Job, loader: Loader, objective: Objective, world: World
) -> Facts:
    known = before or {}
    return {
        **known,
        "command": job.command,
        "recipe": known.get("recipe", job.recipe),
        "config": flat(job.config) | ({} if last is None else _kept(known.get("config", {}), job)),
        "init": (job.init and shown(job.init)) if last is None else known.get("init"),
        "baseline": known.get("baseline"),
        "classes": list(objective.classes),
        "objective": {
            "kind": _kind(job),
            "loss": objective.loss_meaning,
            "picture": objective.picture_meaning,
            **objective.facts,
        },
        "notes": [
            *objective.notes,
            *selection_notes(job.config.select),
            *_other_grey_levels(job.init if last is None else known.get("init"), job, loader),
        ],
        "data": shown(job.data),
        "digest": loader.state_dict()["manifest_digest"],
        "trained": _trained(known, last, loader) if world.is_main else [],
        "plan": str(loader.plan_spec),
        "parameters": sum(p.numel() for p in objective.model.parameters()),
        "device": torch.cuda.get_device_name() if world.device.type == "cuda" else "CPU",
        "world_size": world.size,
    }


def _other_grey_levels(init: str | None, job: Job, loader: Loader) -> list[str]:
    """Say that the run whose weights are taken has seen other grey levels; nothing where it is gone, or is no run."""
    facts = {} if init is None else facts_at(init)
    return training_data.unlike(facts, shown(str(init)), loader, job.config.loader.normalise) if facts else []


def _trained(known: Facts, last: Facts | None, loader: Loader) -> list[Facts]:
    """Return what the run is trained on, with what it was trained on before its data changed."""
    now = training_data.told(loader)
    if last is None or not known:
        return now
    same = known["digest"] == loader.state_dict()["manifest_digest"]
    older = [] if same else [{"name": "", "digest": known["digest"], "keys": []}]
    return training_data.with_former(known.get("trained", older), now)


def _kept(config: dict[str, Any], job: Job) -> dict[str, Any]:
    """Return the run's length as it was, where the command says nothing of it."""
    return {name: config[name] for name in ("run.steps", "run.epochs") if name in config and name not in _length(job)}
