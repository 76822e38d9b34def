"""The trainer on the device: single steps with a close look, and its speed."""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType
from torch._dynamo.utils import counters
from torch.profiler import profile

from benchmarks import gpu_utilization
from benchmarks.gpu_programs import Again, Case, Timed, Unsaved, held, measure, quiet, start
from benchmarks.gpu_steps import Skipped, Where
from benchmarks.results import Record
from shardkit import from_text
from trainer.commands.training import open_loader
from trainer.config import Config
from trainer.models.base import Batch
from trainer.models.masking import draw
from trainer.models.sequences import sequences
from trainer.recipes.registry import RECIPES
from trainer.runs.log import Step
from trainer.tasks.config import TaskConfig

NEAR = 0.02
"""How far losses may be apart, in shares: bfloat16, and what a compiler makes of it."""
TUNED = {"cuda": ("thesis-b48-frac", "medmae-s16-nih"), "cpu": ("tiny-finetune",)}
"""Recipes that are fine-tuned, by kind of device."""
_STEPS, _BATCHES, _MOST = 6, 4, 12


def cases(where: Where, recipe: str) -> list[Case]:
    """Return a recipe with every batching; two micro-batches a step."""
    tokens = gpu_utilization.DEFAULTS[where.kind].tokens
    return gpu_utilization.cases(recipe, where.data, "all", tokens, 2, where.kind, where.seed, 1)


# --- steps, one by one


class Watched(Unsaved):
    """The trainer's loop, which notes where every step waited for the device."""

    waits: list[Counter[str]]

    def _step(self) -> bool:
        if self.world.device.type != "cuda":
            return super()._step()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                return super()._step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
                places = (f"{Path(w.filename).name}:{w.lineno}" for w in said if "synchroniz" in str(w.message))
                self.waits.append(Counter(places))


@dataclass
class Noted(Timed):
    """The log that keeps steps, notes the graphs that there are after each, and profiles the last of several."""

    where: Where | None = None
    graphs: list[int] = field(default_factory=list)
    profiler: Any = None

    def add(self, step: Step) -> None:
        """See `Log`."""
        if self.where is not None and self.profiler is not None:
            self.where.wait()
            self.profiler.stop()
        super().add(step)
        self.graphs.append(counters["stats"]["unique_graphs"])
        if self.steps > 1 and len(self.graphs) == self.steps - 1:
            self.profiler = profile(acc_events=True)
            self.profiler.start()


def _configs(where: Where) -> dict[str, tuple[Config, bool]]:
    """Return recipes on this dataset by name, and whether images are changed: pre-trained, and fine-tuned."""
    found: dict[str, tuple[Config, bool]] = {}
    for recipe in gpu_utilization.DEFAULTS[where.kind].recipes:
        case = next(case for case in cases(where, recipe) if case.name in ("Packed", "Resized"))
        found[recipe] = case.config(), False
    for recipe in TUNED[where.kind] if where.labels else ():
        of = RECIPES[recipe].config
        assert isinstance(of.objective, TaskConfig)
        task = replace(of.objective, labels=where.labels, columns=(), kind="multiclass")
        batching = of.loader.batching.replace("per_step=4", "per_step=2").replace("per_step=8", "per_step=2")
        batching = batching.replace("remainder=drop", "remainder=fill")  # tiny's: few images are there
        loader, select = replace(of.loader, batching=batching, split="all"), replace(of.select, metric="")
        found[recipe] = quiet(replace(of, loader=loader, objective=task, select=select)), True
    return found


def steps(where: Where, number: int) -> Record:
    """Take steps of a recipe on batches in memory, compiled as the recipe has it: pre-training, or fine-tuning.

    Parameters
    ----------
    where
        On what.
    number
        Of the recipe: two of pre-training on a GPU and one on a CPU, then two of fine-tuning.

    Returns
    -------
    dict
        The loss of the first step, and that without compiling; that of its first batch on the device and on the CPU in
        float32; graphs compiled until every shape was met and after that; graph breaks; the places where a step waits
        for the device, with how often; and where a step's time goes.
    """
    known = list(_configs(where).items())
    if number >= len(known):
        raise Skipped("no GPU, where one more recipe is looked at; or no labels")
    recipe, (config, changed) = known[number]
    row, wrong = _looked_at(where, config, changed), list[str]()
    for one, other in (("loss", "loss_uncompiled"), ("loss_on_device", "loss_on_cpu")):
        if not abs(row[one] - row[other]) <= NEAR * abs(row[other]):
            wrong.append(f"{one} {row[one]:.6g}, {other} {row[other]:.6g}")
    if row["graphs_later"]:
        wrong.append(f"{row['graphs_later']} graphs were compiled after every shape was met")
    if row["graph_breaks"]:
        wrong.append(f"{row['graph_breaks']} graph breaks")
    if row["unlike_cpu"]:
        wrong.append(f"of the mask, {', '.join(row['unlike_cpu'])} differ from the CPU's")
    if (waits := sum(row["waits_a_step"].values())) > 1:
        wrong.append(f"{waits:g} waits for the device a step, not 1: {row['waits_a_step']}")
    return {"recipe": recipe, "batching": config.loader.batching, **row, "wrong": wrong}


def _looked_at(where: Where, config: Config, changed: bool) -> Record:
    loader = open_loader(config, where.data, start(where.kind).device, 0, 1, augmented=changed)
    batches = held(loader)[:_BATCHES]
    warm = sum(batch.position.last for batch in batches)
    count = max(_STEPS, 2 * warm)
    plain = taken(where, replace(config, run=replace(config.run, compile=False)), loader, batches, 1)
    compiled = taken(where, config, loader, batches, count)
    later: Counter[str] = sum(compiled["waits"][warm:], Counter())
    return {
        "loss": compiled["losses"][0],
        "loss_uncompiled": plain["losses"][0],
        "losses": compiled["losses"],
        "graphs": compiled["graphs"][warm - 1],
        "graphs_later": compiled["graphs"][-1] - compiled["graphs"][warm - 1],
        "graph_breaks": compiled["breaks"],
        "waits_a_step": {place: number / (count - warm) for place, number in sorted(later.items())},
        "step_seconds": compiled["seconds"],
        "profile": compiled["profile"],
        **_on_both(where, config, loader, batches[0]),
    }


def taken(where: Where, config: Config, loader: Any, batches: list[Batch], count: int) -> Record:
    """Take steps over these batches from the first weights on; the last of several under torch's profiler.

    Returns
    -------
    dict
        Of each step, losses, and so many graphs as there were after it; breaks of graphs; waits of each step; seconds
        between the ends of steps; and where the profiled one's time went.
    """
    torch.compiler.reset()
    counters.clear()
    torch.manual_seed(where.seed)
    again: Any = Again(loader, batches)
    place, names = Path(), loader.bins()[0]
    log = Noted(place, names, count, None, devices=1, console=None, tensorboard=False, where=where)
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        objective = config.objective.build(config.model, loader)
        loop = Watched(objective, again, config, Path(folder), start(where.kind), log, count)
        loop.waits = []
        loop.go()
    return {
        "losses": [float(step.sums["loss"]) / float(step.sums["weight"]) for step in log.done],
        "graphs": log.graphs,
        "breaks": sum(counters["graph_break"].values()),
        "waits": loop.waits or [Counter[str]()] * count,
        "seconds": [after - before for before, after in pairwise(log.ends[:-1])],
        "profile": _profiled(log.profiler) if log.profiler is not None else {},
    }


def _profiled(profiler: Any) -> Record:
    """Return milliseconds of a step on the device and on the CPU, and the names that took most of them."""
    found: Record = {}
    events = profiler.key_averages()
    kernels = [
        event for event in events if event.device_type != DeviceType.CPU
    ]  # operators have their kernels' time, too
    operators = [event for event in events if event.device_type == DeviceType.CPU]
    sides = {"device": (kernels, "self_device_time_total"), "cpu": (operators, "self_cpu_time_total")}
    for name, (those, of) in sides.items():
        most = sorted(those, key=lambda event: -getattr(event, of))[:_MOST]
        found[name] = {
            "ms": round(sum(getattr(event, of) for event in those) / 1e3, 3),
            "most": [[event.key[:90], round(getattr(event, of) / 1e3, 3), event.count] for event in most],
        }
    return found


def _on_both(where: Where, config: Config, loader: Any, batch: Batch) -> Record:
    """Run a batch forward with the same weights on the device and on the CPU, in float32."""
    torch.manual_seed(where.seed)
    objective = config.objective.build(config.model, loader)
    objective.model.eval()
    ratio, found, masks = getattr(config.model, "mask_ratio", 0.0), Record(), []
    for name, device in (("loss_on_cpu", torch.device("cpu")), ("loss_on_device", where.device)):
        objective.to(device)
        there = batch.to(device)
        masks.append(draw(sequences(there, objective.patch), ratio))
        with torch.no_grad():
            output = objective.run(objective.model, there)
        found[name] = float(output.loss / output.images)
    values = ((one.name, *(getattr(mask, one.name) for mask in masks)) for one in fields(masks[0]))
    same = {name: torch.equal(a, b.cpu()) if isinstance(a, Tensor) else a == b for name, a, b in values}
    return {**found, "unlike_cpu": [name for name, equal in same.items() if not equal]}


# --- speed


def speed(where: Where, recipe: str, name: str, times: int = 1, decoder: str = "auto") -> Record:
    """Measure a recipe with a batching, as `gpu-utilization` does, once: model, loader, and both.

    Parameters
    ----------
    where
        On what.
    recipe, name
        Which.
    times
        How many times the tokens of its own micro-batches those here have, in a step of one in place of two: what
        launching kernels costs is then shared by more tokens.
    decoder
        Of the loader.
    """
    if not where.on_gpu:
        raise Skipped("no GPU: python -m benchmarks gpu-utilization trains a smaller recipe on a CPU")
    case = next(case for case in cases(where, recipe) if case.name == name)
    if times > 1:
        own: Any = from_text(case.batching)
        larger = str(replace(own, tokens=own.tokens * times, per_step=1))
        case = replace(case, name=f"{name}, {times} x tokens", batching=larger)
    found = measure(replace(case, decoder=decoder))
    found["epoch"].pop("rows")
    found["joint / limit"] = found["joint"]["images_s"] / min(found["model"]["images_s"], found["loader"]["images_s"])
    return {"recipe": recipe, "name": case.name, "batching": case.batching, "decoder": decoder, **found}
