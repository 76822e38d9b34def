"""Whether all that only a GPU reaches works, and how fast: one step after another, that which tells most first.

Each step runs in a process of its own with a time limit, so that neither an error nor a crash of a driver hides what
comes after it, and the JSON is written anew after every step. A step ends in one of four ways: passed; wrong, where it
ran and a result is not what it has to be; failed, where it could not run; skipped, where something is missing here.

Without a GPU the same steps run on the CPU, to test all this: no claim about a GPU.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Table

from benchmarks import gpu_utilization
from benchmarks.gpu_steps import Skipped, Where, attention, decoding, driver, loading, training
from benchmarks.drawing import bars
from benchmarks.results import FOLDER, Record, begin, save, spread, table
from shardkit.report import Plot
from shardkit.terminal.output import Terminal

__all__ = ["plots", "readme", "run"]


@dataclass(frozen=True)
class Step:
    """A part of the check.

    Attributes
    ----------
    question
        What it answers.
    run
        Returns figures; under `wrong`, sentences about what is not as it has to be.
    limit, quick
        Seconds that it may take: in full, and with --quick, where 0 leaves it out.
    """

    question: str
    run: Callable[[Where], Record]
    limit: float
    quick: float


STEPS = {
    "driver": Step("What GPU, driver and libraries are there?", driver.found, 60, 40),
    "exact": Step("Does the GPU's decoder give the pixels that were encoded?", decoding.exact, 120, 60),
    "attention": Step("Is attention on packed images right, and how fast?", attention.attention, 90, 60),
    "batches": Step("Are the loader's batches those of a CPU?", loading.batches, 120, 60),
    "streams": Step("Do batches stay whole while a model reads them?", loading.streams, 60, 30),
    "steps": Step("Does training wait for the device, compile anew, or differ?", training.steps, 180, 80),
    "commands": Step("Do the trainer's commands run, and go on after an end?", training.commands, 180, 90),
    "decode": Step("How fast is the decoder alone?", decoding.speed, 90, 30),
    "training": Step("How fast is training, and how busy is the GPU?", training.speed, 400, 0),
}


def run(
    *,
    quick: bool = False,
    data: str | None = None,
    studies: int | None = None,
    scale: float | None = None,
    steps: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path = FOLDER / "gpu-check.json",
) -> None:
    """Check on a GPU all that a CPU cannot: decoding, batches, attention, compiling, training; and measure it.

    Parameters
    ----------
    quick
        In under 3 minutes, without the figures of training; else under 8.
    data
        Folder or bucket url of a dataset made by shardkit build; default a synthetic one.
    studies
        Of the synthetic export, about two images each; default 400, with --quick 60, on a CPU 8.
    scale
        Factor on heights and widths of its radiographs; default 1 on a GPU, 0.15 on a CPU.
    steps
        Names of those to run; default all of them.
    seed
        Of the export, the plan and the weights.
    device
        Where to run.
    out
        JSON file for the figures, written after every step.
    """
    where, chosen = gpu_utilization.chosen(device), steps or list(STEPS)
    if unknown := sorted(set(chosen) - set(STEPS)):
        raise SystemExit(f"step {unknown[0]} is unknown: choose of {', '.join(STEPS)}")
    on_gpu = where == "cuda"
    result = begin((__doc__ or "").partition("\n")[0], gpu_utilization.LIBRARIES)
    result["gpu"] = "" if on_gpu else gpu_utilization.NO_GPU.format("the recipe tiny")
    result["quick"], result["steps"] = quick, {}
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        made: Record = {"studies": studies or ((60 if quick else 400) if on_gpu else 8)}
        made |= {"scale": scale or (1.0 if on_gpu else 0.15)}
        made["bins"] = "thesis" if made["scale"] == 1 else gpu_utilization.FEW_BINS
        begun = time.monotonic()
        url = data or gpu_utilization.synthetic(Path(folder), seed=seed, **made)
        result["data"] = "a dataset named with --data" if data else {**made, "seconds": time.monotonic() - begun}
        at = Where(where, url, quick, seed)
        for name, step in STEPS.items():
            limit = step.quick if quick else step.limit
            if name in chosen and (limit or steps):
                result["steps"][name] = {"question": step.question, **_done(step.run, at, limit or step.limit)}
                result["gpu"] = result["gpu"] or result["steps"][name].get("figures", {}).get("gpu", "")
                save(result, out, None)
    save(result, out, plots)
    show(result, Terminal(width=max(Terminal().width, 120)))


def _done(function: Callable[[Where], Record], at: Where, limit: float) -> Record:
    """Run a step in a fresh process; say how it ended, and what it found."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run, args=(function, at, sender))
    begun = time.monotonic()
    child.start()
    sender.close()
    found: Record = {"outcome": "failed"}
    try:
        if receiver.poll(limit):
            found = receiver.recv()
        else:
            found["why"] = f"not done after {limit:.0f} s"
    except EOFError:  # it died without a word
        child.join(10)
        found["why"] = f"its process ended with {child.exitcode}"
    if child.is_alive():
        child.join(10 if "figures" in found else 0)
        child.kill()
    child.join()
    return {**found, "seconds": round(time.monotonic() - begun, 2)}


def _run(function: Callable[[Where], Record], at: Where, to: Connection) -> None:
    try:
        figures = function(at)
        wrong = figures.pop("wrong", [])
        to.send({"outcome": "wrong" if wrong else "passed", **({"why": wrong} if wrong else {}), "figures": figures})
    except Skipped as missing:
        to.send({"outcome": "skipped", "why": str(missing)})
    except BaseException as error:  # noqa: BLE001 - whatever it is, the next step is to run
        lines = traceback.format_exception(error)
        traceback.print_exception(error)
        to.send({"outcome": "failed", "why": plain(f"{type(error).__name__}: {error}"), "where": plain(lines[-2])})


def plain(text: str) -> str:
    """Return a text in one line, without folders: figures name no machine's paths."""
    words = [Path(word.strip("\"',")).name if "/" in word else word for word in text.split()]
    return " ".join(words)[:800]


# --- what it comes to


def show(result: Record, console: Terminal) -> None:
    """Print a line a step."""
    console.print(f"GPU: {result['gpu']}", highlight=False)
    lines = Table("step", "outcome", "seconds", "", box=None, pad_edge=False)
    for name, step in result["steps"].items():
        lines.add_row(name, step["outcome"], f"{step['seconds']:.1f}", _said(step))
    console.print(lines)


def _said(step: Record) -> str:
    why = step.get("why", "")
    return "; ".join(why) if isinstance(why, list) else str(why)


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    rows = [(name, step["question"], step["outcome"], _said(step) or "–") for name, step in result["steps"].items()]
    return f"GPU: {result['gpu']}.\n\n" + table(["step", "question", "outcome", "what was wrong"], rows)


def plots(result: Record) -> list[Plot]:
    """Return how long the steps took, in the colours of how they ended."""
    found = result["steps"]
    series = {
        outcome: [spread([step["seconds"]]) if step["outcome"] == outcome else None for step in found.values()]
        for outcome in ("passed", "wrong", "failed", "skipped")
        if any(step["outcome"] == outcome for step in found.values())
    }
    return [bars("What the check of a GPU found", list(found), series, unit="seconds that it took")]
