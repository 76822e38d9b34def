"""Predictions of runs at sites, made where they are missing; all processes of a command work on them together."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shardkit import Dataset, Loader, from_text
from shardkit.errors import ArgumentError, ShardkitError
from shardkit.storage import shown
from trainer import parallel
from trainer.commands.training import open_loader
from trainer.evaluate import asking, joining, predictions
from trainer.evaluate.names import short_names
from trainer.evaluate.predict import Question, predict
from trainer.evaluate.predictions import UNREAD, PredictionsAbout
from trainer.evaluate.results import FILE, VALIDATION
from trainer.parallel import World
from trainer.runs import places
from trainer.runs.training_data import normalise_at, trained_at
from trainer.tasks import trained
from trainer.tasks.facts import FACTS
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
    labels : tuple of str
        Names of labels tables: one for all sites or one for each; none for that of the run's training.
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
    labels: tuple[str, ...]
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
        sets = {one: Dataset(one) for one in wanted.data}
        asked = [each for run in _runs(wanted) for each in _of_run(wanted, run, sets, world)]
        files = [(each.path, each.about) for each in asked if each.path.name == FILE]
        parallel.from_first(lambda: joining.check(wanted.out, files), world)
        for each in asked:
            _predicted(each, world, say)
    finally:
        parallel.stop()
    return world.is_main


@dataclass(frozen=True, slots=True)
class _Run:
    """A run, or one seed of it: what it is called, and a digest of where it lies."""

    of: Trained
    name: str
    seed: int | None
    origin: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """A run that is asked about a split of a dataset, and the file for what it says."""

    of: Trained
    about: PredictionsAbout
    data: str
    path: Path


def _runs(wanted: Wanted) -> Iterator[_Run]:
    names = short_names([_named(run) for run in wanted.runs])
    for run in wanted.runs:
        origin = hashlib.sha256(_named(run).encode()).hexdigest()[:32]
        for member in trained.members(run):
            of = trained.opened(member, wanted.checkpoint)
            yield _Run(of, names[_named(run)], None if member == run else of.seed, origin)


def _named(run: Path) -> str:
    """Return where a run lies: a url, where its folder is a copy."""
    return places.named(str(run.resolve()))


def _of_run(wanted: Wanted, run: _Run, sets: Mapping[str, Dataset], world: World) -> Iterator[_Asked]:
    of, sites = run.of, short_names(wanted.data)
    folder = wanted.out / run.name / ("" if run.seed is None else of.run.name)
    checkpoint = parallel.from_first(lambda: _digest(of.path), world)

    def asked(data: str, split: str, labels: str, file: str) -> _Asked:
        about = asking.about(of, (run.name, run.seed), sets[data], sites[data], split, labels, of.classes)
        how = normalise_at(of.facts, sets[data])
        about = replace(about, checkpoint=checkpoint, origin=run.origin, normalise=how)
        return _Asked(of, about, data, folder / sites[data] / file)

    for at, (data, site) in enumerate(sets.items()):
        labels = _labels(_own(wanted.labels, at) or of.task.labels, site)
        yield asked(data, _own(wanted.splits, at) or asking.chosen_split(of.facts, site, labels), labels, FILE)
    if wanted.validation and of.task.kind != "regression":
        held = {data: split for data, site in sets.items() if (split := asking.validation_split(of, site))}
        if not held:
            raise ArgumentError(_no_validation(of, [data for data, site in sets.items() if trained_at(of.facts, site)]))
        for data, split in held.items():
            yield asked(data, split, of.task.labels, VALIDATION)


def _no_validation(of: Trained, here: list[str]) -> str:
    """Say why nothing is there to fit a temperature on; `here`: the datasets that the run was trained on."""
    if here:
        return f"{shown(here[0])} has no image with labels in the val split of {of.run}: leave --temperature out"
    names = [one["name"] for one in of.facts.get("trained", ()) if one["name"]]
    one_of = f", or one of its mixture's: {', '.join(names)}" if names else ""
    return f"--temperature is fitted on the val split that {of.run} had: name its dataset in --data{one_of}"


def _labels(name: str, site: Dataset) -> str:
    """Return the name of a site's labels table.

    Raises
    ------
    ArgumentError
        The site has no such table, as sites may call theirs differently.
    """
    if name != FACTS:
        try:
            site.label_table(name)
        except ArgumentError as error:
            raise ArgumentError(f"{error}; --labels takes one name for each dataset, too, as --data has them") from None
    return name


def _own(names: tuple[str, ...], at: int) -> str:
    """Return the name that a site has, of one for all or one for each; empty where there are none."""
    return names[at if len(names) > 1 else 0] if names else ""


def _predicted(asked: _Asked, world: World, say: Say) -> None:
    """Predict a split, unless it is there for the same weights, dataset and labels."""
    of, about, path = asked.of, asked.about, asked.path
    what = f"{about.run}{'' if about.seed is None else f', seed {about.seed}'} at {about.site}, split {about.split}"
    if parallel.from_first(lambda: _is_there(path, about, of.config.loader.normalise), world):
        say(f"{what}: predicted already")
        return
    loader = _open(of, asked.data, about, world)
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


def _open(of: Trained, data: str, about: PredictionsAbout, world: World) -> Loader:
    """Open a split as the run saw images, without augmentation, every image once on any number of processes."""
    batching, how = replace(from_text(of.config.loader.batching).plain(), per_step=world.size), about.normalise
    options = replace(of.config.loader, batching=str(batching), split=about.split, cache=None, normalise=how)
    options = replace(options, decoder="auto")  # this dataset may have another codec than the run's
    loader = open_loader(replace(of.config, loader=options), data, world.device, world.rank, world.size)
    if len(loader.members) > 1:
        raise ArgumentError(f"{data} is a mixture: name its datasets one by one, they are the sites of the page")
    return loader


def _autocast(of: Trained, world: World) -> Callable[[], AbstractContextManager[Any]]:
    if of.config.run.precision != "bf16":
        return nullcontext
    return lambda: torch.autocast(world.device.type, torch.bfloat16)


def _is_there(path: Path, about: PredictionsAbout, normalise: str = "") -> bool:
    """Return whether predictions are there and of the same, of all images: those that were not read may be sound now.

    Other notes, and a run's folder that moved, are of no account. Older files do not say that grey levels are those of
    the run's `normalise`.
    """
    try:
        there = predictions.read(path).about
    except ShardkitError:
        return False
    there = replace(there, normalise=there.normalise or normalise)
    return _bare(there) == _bare(about) and not any(UNREAD in note for note in there.notes)


def _bare(about: PredictionsAbout) -> PredictionsAbout:
    return replace(about, notes=(), origin="")


def _digest(checkpoint: Path) -> str:
    """Return a SHA-256 of a checkpoint's files, in hex."""
    sha = hashlib.sha256()
    for path in sorted(checkpoint.iterdir()):
        sha.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                sha.update(block)
    return sha.hexdigest()
