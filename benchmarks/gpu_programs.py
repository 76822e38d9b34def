"""What `benchmarks gpu-utilization` measures, each in a process of its own, with the trainer's own loop and loader.

On a GPU these have not been run to their end by their authors, who had one for minutes.
"""

import gc
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine
from benchmarks.gpu_sampler import Sampler, watching
from benchmarks.results import Record
from shardkit import Loader, PackedBatch
from trainer import parallel
from trainer.commands.training import open_loader
from trainer.config import Config
from trainer.loop import Loop
from trainer.models.base import Batch
from trainer.models.flops import peak_tflops
from trainer.models.sequences import grid_of
from trainer.parallel import World
from trainer.recipes.registry import RECIPES
from trainer.runs.log import Log, Step

MIB = 1 << 20
SUMS = {name: name for name in ("images", "tokens", "flops", "padded_flops")} | {"slots": "padded_tokens"}
"""Ours -> the name in a step of the trainer's log."""
NEVER = 1 << 62  # steps
_WARM = 2


@dataclass(frozen=True)
class Case:
    """A recipe of the trainer with a batching, named as it is shown, on a dataset.

    Attributes
    ----------
    recipe, name
        Names of the recipe, and of the case.
    batching
        As text.
    data, split
        Of the dataset; the split may be `all`.
    device
        cuda or cpu.
    seed
        Of the run.
    epochs
        How many are measured, all of them alike.
    decoder
        Of the loader.
    """

    recipe: str
    name: str
    batching: str
    data: str
    split: str
    device: str
    seed: int
    epochs: int
    decoder: Any = "auto"

    def config(self) -> Config:
        """Return the recipe's config with this batching, and without what writes or draws on the way."""
        of = RECIPES[self.recipe].config
        loader = replace(of.loader, batching=self.batching, split=self.split, decoder=self.decoder)
        return quiet(replace(of, loader=loader, run=replace(of.run, seed=self.seed)))


def quiet(config: Config) -> Config:
    """Return a config without what writes or draws on the way."""
    log = replace(config.log, every=NEVER, pictures=0, baseline=0, tensorboard=False, profile=None)
    return replace(config, save=replace(config.save, every=NEVER), log=log)


def start(device: str) -> World:
    """Return this process alone: on the first GPU, as the trainer does, or on the CPU.

    There a core is left to the loader: torch's threads wait for each other at every operation, and on a core that
    another thread or program takes they were seen to wait ten times as long as they worked.
    """
    if device == "cuda":
        return parallel.start()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) - 1))
    return World(0, 1, torch.device("cpu"))


def name_of(world: World) -> str:
    """Return the name of a process's device."""
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "CPU"


# --- batches, again and again


class Again:
    """What `Loop` asks of a loader, but every epoch is the first one: equal work for all that is compared.

    Parameters
    ----------
    loader
        Whose first epoch it is.
    held
        Batches to hand out instead of loading any.
    warm
        Number of steps after which the first epoch ends already.
    """

    def __init__(self, loader: Loader, held: list[Batch] | None = None, warm: int = NEVER) -> None:
        self.batching, self.bins, self.state_dict = loader.batching, loader.bins, loader.state_dict
        self.plan = loader.plan
        self._first = {**loader.state_dict(), "epoch": 0, "step": 0}
        self._loader, self._held, self._limit = loader, held, warm

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of the epoch."""
        limit, self._limit, steps = self._limit, NEVER, 0
        if self._held is None:
            self._loader.load_state_dict(self._first)
        for batch in self._loader if self._held is None else self._held:
            yield batch
            steps += batch.position.last
            if steps == limit:
                return


def held(loader: Loader) -> list[Batch]:
    """Load an epoch of batches, in little memory: those of equal shapes all have the pixels of the first."""
    pixels: dict[torch.Size, Tensor] = {}
    kept: list[Batch] = []
    for batch in Again(loader):
        if isinstance(batch, PackedBatch):
            kept.append(replace(batch, patches=pixels.setdefault(batch.patches.shape, batch.patches)))
        else:
            kept.append(replace(batch, images=pixels.setdefault(batch.images.shape, batch.images)))
    return kept


def described(batches: list[Batch], patch: int) -> Record:
    """Return counts of batches: images, tokens and Mpx of the images, tokens with padding, steps, manifest rows."""
    sizes = torch.cat([b.hw if isinstance(b, PackedBatch) else b.sizes for b in batches]).long()
    rows = torch.cat([b.rows for b in batches])
    slots = [b.patches.shape[0] if isinstance(b, PackedBatch) else b.images.numel() // patch**2 for b in batches]
    return {
        "rows": sorted(rows[rows >= 0].tolist()),
        "images": int((rows >= 0).sum()),
        "mpx": float(sizes.prod(1).sum()) / 1e6,
        "tokens": int(grid_of(sizes, patch).prod(1).sum()),
        "slots": sum(slots),
        "micro_batches": len(batches),
        "steps": sum(b.position.last for b in batches),
    }


def _until_known(batches: list[Batch]) -> int:
    """Count the steps until every shape was met: a compiled model is to meet them all before time counts."""
    met, steps, last = set[torch.Size](), 1, 1
    for batch in batches:
        shape = (batch.patches if isinstance(batch, PackedBatch) else batch.images).shape
        if shape not in met:
            met.add(shape)
            last = steps
        steps += batch.position.last
    return last


# --- the three measurements


class Unsaved(Loop):
    """The trainer's loop without the checkpoint that ends a run: a gigabyte, of which nothing is measured."""

    def _save(self) -> None:
        pass


@dataclass
class Timed(Log):
    """The trainer's log, which keeps every step and when it ended, instead of writing lines."""

    done: list[Step] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def add(self, step: Step) -> None:
        """See `Log`. A step's sums have just been read off the device, so that it has ended there as well."""
        super().add(step)
        self.done.append(step)
        self.ends.append(time.monotonic())


def measure(case: Case) -> Record:
    """Run one untimed epoch, then the model without loading, loading without a model, and both together."""
    world, config = start(case.device), case.config()
    loader = open_loader(config, case.data, world.device, 0, 1)
    with watching(world.device) as sampler:
        batches = held(loader)  # also leaves every byte in the page cache
        epoch = described(batches, loader.batching.patch)
        warm = min(max(_WARM, _until_known(batches) if config.run.compile else 0), epoch["steps"])
        model = _trained(case, config, Again(loader, batches, warm), epoch, warm, world, sampler)
        batches.clear()
        loading = _loaded(case, Again(loader), epoch)
        joint = _trained(case, config, Again(loader, None, warm), epoch, warm, world, sampler)
    if world.device.type == "cpu":
        joint["peak_mib"] = machine.peak_of_this_process() / MIB
    threads = torch.get_num_threads()
    parts = {"epoch": epoch, "model": model, "loader": loading, "joint": joint}
    return {"device": name_of(world), "torch_threads": threads, "warm_steps": warm, **parts}


def _trained(
    case: Case, config: Config, batches: Again, epoch: Record, warm: int, world: World, sampler: Sampler | None
) -> Record:
    """Run the trainer's loop over these batches; the first `warm` steps do not count.

    Returns wait, seconds for batches; first_wait, those for the first batch of an epoch, while the loader starts; and
    peak_mib, what torch allocated on a GPU, or what a CPU's process took with Python and all libraries.
    """
    gc.collect()
    if config.run.compile:
        torch.compiler.reset()  # or it may keep the weights of the model before
    torch.manual_seed(case.seed)
    if world.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    peak = peak_tflops(name_of(world), config.log.peak_tflops)
    steps = warm + epoch["steps"] * case.epochs
    log = Timed(Path(), batches.bins()[0], steps, peak, devices=1, console=None, tensorboard=False)
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        as_loader: Any = batches  # as far as the loop calls one
        task = config.objective.build(config.model, as_loader)
        loop: Any = Unsaved(task, as_loader, config, Path(folder), world, log, steps)
        loop.go()
    counted, seconds = log.done[warm:], log.ends[-1] - log.ends[warm - 1]
    raw = {"seconds": seconds, "wait": sum(step.wait for step in counted)}
    raw |= {ours: sum(float(step.sums[name]) for step in counted) for ours, name in SUMS.items()}
    raw |= {"first_wait": sum(step.wait for step in counted[:: epoch["steps"]]), "skipped": loop.progress.skipped}
    raw |= rates(raw, epoch, peak)
    if world.device.type == "cuda":
        raw["peak_mib"] = torch.cuda.max_memory_allocated() / MIB
    return raw | ({} if sampler is None else sampler.between(log.ends[warm - 1], log.ends[-1]))


def _loaded(case: Case, batches: Again, epoch: Record) -> Record:
    """Load epochs of batches that nobody uses; they are on the device when handed over."""
    rows: list[Tensor] = []
    first, begun = 0.0, time.monotonic()
    for _ in range(case.epochs):
        asked = time.monotonic()
        for number, batch in enumerate(batches):
            first += 0.0 if number else time.monotonic() - asked
            rows.append(batch.rows)
    raw = {"seconds": time.monotonic() - begun, "images": float((torch.cat(rows) >= 0).sum()), "first_wait": first}
    return raw | rates(raw, epoch, None)


def rates(raw: Record, epoch: Record, peak: float | None) -> Record:
    """Return rates, from sums. Mpx and tokens are the images' own; mfu and hfu are None where the peak is unknown."""
    images_s = raw["images"] / raw["seconds"]
    per_image = {name: epoch[name] / epoch["images"] for name in ("mpx", "tokens")}
    found = {"images_s": images_s, "mpx_s": images_s * per_image["mpx"], "tokens_s": images_s * per_image["tokens"]}
    if "flops" not in raw:
        return found
    useful, run = (raw[name] / raw["seconds"] / 1e12 for name in ("flops", "padded_flops"))
    shares = {"mfu": useful / peak if peak else None, "hfu": run / peak if peak else None}
    return found | {"tflops": useful, "tflops_run": run, "data_wait": raw["wait"] / raw["seconds"], **shares}
