"""Whether all that only a GPU reaches works, and how fast: one step after another, that which tells most first.

Each step has a time limit, and runs in another process, a new one after a step that failed: neither an error nor a
crash of a driver hides what comes after it. The JSON is written anew after every step. A step ends in one of four ways:
passed; wrong, where it ran and a result is not what it has to be; failed, where it could not run; skipped, where
something is missing here.

Without a GPU the same steps run on the CPU, to test all this: no claim about a GPU.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from benchmarks import gpu_utilization
from benchmarks.gpu_check_summary import plots, readme, said
from benchmarks.gpu_steps import (
    METHODS,
    Skipped,
    Where,
    attention,
    commands,
    decoding,
    driver,
    loading,
    methods,
    training,
)
from benchmarks.results import FOLDER, Record, begin, save
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


def _speeds(*cases: tuple[str, str, Record]) -> dict[str, Step]:
    """Return steps that measure recipes with batchings: name of the step, recipe, and more arguments."""
    found = {}
    for title, recipe, more in cases:
        own = partial(training.speed, recipe=recipe, name=title.split(", ")[1], **more)
        found[title] = Step(f"How fast is training of {title}?", own, 90, 0)
    return found


def _looks(*names: str) -> dict[str, Step]:
    """Return steps that look at one recipe each."""
    question = "Does training wait for the device, compile anew, or differ? Where does its time go?"
    found = (Step(question, partial(training.steps, number=i), 60, 60 if i < 2 else 0) for i in range(len(names)))
    return dict(zip(names, found, strict=True))


def _methods(*names: str) -> dict[str, Step]:
    """Return steps that train with one method each."""
    question = "Does this method train as on a CPU, and where does it wait for the device?"
    return {name: Step(question, partial(methods.trained, name=name), 90, 0) for name in names}


STEPS = {
    "driver": Step("What GPU, driver and libraries are there?", driver.found, 60, 40),
    "exact": Step("Does the GPU's decoder give the pixels that were encoded?", decoding.exact, 90, 30),
    "attention": Step("Is attention on packed images right, and how fast?", attention.attention, 40, 20),
    "batches": Step("Are the loader's batches those of a CPU?", loading.batches, 60, 40),
    "streams": Step("Do batches stay whole while a model reads them?", loading.streams, 40, 20),
    **_looks("steps", "more steps", "tuning steps", "more tuning steps"),
    **_methods(*METHODS),
    "commands": Step(
        "Do the trainer's commands run, also by torchrun, and go on after an end?", commands.given, 120, 0
    ),
    "loader": Step("What decodes faster beside this GPU, its decoder or threads?", loading.speed, 60, 40),
    "decode": Step("How fast is the decoder alone?", decoding.speed, 60, 20),
    **_speeds(
        ("thesis-b48, Packed", "thesis-b48", {}),
        ("thesis-b48, Packed, threads decode", "thesis-b48", {"decoder": "threads"}),
        ("thesis-b48, Packed, 4 x tokens", "thesis-b48", {"times": 4}),
        ("medmae-s16, Resized", "medmae-s16", {}),
        ("thesis-b48, Packed + content", "thesis-b48", {}),
        ("thesis-b48, DBB", "thesis-b48", {}),
        ("thesis-b48, Fixed", "thesis-b48", {}),
    ),
}
"""In the order in which they run."""


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
        Without the figures of training: some 3 minutes; else some 9 on an H200 with 16 cores, of which an idle CPU
        takes most: starting processes, importing, compiling. Neither was seen whole in one call.
    data
        Folder or bucket url of a dataset made by shardkit build; default a synthetic one.
    studies
        Of the synthetic export, about two images each; default 160, with --quick 60, on a CPU 8.
    scale
        Factor on heights and widths of its radiographs; default 1 on a GPU, 0.15 on a CPU.
    steps
        Names of those to run; default all of them. Figures of others that the file has stay, with their own dates.
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
    result["steps"] = _earlier(out, on_gpu) if steps else {}
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        made: Record = {"studies": studies or ((60 if quick else 160) if on_gpu else 8)}
        made |= {"scale": scale or (1.0 if on_gpu else 0.15)}
        made["bins"] = "thesis" if made["scale"] == 1 else gpu_utilization.FEW_BINS
        begun = time.monotonic()
        url = data or gpu_utilization.synthetic(Path(folder), seed=seed, **made)
        about = "a dataset named with --data" if data else {**made, "seconds": time.monotonic() - begun}
        result["conditions"] = {"quick": quick, "seed": seed, "data": about}
        at = Where(where, url, quick, seed, "" if data else _labelled(Path(folder), url, made, seed))
        worker = Worker()
        for name, step in STEPS.items():
            limit = step.quick if quick else step.limit
            if name in chosen and (limit or steps):
                found = worker.done(step.run, at, limit or step.limit)
                of = {"date": result["date"], "quick": quick, "data": about}
                result["steps"][name] = {"question": step.question, **of, **found}
                result["gpu"] = result["gpu"] or result["steps"].get("driver", found).get("figures", {}).get("gpu", "")
                save(result, out)
        worker.end()
    save(result, out, plots)
    show(result, Terminal(width=max(Terminal().width, 120)))


def _labelled(work: Path, url: str, made: Record, seed: int) -> str:
    """Join what the synthetic images show with their dataset, and return the table's name."""
    from shardkit.commands.labelling import label
    from shardkit.synthetic.export import plan_export
    from shardkit.synthetic.findings import write_findings

    plan = plan_export(made["studies"], seed=seed, defects=0.0, scale=made["scale"])
    write_findings(work / "findings.csv", plan)
    key = work / "private"  # as `synthetic` has it
    label(url, name="region", table=str(work / "findings.csv"), by="path", private=key)
    return "region"


def _earlier(out: Path, on_gpu: bool) -> Record:
    """Return the steps that an earlier run on the same kind of device left in its file."""
    if not out.exists():
        return {}
    earlier: Record = json.loads(out.read_text())
    known = {name: step for name, step in earlier["steps"].items() if name in STEPS}
    return known if on_gpu != earlier["gpu"].startswith("none") else {}


class Worker:
    """A process that takes steps one by one, since it takes long to start; after one that did not end well, another."""

    def __init__(self) -> None:
        self._child: BaseProcess | None = None
        self._pipe: Any = None

    def done(self, function: Callable[[Where], Record], at: Where, limit: float) -> Record:
        """Run a step; say how it ended, and what it found."""
        begun = time.monotonic()
        if self._child is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._child = context.Process(target=_serve, args=(theirs,))
            self._child.start()
            theirs.close()
        self._pipe.send((function, at))
        try:
            found: Record = self._pipe.recv() if self._pipe.poll(limit) else {"why": f"not done after {limit:.0f} s"}
        except EOFError:  # it died without a word
            self._child.join(10)
            found = {"why": f"its process ended with {self._child.exitcode}"}
        found = {"outcome": "failed", **_without_folders(found)}
        if found["outcome"] == "failed":  # after some errors nothing runs on a GPU any more in this process
            self.end()
        return {**found, "seconds": round(time.monotonic() - begun, 2)}

    def end(self) -> None:
        """End the process."""
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._child.pid or 0, signal.SIGKILL)  # what it started, too
            self._child.kill()
            self._child.join()
            self._pipe.close()
        self._child = None


def _serve(pipe: Any) -> None:
    os.setsid()
    while True:
        function, at = pipe.recv()
        pipe.send(_done(function, at))
        gc.collect()


def _done(function: Callable[[Where], Record], at: Where) -> Record:
    try:
        figures = function(at)
    except Skipped as missing:
        return {"outcome": "skipped", "why": str(missing)}
    except BaseException as error:
        traceback.print_exception(error)
        where = traceback.extract_tb(error.__traceback__)[-1]
        at_line = f"{Path(where.filename).name}:{where.lineno}"
        return {"outcome": "failed", "why": plain(f"{type(error).__name__}: {error}"), "where": at_line}
    wrong = figures.pop("wrong", [])
    return {"outcome": "wrong" if wrong else "passed", **({"why": wrong} if wrong else {}), "figures": figures}


def _without_folders(value: Any) -> Any:
    """Return figures whose texts name no folder of this machine."""
    if isinstance(value, dict):
        return {name: _without_folders(of) for name, of in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(of) for of in value]
    rooted = isinstance(value, str) and any(word.startswith("/") for word in value.split())
    return " ".join(Path(w).name if w.startswith("/") else w for w in value.split()) if rooted else value


def plain(text: str) -> str:
    """Return a text in one line, without folders: figures name no machine's paths."""
    words = [Path(word.strip("\"',")).name if "/" in word else word for word in text.split()]
    return " ".join(words)[:800]


def show(result: Record, console: Terminal) -> None:
    """Print a line a step."""
    console.print(f"GPU: {result['gpu']}", highlight=False)
    lines = Table("step", "outcome", "seconds", "", box=None, pad_edge=False)
    for name, step in result["steps"].items():
        lines.add_row(name, step["outcome"], f"{step['seconds']:.1f}", said(name, step))
    console.print(lines)
