"""Predictions of runs at sites, made where they are missing; all processes of a command work on them together."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shardkit import Dataset, Loader, from_text
from shardkit.errors import ArgumentError, ShardkitError
from shardkit.labels.split_names import Split
from trainer import parallel
from trainer.commands.training import open_loader
from trainer.evaluate import asking, predictions
from trainer.evaluate.predict import Question, predict
from trainer.evaluate.predictions import PredictionsAbout
from trainer.evaluate.results import FILE, VALIDATION
from trainer.parallel import World
from trainer.tasks import trained
from trainer.tasks.trained import Trained

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be predicted.

    Attributes
    ----------
    runs : tuple of Path
        Folders of runs, or of seeds of one.
    data : tuple of str
        Datasets: the sites.
    labels : str
        Name of the labels table; empty for that of the run's training.
    splits : tuple of str
        One for all sites or one for each; none for the test split that fits the run.
    checkpoint : str
        best, last, or a checkpoint's folder.
    validation : bool
        Whether the val split of the run's training is wanted, too, for a temperature.
    out : Path
        Folder that predictions go to.
    """

    runs: tuple[Path, ...]
    data: tuple[str, ...]
    labels: str
    splits: tuple[str, ...]
    checkpoint: str
    validation: bool
    out: Path


def collect(wanted: Wanted, say: Say) -> bool:
    """Predict what is missing; return whether this is the process that goes on to the page.

    Raises
    ------
    ShardkitError
        A run, a dataset or its labels cannot be used.
    """
    world = parallel.start()
    try:
        names = asking.short_names([str(run.resolve()) for run in wanted.runs])
        for run in wanted.runs:
            for member in trained.members(run):
                of = trained.opened(member, wanted.checkpoint)
                _of_run(wanted, of, names[str(run.resolve())], None if member == run else of.seed, world, say)
    finally:
        parallel.stop()
    return world.is_main


def _of_run(wanted: Wanted, of: Trained, name: str, seed: int | None, world: World, say: Say) -> None:
    folder = wanted.out / name / ("" if seed is None else of.run.name)
    classes = of.classes
    sites = asking.short_names(wanted.data)
    for at, data in enumerate(wanted.data):
        site, labels = Dataset(data), wanted.labels or of.task.labels
        split = _split(wanted.splits, at) or asking.chosen_split(of.facts, site, labels)
        about = asking.about(of, (name, seed), site, sites[data], split, labels, classes)
        _of_split(of, about, data, folder / sites[data] / FILE, world, say)
    if wanted.validation:
        held = next((one for one in wanted.data if Dataset(one).description.digest == of.facts["digest"]), None)
        if held is None:
            raise ArgumentError(
                f"--temperature is fitted on the val split that {of.run} had: name its dataset in --data"
            )
        split = str(Split.read(of.config.loader.split).called("val"))
        about = asking.about(of, (name, seed), Dataset(held), sites[held], split, of.task.labels, classes)
        _of_split(of, about, held, folder / VALIDATION, world, say)


def _split(splits: tuple[str, ...], at: int) -> str:
    return splits[at if len(splits) > 1 else 0] if splits else ""


def _of_split(of: Trained, about: PredictionsAbout, data: str, path: Path, world: World, say: Say) -> None:
    """Predict a split, unless it is there for the same weights, dataset and labels."""
    what = f"{about.run}{'' if about.seed is None else f', seed {about.seed}'} at {about.site}, split {about.split}"
    about = replace(about, checkpoint=parallel.from_first(lambda: _digest(of.path), world))
    if parallel.from_first(lambda: _is_there(path, about), world):
        say(f"{what}: predicted already")
        return
    loader = _open(of, data, about.split, world)
    targets, notes = asking.asked_targets(of, loader, about.labels, about.classes)
    question = Question(replace(about, notes=(*about.notes, *notes)), loader, targets)
    network = of.classifier(len(about.classes)).to(world.device)
    found = predict(question, network, _autocast(of, world))
    parallel.from_first(lambda: _write(found, path), world)
    if found is not None:
        say(f"{what}: {len(found):,} images")


def _write(found: predictions.Predictions | None, path: Path) -> None:
    assert found is not None  # on the first process, which is the one that writes
    predictions.write(found, path)


def _open(of: Trained, data: str, split: str, world: World) -> Loader:
    """Open a split as the run saw images, without augmentation, every image once on any number of processes."""
    batching = replace(from_text(of.config.loader.batching), crop=None, flip=0.0, remainder="fill", per_step=world.size)
    options = replace(of.config.loader, batching=str(batching), split=split, cache=None)
    loader = open_loader(replace(of.config, loader=options), data, world.device, world.rank, world.size)
    if len(loader.members) > 1:
        raise ArgumentError(f"{data} is a mixture: name its datasets one by one, they are the sites of the page")
    return loader


def _autocast(of: Trained, world: World) -> Callable[[], AbstractContextManager[Any]]:
    if of.config.run.precision != "bf16":
        return nullcontext
    return lambda: torch.autocast(world.device.type, torch.bfloat16)


def _is_there(path: Path, about: PredictionsAbout) -> bool:
    """Return whether predictions are there and of the same; what they note of images is of no account."""
    try:
        return replace(predictions.read(path).about, notes=()) == replace(about, notes=())
    except ShardkitError:
        return False


def _digest(checkpoint: Path) -> str:
    """Return a SHA-256 of a checkpoint's files, in hex."""
    sha = hashlib.sha256()
    for path in sorted(checkpoint.iterdir()):
        sha.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()
