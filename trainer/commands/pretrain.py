"""One run: its folder, its loader, its model, the loop, and the page about it."""

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from shardkit import Loader, from_text
from shardkit.commands import stopping
from shardkit.errors import ArgumentError
from shardkit.storage import shown
from shardkit.terminal.output import Terminal
from trainer import parallel
from trainer.augment import levels
from trainer.config import Config, LoaderConfig
from trainer.loop import Loop
from trainer.models.flops import peak_tflops
from trainer.objectives.base import Objective
from trainer.parallel import World
from trainer.report import run_page
from trainer.runs import folder, writers
from trainer.runs.log import Log
from trainer.runs.start import Job, Start, start
from trainer.validation import Validation


def pretrain(job: Job, console: Terminal) -> int:
    """Train, or go on where the run in its folder stopped; return the exit code."""
    world = parallel.start()
    try:
        with _asked_to_stop() as asked:
            done = _train(job, world, console if world.is_main else None, asked)
    finally:
        parallel.stop()
    if world.is_main and not done:
        console.print(stopping.SAID, highlight=False)
    return 0 if done else stopping.code(asked[0] if asked else signal.SIGTERM)  # else another process was asked


def _train(job: Job, world: World, console: Terminal | None, asked: list[int]) -> bool:
    """Train, and return whether the last step was reached."""
    writers.check(job.config.log.wandb)
    torch.manual_seed(job.config.run.seed)
    loader = open_loader(job.config, job.data, world.device, world.rank, world.size, augmented=True)
    objective = job.config.objective.build(job.config.model, loader)
    objective.model.check_batching(loader.batching)
    with folder.held(job.out, world):
        begun = start(job, loader, objective, world)
        for note in begun.notes:
            _say(console, note)
        done = begun.done == begun.steps or _go(job, begun, loader, objective, world, console, asked)
        if console is not None:
            if begun.done == begun.steps:
                _say(console, f"{job.out} has all its {begun.steps:,} steps: a greater --run.steps trains on")
            _say(console, f"report: {run_page.write(job.out)}")
    return done


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
        return loop.go()
    finally:
        log.close()


def _validation(
    job: Job, loader: Loader, objective: Objective, world: World, console: Terminal | None
) -> Validation | None:
    """Return the validation on the val split, where it is wanted, not trained on and not empty."""
    config = job.config
    if not config.val.every:
        return None
    split = re.sub("(^|,)([a-z0-9_-]+:)?[^,]*", r"\1\2val", config.loader.split)  # of the same labels tables
    if config.loader.split in ("all", split):
        _say(console, f"no validation: --loader.split {config.loader.split} trains on the val split")
        return None
    if not any(map(loader.splits.get, split.split(","))) and (split == "val" or len(loader.members) == 1):
        _say(
            console,
            f"no validation: {shown(job.data)} has no image in the {split} split, so that over-fitting will not show",
        )
        return None
    batching = str(replace(from_text(config.loader.batching), crop=None, flip=0.0, remainder="fill"))
    plain = replace(config, loader=replace(config.loader, batching=batching, split=split))
    try:
        held = open_loader(plain, job.data, world.device, world.rank, world.size)
    except ArgumentError as error:
        raise ArgumentError(f"the {split} split cannot be measured, {error}; --val.every 0 leaves it out") from None
    parts = zip(held.members, held.plan.samples.of_members(), strict=True)
    if absent := [name for name, part in parts if part.start == part.end]:
        _say(console, f"validation: no image of {', '.join(absent)} is in the split {split}")
    return Validation(objective, held, world)


def open_loader(
    config: Config, data: str, device: torch.device, rank: int, size: int, augmented: bool = False
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
    """
    c = config.loader
    normalise = _normalise(c)
    return Loader(
        data,
        batching=from_text(c.batching),
        seed=config.run.seed,
        split=None if c.split == "all" else c.split,
        window=c.window,
        rank=rank,
        world_size=size,
        device=device,
        normalise=normalise,
        augment=config.augment.build(levels(normalise)) if augmented else None,
        cache=c.cache,
        cache_bytes=None if c.cache is None else int(c.cache_gib * 2**30),
        threads=c.threads,
        prefetch=c.prefetch,
        max_bad=c.max_bad,
        attempts=c.attempts,
        deadline=c.deadline,
    )


def _normalise(config: LoaderConfig) -> Any:
    mean, comma, deviation = config.normalise.partition(",")
    if not comma:
        return config.normalise
    try:
        return float(mean), float(deviation)
    except ValueError:
        raise ArgumentError(
            f"--loader.normalise {config.normalise} must be two numbers, mean,deviation, or a name"
        ) from None


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
