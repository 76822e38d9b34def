"""Later epochs of one process: how near the loader comes to decoding alone when its memory is there already.

The first epoch of a process touches fresh memory: the kernel clears a GB of it, which takes as long as some fifty
radiographs. Programs of the other tables run one epoch, and pay for it. Here a process runs several, of the loader or
of decoding alone, from a local disk; the first one and the later ones are told apart.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks import loader_data, machine
from benchmarks.loader_programs import Delivered, _Decode, _Shardkit
from benchmarks.results import Record, begin, spread
from shardkit.terminal.output import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.loader import Bench
    from benchmarks.loader_data import Data

EPOCHS = 5  # of a process
PROGRAMS = ("shardkit", "decode")
GOALS = {"full": 0.85, "224": 0.7}
"""Task -> least ratio to decoding alone that is wanted."""
WHEN = {"first": slice(0, 1), "later": slice(1, EPOCHS)}


def measure(bench: Bench, data: Data, repeats: int, batches: dict[str, int]) -> Record:
    """Run both programs `repeats` times for each task, in turn; return the figures.

    Parameters
    ----------
    bench : Bench
        Runs them.
    data : Data
        What is loaded, of which only the dataset of ours is needed.
    repeats : int
        How often.
    batches : dict
        Task -> images of a batch.
    """
    result = begin("How near later epochs of the loader come to decoding alone", machine.LIBRARIES)
    source, rows = loader_data.disk(data), []
    for repeat in range(repeats):
        for task, size in batches.items():
            for program in PROGRAMS[:: 1 if repeat % 2 else -1]:  # who begins alternates
                job = {
                    "program": program,
                    "task": task,
                    "place": source.place("shardkit"),
                    "batch": size,
                    "workers": len(os.sched_getaffinity(0)),
                    "samples": data.samples,
                }
                found = bench.child("loader_epochs:epochs", job)
                rows += [{"repeat": repeat, "task": task, "program": program, **one} for one in found]
    facts = {"images": len(data.samples), "mpx": data.mpx(), "epochs": EPOCHS, "repeats": repeats}
    result["conditions"] = facts | {"workers": len(os.sched_getaffinity(0)), "batch": batches}
    return result | {"rows": rows, "summary": summarise(rows)}


def epochs(job: Record) -> list[Record]:
    """Run the epochs of a program in this process."""
    program: Any = {"shardkit": _Shardkit, "decode": _Decode}[job["program"]](job)
    return [_one(program.batches(), number, len(job["samples"])) for number in range(EPOCHS)]


def _one(batches: Iterable[Delivered], number: int, samples: int) -> Record:
    clock, cpu = time.perf_counter(), time.process_time()
    count, first = 0, 0.0
    for rows, _ in batches:
        first = first or time.perf_counter() - clock
        count += len(rows)
    if count != samples:
        raise RuntimeError(f"{count} of {samples} samples were delivered")
    return {
        "epoch": number,
        "seconds": time.perf_counter() - clock,
        "cpu_s": time.process_time() - cpu,
        "first_batch_s": first,
    }


def summarise(rows: list[Record]) -> Record:
    """Return, by task and by first and later epochs, spreads of seconds, and of ratios within a repeat."""
    found: Record = {}
    for task in {row["task"]: None for row in rows}:
        own = [row for row in rows if row["task"] == task]
        found[task] = {when: _compared(own, part) for when, part in WHEN.items()}
    return found


def _compared(rows: list[Record], part: slice) -> Record:
    wanted = range(EPOCHS)[part]
    means = {
        (name, figure): [
            sum(row[figure] for row in own) / len(own)
            for repeat in sorted({row["repeat"] for row in rows})
            if (own := [r for r in rows if (r["repeat"], r["program"]) == (repeat, name) and r["epoch"] in wanted])
        ]
        for name in PROGRAMS
        for figure in ("seconds", "cpu_s")
    }
    ratios = {
        figure: spread([limit / ours for ours, limit in zip(*(means[name, figure] for name in PROGRAMS), strict=True)])
        for figure in ("seconds", "cpu_s")
    }
    figures = {name: {figure: spread(means[name, figure]) for figure in ("seconds", "cpu_s")} for name in PROGRAMS}
    return {**figures, "decode / shardkit": ratios}


# --- tables


def show(result: Record, console: Terminal) -> None:
    """Print a table of the ratios."""
    table = Table("", "epochs", "shardkit s", "decoding s", "decoding / shardkit", "by CPU seconds", box=None)
    for cells in _cells(result):
        table.add_row(*cells)
    console.print(f"\n[bold]{_words(result['conditions'])}[/bold]")
    console.print(table)


def readme(result: Record) -> str:
    """Return this part's lines for benchmarks/README.md."""
    lines = [
        "| several epochs of one process | epochs | shardkit, s | decoding alone, s | its share | by CPU seconds |",
        "|---|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(cells)} |" for cells in _cells(result)),
    ]
    return f"{_words(result['conditions'])}, {result['date'][:10]}.\n\n" + "\n".join([*lines, "", *_goals(result)])


def _cells(result: Record) -> list[list[str]]:
    found = []
    for task, parts in result["summary"].items():
        for when, part in parts.items():
            seconds = [f"{part[name]['seconds']['median']:.2f}" for name in PROGRAMS]
            ratios = [part["decode / shardkit"][figure] for figure in ("seconds", "cpu_s")]
            words = [f"{one['median']:.2f} ({one['min']:.2f}-{one['max']:.2f})" for one in ratios]
            found.append([task, when, *seconds, *words])
    return found


def _goals(result: Record) -> list[str]:
    return [
        f"- disk, {task}, later epochs: shardkit / decoding alone **{got:.2f}**, wanted at least {GOALS[task]:g}:"
        f" {'met' if got >= GOALS[task] else 'short'}"
        for task, parts in result["summary"].items()
        if task in GOALS
        for got in [parts["later"]["decode / shardkit"]["seconds"]["median"]]
    ]


def _words(facts: Record) -> str:
    return (
        f"{facts['images']} radiographs of {facts['mpx'] / facts['images']:.2f} Mpx on a local disk,"
        f" {facts['epochs']} epochs a process, {facts['repeats']} processes in turn, on {facts['workers']} cores"
    )
