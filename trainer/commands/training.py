"""One run, or one for each of several seeds: its folder, its loader, its model, the loop, and the page about it."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

import numpy as np
import torch

from shardkit import Loader, MultiView, from_text
from shardkit.commands import stopping
from shardkit.commands.normalising import normalise_of
from shardkit.errors import ArgumentError
from shardkit.labels.split_names import Split
from shardkit.terminal.output import Terminal
from trainer import parallel
from trainer.augment import check_levels, levels
from trainer.commands import no_validation
from trainer.commands.chosen_model import backbone_note
from trainer.commands.going_on import objective_of
from trainer.commands.no_validation import Lacking
from trainer.commands.run_model import check_record, with_model_of, with_run
from trainer.config import Config
from trainer.loop import Loop
from trainer.models.flops import peak_tflops
from trainer.objectives.base import Objective
from trainer.objectives.views import ViewObjective
from trainer.parallel import World
from trainer.recipes.registry import RECIPES
from trainer.report import run_page
from trainer.runs import best, folder, mirror, places, writers
from trainer.runs.log import Log
from trainer.runs.start import Job, Start, one_length, start
from trainer.selection import LOSS
from trainer.validation import Validation

SEED: Final = "seed_"
"""Of a seed's number in the name of its folder."""


def train(job: Job, console: Terminal) -> int:
    """Train, or go on where the run in its folder stopped, seed by seed; return the exit code."""
    world = parallel.start()
    try:
        job = one_length(replace(job, out=places.begun(job.out, world)))
        jobs = [*by_seed(job)]
        places.share(job.init, not all((each.out / folder.FACTS).exists() for each in jobs))
        jobs = [_with_model(each) for each in jobs]
        with _asked_to_stop() as asked:
            said = console if world.is_main else None
            if job.recipe in RECIPES and (note := backbone_note(RECIPES[job.recipe].config, jobs[0].config, job.typed)):
                _say(said, note)
            done = all(_train(each, world, said, asked) for each in jobs)
    finally:
        parallel.stop()
    if world.is_main and not done:
        console.print(stopping.SAID, highlight=False)
    return 0 if done else stopping.code(asked[0] if asked else signal.SIGTERM)  # else another process was asked


def _with_model(job: Job) -> Job:
    """Return the job with the model of its run, or at first of the one it begins with, where it names no other."""
    if job.init is None or "model" in job.typed:
        return job
    if job.command != "pretrain" and (begun := folder.found(job.out)) is not None:
        return replace(job, config=with_model_of(job.config, begun, job.init, job.typed))
    config = job.config if job.command == "pretrain" else with_run(job.config, job.init, job.typed)
    check_record(config.model, job.init, job.typed)
    return replace(job, config=config)


def by_seed(job: Job) -> Iterator[Job]:
    """Give the job itself, or one for each of its seeds, in a folder of its own.

    Raises
    ------
    ArgumentError
        Where seeds and folder do not go together.
    """
    run, runs_there = job.config.run, sorted(job.out.glob(f"{SEED}*/{folder.FACTS}"))
    if not run.seeds:
        if runs_there:
            raise ArgumentError(f"{job.out} holds runs of several seeds: name them by --run.seeds, or another --out")
        yield job
        return
    if (job.out / folder.FACTS).exists():
        raise ArgumentError(f"{job.out} holds a run, and cannot hold runs of --run.seeds: name another --out")
    if "run.seed" in job.typed and not any(name.startswith("run.seeds") for name in job.typed):
        raise ArgumentError(
            f"the recipe {job.recipe} has several seeds, --run.seeds {' '.join(map(str, run.seeds))}: for one, give"
            f" --run.seeds {run.seed} in place of --run.seed"
        )
    if len(set(run.seeds)) < len(run.seeds) or "run.seed" in job.typed:
        raise ArgumentError("--run.seeds takes each seed once, and goes without --run.seed")
    for seed in run.seeds:
        config = replace(job.config, run=replace(run, seed=seed, seeds=()))
        yield replace(job, config=config, out=job.out / f"{SEED}{seed}")


def _train(job: Job, world: World, console: Terminal | None, asked: list[int]) -> bool:
    """Train, and return whether the last step was reached."""
    writers.check(job.config.log.wandb)
    torch.manual_seed(job.config.run.seed)
    loader = open_loader(job.config, job.data, world.device, world.rank, world.size, augmented=True)
    objective = objective_of(job, loader, world).build(job.config.model, loader)
    _check_views(objective, loader)
    objective.model.check_batching(loader.batching)
    with mirror.held(job.out, world, partial(_say, console)):
        begun = start(job, loader, objective, world)
        for note in (*begun.facts["notes"], *begun.notes):
            _say(console, note)
        done = bool(begun.finished) or _go(job, begun, loader, objective, world, console, asked)
        if console is not None:
            if begun.finished:
                _say(console, begun.finished)
            _say(console, f"report: {run_page.write(job.out)}")
    return done


def _check_views(objective: Objective, loader: Loader) -> None:
    """Refuse several views of a sample for an objective that would not know what to do with them."""
    if isinstance(loader.batching, MultiView) and not isinstance(objective, ViewObjective):
        raise ArgumentError(
            "this objective is of single images, and --loader.batching multiview shows several views of each: use"
            f" resized:side={loader.batching.augmentation.side} with its batch_size and crop"
        )


def _go(
    job: Job,
    begun: Start,
    loader: Loader,
    objective: Objective,
    world: World,
    console: Terminal | None,
    asked: list[int],
) -> bool:
    config, facts = job.config, begun.facts
    if facts["baseline"] is None and world.is_main and config.log.baseline:
        facts["baseline"] = objective.baseline(
            lambda: open_loader(config, job.data, world.device, 0, 1, augmented=True), config.log.baseline
        )
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
    log = Log(
        folder=job.out,
        bins=loader.bins()[0],
        steps=begun.steps,
        peak=peak_tflops(name, config.log.peak_tflops),
        devices=world.size,
        console=console,
        tensorboard=config.log.tensorboard,
        wandb=config.log.wandb,
    )
    validation = _validation(job, loader, objective, world, console)
    loop = Loop(
        objective, loader, config, job.out, world, log, begun.steps, lambda: bool(asked), begun.anew, validation
    )
    if console is not None:
        folder.write(job.out, facts)
        _introduce(facts, begun.steps, loader, console)
    try:
        done = loop.go()
    finally:
        log.close()
    if console is not None and config.select.metric:
        _tell_choice(job, loop, facts, console)
    return done


def _tell_choice(job: Job, loop: Loop, facts: dict[str, Any], console: Terminal) -> None:
    """Say, and write to `run.json`, which checkpoint is the best one, and whether the run ended early."""
    selection = loop.selection
    if selection.ended:
        steps, since = loop.progress.step, selection.chosen.since
        _say(
            console, f"stopped early at step {steps:,}: {since} validations without a better {selection.config.metric}"
        )
    where = f", kept in {job.out / best.NAME}" if selection.chosen.step is not None else ""
    _say(console, f"{selection.chosen.told}{where}")
    folder.write(job.out, {**facts, "selection": {**selection.facts(), "ended": selection.ended}})


def _validation(
    job: Job, loader: Loader, objective: Objective, world: World, console: Terminal | None
) -> Validation | None:
    """Return the validation on a split, where it is wanted, not trained on and not empty."""
    config, word = job.config, job.config.select.split
    split = str(Split.read(config.loader.split).called(word))
    if lacking := no_validation.beforehand(config, job.data, loader, split):
        _told(lacking, config, console)
        return None
    batching = str(replace(from_text(config.loader.batching), crop=None, flip=0.0, remainder="fill"))
    plain = replace(config, loader=replace(config.loader, batching=batching, split=split))
    try:
        held = open_loader(plain, job.data, world.device, world.rank, world.size, weighted=False)
    except ArgumentError as error:
        raise ArgumentError(f"the {split} split cannot be measured, {error}; --val.every 0 leaves it out") from None
    parts = zip(held.members, held.plan.samples.of_members(), strict=True)
    if absent := [name for name, part in parts if part.start == part.end]:
        _say(console, f"validation: no image of {', '.join(absent)} is in the split {split}")
    rows = held.plan.samples.row(np.arange(len(held.plan.samples)))
    if not objective.labelled(rows):
        _told(no_validation.unlabelled(split), config, console)
        return None
    names = None if objective.judged is None else (LOSS, *objective.judged)
    if names is not None and config.select.metric not in ("", *names):
        raise ArgumentError(f"--select.metric {config.select.metric} is not measured: choose one of {', '.join(names)}")
    if config.select.metric in (unmeasurable := objective.unmeasurable(rows)):
        _told(no_validation.unmeasured(objective, split, unmeasurable), config, console)
    return Validation(objective, held, world, word)


def _told(lacking: Lacking, config: Config, console: Terminal | None) -> None:
    """Say why there is no validation; refuse it where a checkpoint has to be chosen by one."""
    lacking.refuse(config.select.metric)
    if config.val.every:
        _say(console, f"no validation: {lacking.why}")


def open_loader(
    config: Config,
    data: str,
    device: torch.device,
    rank: int,
    size: int,
    augmented: bool = False,
    weighted: bool = True,
) -> Loader:
    """Open the run's loader.

    Parameters
    ----------
    config
        Of the run.
    data
        Folder or url of the dataset.
    device
        Where batches go.
    rank, size
        Number of this process, and of all.
    augmented
        Whether images are changed as the run trains on them; everything that measures a model sees them as they are.
    weighted
        Whether a mixture shows images as often as its weights say; else each once, as a mean over images needs it.
    """
    c = config.loader
    normalise = normalise_of(c.normalise, f"--loader.normalise {c.normalise}")
    loader = Loader(
        data,
        batching=from_text(c.batching),
        seed=config.run.seed,
        split=None if c.split == "all" else c.split,
        weighted=weighted,
        window=c.window,
        rank=rank,
        world_size=size,
        device=device,
        normalise=normalise,
        augment=config.augment.build(levels(normalise)) if augmented else None,
        cache=c.cache,
        cache_bytes=None if c.cache is None else int(c.cache_gib * 2**30),
        threads=c.threads,
        decoder=c.decoder,
        prefetch=c.prefetch,
        max_bad=c.max_bad,
        attempts=c.attempts,
        deadline=c.deadline,
    )
    if augmented and config.augment.rand:
        check_levels(normalise, loader.normalised)
    return loader


def _say(console: Terminal | None, sentence: str) -> None:
    if console is not None:
        console.plain(sentence)


def _introduce(facts: dict[str, Any], steps: int, loader: Loader, console: Terminal) -> None:
    micro = loader.batching.per_step
    _say(
        console,
        f"{facts['recipe']}: {facts['parameters'] / 1e6:,.1f} M parameters on {facts['world_size']} x"
        f" {facts['device']}, {steps:,} steps of {micro} micro-batches ({loader.batching})",
    )
    for name, error in (facts["baseline"] or {}).items():
        _say(console, f"the {name.replace('_', ' ')}'s error: {error:.5f}")


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collect signals that ask for an end, as they come; a second Ctrl-C ends at once."""
    asked: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
