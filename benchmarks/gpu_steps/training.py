"""The trainer on the device: single steps with a close look, its commands as a user gives them, and its speed."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_utilization
from benchmarks.gpu_programs import Again, Case, Timed, held, measure, start
from benchmarks.gpu_steps import Where
from benchmarks.results import Record
from trainer.commands.training import open_loader
from trainer.loop import Loop
from trainer.models.base import Batch
from trainer.models.masking import draw
from trainer.models.sequences import sequences
from trainer.runs.log import Step

NEAR = 0.02
"""How far losses may be apart, in shares: bfloat16, and what a compiler makes of it."""
_STEPS, _BATCHES = 6, 4


def cases(where: Where, recipe: str) -> list[Case]:
    """Return a recipe with every batching; two micro-batches a step."""
    tokens = gpu_utilization.DEFAULTS[where.kind].tokens
    return gpu_utilization.cases(recipe, where.data, "all", tokens, 2, where.kind, where.seed, 1)


# --- steps, one by one


class Watched(Loop):
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


def steps(where: Where) -> Record:
    """Take steps of every recipe on batches in memory, compiled as the recipe has it.

    Returns
    -------
    dict
        rows: of every recipe, the loss of the first step, and that without compiling, and of its first batch on the
        device and the CPU in float32; graphs compiled until every shape was met and after that; graph breaks; and the
        places where a step waits for the device, with how often.
    """
    rows, wrong = [], []
    for recipe in gpu_utilization.DEFAULTS[where.kind].recipes:
        case = next(case for case in cases(where, recipe) if case.name in ("Packed", "Resized"))
        row = _looked_at(where, case)
        rows.append({"recipe": recipe, "batching": case.batching, **row})
        for one, other in (("loss", "loss_uncompiled"), ("loss_on_device", "loss_on_cpu")):
            if not abs(row[one] - row[other]) <= NEAR * abs(row[other]):
                wrong.append(f"{recipe}: {one} {row[one]:.6g}, {other} {row[other]:.6g}")
        if row["graphs_later"]:
            wrong.append(f"{recipe}: {row['graphs_later']} graphs were compiled after every shape was met")
        if row["graph_breaks"]:
            wrong.append(f"{recipe}: {row['graph_breaks']} graph breaks")
        if row["unlike_cpu"]:
            wrong.append(f"{recipe}: of the mask, {', '.join(row['unlike_cpu'])} differ from the CPU's")
        if (waits := sum(row["waits_a_step"].values())) > 1:
            wrong.append(f"{recipe}: {waits:g} waits for the device a step, not 1: {row['waits_a_step']}")
    return {"rows": rows, "wrong": wrong}


def _looked_at(where: Where, case: Case) -> Record:
    world, config = start(case.device), case.config()
    loader = open_loader(config, case.data, world.device, 0, 1)
    batches = held(loader)[:_BATCHES]
    warm = sum(batch.position.last for batch in batches)
    compiled = _taken(case, loader, batches, _STEPS, config.run.compile)
    plain = _taken(case, loader, batches, 1, False)
    later: Counter[str] = sum(compiled["waits"][warm:], Counter())
    return {
        "loss": compiled["losses"][0],
        "loss_uncompiled": plain["losses"][0],
        "losses": compiled["losses"],
        "graphs": compiled["graphs"][warm - 1],
        "graphs_later": compiled["graphs"][-1] - compiled["graphs"][warm - 1],
        "graph_breaks": compiled["breaks"],
        "waits_a_step": {place: number / max(1, _STEPS - warm) for place, number in sorted(later.items())},
        "step_seconds": compiled["seconds"],
        **_on_both(case, loader, batches[0]),
    }


def _taken(case: Case, loader: Any, batches: list[Batch], count: int, compiled: bool) -> Record:
    """Take steps over these batches from the first weights on."""
    from dataclasses import replace

    from torch._dynamo.utils import counters

    torch.compiler.reset()
    counters.clear()
    torch.manual_seed(case.seed)
    config, again = case.config(), Again(loader, batches)
    config = replace(config, run=replace(config.run, compile=compiled))
    log, graphs = Noted(Path(), loader.bins()[0], count, None, devices=1, console=None, tensorboard=False), []
    log.note = lambda: graphs.append(counters["stats"]["unique_graphs"])
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:  # for the checkpoint at the end
        as_loader: Any = again
        objective = config.objective.build(config.model, as_loader)
        loop = Watched(objective, as_loader, config, Path(folder), start(case.device), log, count)
        loop.waits = []
        loop.go()
    losses = [float(step.sums["loss"]) / float(step.sums["weight"]) for step in log.done]
    ends = log.ends
    return {
        "losses": losses,
        "graphs": graphs,
        "breaks": sum(counters["graph_break"].values()),
        "waits": loop.waits or [Counter[str]()] * count,
        "seconds": [after - before for before, after in zip(ends, ends[1:], strict=False)],
    }


class Noted(Timed):
    """The log that keeps steps, and has something noted after each."""

    note: Any

    def add(self, step: Step) -> None:
        """See `Log`."""
        super().add(step)
        self.note()


def _on_both(case: Case, loader: Any, batch: Batch) -> Record:
    """Run a batch forward with the same weights on the device and on the CPU, in float32."""
    torch.manual_seed(case.seed)
    config = case.config()
    objective = config.objective.build(config.model, loader)
    found: Record = {}
    masks = []
    for name, device in (("loss_on_cpu", torch.device("cpu")), ("loss_on_device", torch.device(case.device))):
        objective.to(device)
        there = batch.to(device)
        masks.append(draw(sequences(there, objective.patch), config.model.mask_ratio))  # type: ignore[attr-defined]
        with torch.no_grad():
            output = objective.run(objective.model, there)
        found[name] = float(output.loss / output.images)
    unlike = []
    for one in fields(masks[0]):
        a, b = (getattr(mask, one.name) for mask in masks)
        if isinstance(a, Tensor) and not torch.equal(a, b.cpu()):
            unlike.append(one.name)
    return {**found, "unlike_cpu": unlike}


# --- commands


def commands(where: Where) -> Record:
    """Give commands as a user does: the demo, pre-training stopped and gone on with, fine-tuning, evaluation.

    Returns
    -------
    dict
        rows: every command without its folder, seconds, exit code, and the last line that it printed.
    """
    rows, wrong = [], []
    recipe = "thesis-b48" if where.on_gpu else "tiny"
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as name:
        data = ["--data", f"{name}/demo/shards"]
        brief = ["--log.every", "1", "--save.every", "2", "--val.every", "4", "--log.pictures", "4"]
        long = ["pretrain", "--recipe", recipe, *data, *brief, "--out", f"{name}/run", "--loader.batching"]
        long += ["packed:patch=48,per_step=2,tokens=4096" if where.on_gpu else "packed:level=3,patch=8,tokens=1024"]
        tuned = ["finetune", *data, "--labels", "region", *brief, "--run.steps", "4", "--init", f"{name}/run"]
        tuned += ["--out", f"{name}/tuned", "--objective.kind", "multiclass", "--select.metric", ""]
        if where.on_gpu:
            tuned += ["--recipe", "thesis-b48-frac", "--loader.batching", "packed:patch=48,per_step=2,tokens=4096"]
        evaluated = ["evaluate", f"{name}/tuned", *data, "--labels", "region", "--out", f"{name}/page"]
        steps_of_demo = [] if where.on_gpu else ["--steps", "2", "--studies", "24"]
        for words, stop in (
            (["shardkit", "demo", "--out", f"{name}/demo", *steps_of_demo], 0),
            (["trainer", *long, "--run.steps", "400" if where.on_gpu else "40"], 4),
            (["trainer", *long, "--run.steps", "400" if where.on_gpu else "40"], 6),
            (["trainer", *tuned], 0),
            (["trainer", *evaluated], 0),
        ):
            row = _command(words, Path(name), stop)
            rows.append(row)
            if row["exit_code"] and not stop:
                wrong.append(f"{row['command'][:60]}… ended with {row['exit_code']}: {row['last']}")
            if stop and row["steps"] < stop:
                wrong.append(f"{row['command'][:60]}… took {row['steps']} steps, not {stop}: {row['last']}")
    return {"rows": rows, "wrong": wrong}


def _command(words: list[str], folder: Path, stop: int) -> Record:
    """Run a command; with `stop`, ask it to stop once its log has so many steps."""
    program, *rest = words
    head = ["-m", "trainer"] if program == "trainer" else ["-c", "from shardkit.cli import main; main()"]
    begun, log = time.monotonic(), folder / "run" / "log.jsonl"
    with (folder / "said").open("w+") as said:
        child = subprocess.Popen([sys.executable, *head, *rest], stdout=said, stderr=subprocess.STDOUT)
        while stop and child.poll() is None:
            if log.exists() and len(log.read_text().splitlines()) >= stop:
                child.send_signal(signal.SIGTERM)
                break
            time.sleep(0.1)
        code = child.wait()
        said.seek(0)
        lines = [line.strip() for line in said.read().splitlines() if line.strip()]
    return {
        "command": " ".join(words).replace(f"{folder}/", ""),
        "seconds": round(time.monotonic() - begun, 2),
        "exit_code": code,
        "steps": len(log.read_text().splitlines()) if log.exists() else 0,
        "last": lines[-1].replace(f"{folder}/", "") if lines else "",
    }


# --- speed


def speed(where: Where) -> Record:
    """Measure every recipe with every batching, as `gpu-utilization` does, once: model, loader, and both."""
    rows, wrong = [], []
    for recipe in gpu_utilization.DEFAULTS[where.kind].recipes:
        for case in cases(where, recipe):
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                try:
                    found = pool.submit(measure, case).result()
                except Exception as error:  # noqa: BLE001 - the next batching is to be tried
                    wrong.append(f"{recipe}, {case.name}: {type(error).__name__}: {' '.join(str(error).split())[:300]}")
                    continue
            found["epoch"].pop("rows")
            limit = min(found["model"]["images_s"], found["loader"]["images_s"])
            found["joint / limit"] = found["joint"]["images_s"] / limit
            rows.append({"recipe": recipe, "name": case.name, "batching": case.batching, **found})
    return {"rows": rows, "wrong": wrong}
