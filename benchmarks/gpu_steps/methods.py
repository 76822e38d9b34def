"""Steps of the methods that are no masked autoencoder, on the device and on the CPU, from the same weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

from benchmarks.gpu_programs import Again, quiet
from benchmarks.gpu_steps import METHODS, Where, need_dali
from benchmarks.gpu_steps.training import taken
from benchmarks.results import Record
from shardkit import MultiViewBatch, from_text
from trainer.commands.training import open_loader
from trainer.config import Config
from trainer.recipes.registry import RECIPES

_STEPS, _FEW = 6, 4
_NEAR = 0.05
"""How far the losses of the first step may be apart, in shares: bfloat16, and other draws of dropped paths."""


def trained(where: Where, name: str) -> Record:
    """Take steps with a method's recipe, compiled as it is, of two micro-batches that are smaller than its own.

    Returns
    -------
    dict
        The losses, and that of the first step without compiling, where anything was compiled; that of the first images
        of these batches on the device and, in float32, on the CPU; graphs compiled in the first two steps and after
        them; graph breaks; the places where a step waits for the device; and where a step's time goes.
    """
    need_dali()
    config = _config(where, METHODS[name])
    loader = open_loader(config, where.data, where.device, 0, 1)
    batches = list(islice(Again(loader), 2 * _STEPS))
    found = taken(where, config, loader, batches, _STEPS)
    plain = replace(config, run=replace(config.run, compile=False))
    losses, waits = found["losses"], found["waits"][-2]  # the last step is one that is profiled
    uncompiled = taken(where, plain, loader, batches[:2], 1)["losses"][0] if found["graphs"][-1] else losses[0]
    few, there = [_few(batch) for batch in batches[:2]], Where("cpu", where.data, where.quick, where.seed)
    exact = replace(plain, run=replace(plain.run, precision="fp32"))
    on_device = taken(where, plain, loader, few, 1)["losses"][0]
    on_cpu = taken(there, exact, loader, [batch.to("cpu") for batch in few], 1)["losses"][0]
    wrong = [
        f"loss {one:.6g}, {what} {other:.6g}"
        for one, what, other in ((losses[0], "without compiling", uncompiled), (on_device, "on the CPU", on_cpu))
        if not abs(one - other) <= _NEAR * abs(other)
    ]
    if found["graphs"][-1] > found["graphs"][1]:
        wrong.append(f"{found['graphs'][-1] - found['graphs'][1]} graphs were compiled after the first two steps")
    if found["breaks"]:
        wrong.append(f"{found['breaks']} graph breaks")
    if sum(waits.values()) > 1:
        wrong.append(f"{sum(waits.values())} waits for the device a step, not 1: {dict(waits)}")
    return {
        "recipe": METHODS[name],
        "batching": config.loader.batching,
        "losses": losses,
        "loss_uncompiled": uncompiled,
        "loss_on_device": on_device,
        "loss_on_cpu": on_cpu,
        "graphs": found["graphs"][1],
        "graphs_later": found["graphs"][-1] - found["graphs"][1],
        "graph_breaks": found["breaks"],
        "waits_a_step": dict(waits),
        "step_seconds": found["seconds"],
        "profile": found["profile"],
        "wrong": wrong,
    }


def _few(batch: Any) -> Any:
    """Return the first images of a batch: a CPU takes seconds for all of them."""
    at = slice(_FEW)
    own = {"rows": batch.rows[at], "seeds": batch.seeds[at], "kept": batch.slots().at(at)}
    if isinstance(batch, MultiViewBatch):
        return replace(batch, views=tuple(view[:, at] for view in batch.views), **own)
    return replace(batch, images=batch.images[at], sizes=batch.sizes[at], **own)


def _config(where: Where, recipe: str) -> Config:
    of = RECIPES[recipe].config
    size = 32 if where.on_gpu else 4
    own: Any = from_text(of.loader.batching)
    batching = str(replace(own, batch_size=size, per_step=2))
    run = replace(of.run, compile=of.run.compile and where.on_gpu)
    if not where.on_gpu:
        run = replace(run, precision="fp32")
    return quiet(replace(of, loader=replace(of.loader, batching=batching, split="all"), run=run))
