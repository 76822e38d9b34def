"""One pre-training run: its folder, its loader, its model, the loop, and the page about it."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from shardkit import Loader, from_text
from shardkit.errors import ArgumentError
from shardkit.terminal import Terminal
from trainer import parallel, report
from trainer.baseline import mean_image_error
from trainer.config import Config, LoaderConfig, flat
from trainer.errors import TrainingError
from trainer.files import whole
from trainer.flops import peak_tflops
from trainer.hiera import HieraConfig
from trainer.initial import load_initial
from trainer.log import Log
from trainer.loop import Loop
from trainer.parallel import World
from trainer.task import Pretrain

_FREE = ("save.", "log.", "run.compile", "run.parallel", "run.max_skipped")
_FREE_LOADER = ("cache", "cache_gib", "threads", "prefetch", "max_bad")
STOPPED = 143  # as a shell says of SIGTERM


def pretrain(recipe: str, config: Config, data: str, out: Path, init: str | None, console: Terminal) -> int:
    """Train, or go on where the run in `out` stopped; returns the exit code."""
    world = parallel.start()
    try:
        with _asked_to_stop() as asked:
            done = _train(recipe, config, data, out, init, world, console if world.first else None, asked)
    finally:
        parallel.stop()
    if world.first and not done:
        console.print("stopped; run the same command again to go on", highlight=False)
    return 0 if done else STOPPED


def _train(
    recipe: str,
    config: Config,
    data: str,
    out: Path,
    init: str | None,
    world: World,
    console: Terminal | None,
    asked: list[int],
) -> bool:
    torch.manual_seed(config.run.seed)
    loader = open_loader(config, data, world.device, world.rank, world.size)
    task = Pretrain(config.model)
    _check_patch(task, loader)
    steps = config.run.steps or max(1, round(config.run.epochs * len(loader.plan)))
    facts = _claim(recipe, config, data, out, init, loader, task, world)
    if console is not None:
        _introduce(facts, steps, loader, console)
    if init is not None:
        taken = load_initial(task.model, init)
        if console is not None:
            console.print(taken, highlight=False, soft_wrap=True)
    name = torch.cuda.get_device_name() if world.device.type == "cuda" else "cpu"
    log = Log(
        folder=out,
        bins=loader.bins()[0],
        steps=steps,
        peak=peak_tflops(name, config.log.peak_tflops),
        devices=world.size,
        console=console,
        tensorboard=config.log.tensorboard,
    )
    try:
        loop = Loop(task, loader, config, out, world, log, steps, lambda: bool(asked))
        done = loop.go()
    finally:
        log.close()
    if console is not None:
        console.print(f"report: {report.write(out)}", highlight=False, soft_wrap=True)
    return done


def open_loader(config: Config, data: str, device: torch.device, rank: int, size: int) -> Loader:
    """The run's loader."""
    c = config.loader
    return Loader(
        data,
        batching=from_text(c.batching),
        seed=config.run.seed,
        split=None if c.split == "all" else c.split,
        rank=rank,
        world_size=size,
        device=device,
        normalise=_normalise(c),
        cache=c.cache,
        cache_bytes=None if c.cache is None else int(c.cache_gib * 2**30),
        threads=c.threads,
        prefetch=c.prefetch,
        max_bad=c.max_bad,
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


def _check_patch(task: Pretrain, loader: Loader) -> None:
    """Raises ArgumentError where tokens of the loader are not those of the model."""
    batching = loader.batching
    if isinstance(task.config, HieraConfig) and getattr(batching, "side", None) != task.config.side:
        raise ArgumentError(
            f"--model.arch {task.config.arch} takes images of {task.config.side} pixels a side:"
            f" use --loader.batching resized:side={task.config.side}"
        )
    if batching.patch != task.patch:
        raise ArgumentError(
            f"the model's patches are {task.patch} pixels and those of --loader.batching {batching.patch}:"
            " they must be the same"
        )


def _claim(
    recipe: str, config: Config, data: str, out: Path, init: str | None, loader: Loader, task: Pretrain, world: World
) -> dict[str, Any]:
    """Write down what the run is, or check that the folder holds the same one. Raises TrainingError."""
    path = out / "run.json"
    told = parallel.agreed(path.read_text() if path.exists() else None)
    if told is not None:
        before: dict[str, Any] = json.loads(told)
        _compare(before["config"], flat(config), out)
        return before
    baseline = None
    if world.first and config.log.baseline and not config.model.norm_pix:
        alone = open_loader(config, data, world.device, 0, 1)
        baseline = {"mean_image": mean_image_error(alone, task.patch, config.log.baseline)}
    facts = {
        "recipe": recipe,
        "config": flat(config),
        "init": init,
        "baseline": baseline,
        "data": data,
        "digest": loader.state_dict()["manifest_digest"],
        "parameters": sum(p.numel() for p in task.model.parameters()),
        "device": torch.cuda.get_device_name() if world.device.type == "cuda" else "CPU",
        "world_size": world.size,
    }
    if world.first:
        out.mkdir(parents=True, exist_ok=True)
        with whole(path) as fresh:
            fresh.write_text(json.dumps(facts, indent=1))
    return facts


def _compare(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    free = (*_FREE, *(f"loader.{name}" for name in _FREE_LOADER))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and not name.startswith(free):
            raise TrainingError(
                f"{out} holds a run with --{name} {before.get(name)}, not {now.get(name)}: go on with the same, name"
                f" another --out, or begin from its weights with --init {out}"
            )


def _introduce(facts: dict[str, Any], steps: int, loader: Loader, console: Terminal) -> None:
    micro = loader.batching.per_step
    console.print(
        f"{facts['recipe']}: {facts['parameters'] / 1e6:,.1f} M parameters on {facts['world_size']} x"
        f" {facts['device']}, {steps:,} steps of {micro} micro-batches ({loader.batching})",
        highlight=False,
        soft_wrap=True,
    )
    if facts["baseline"]:
        console.print(f"the mean image's error: {facts['baseline']['mean_image']:.5f}", highlight=False)


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Signals that ask for an end, as they come; a second Ctrl-C ends at once."""
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
