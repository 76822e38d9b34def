"""What the benchmarks of joins of tables share: timed stages, runs in turn with a peer, and plots."""

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import machine
from benchmarks.drawing import bars, lines
from benchmarks.loader import Bench
from benchmarks.results import Record, spread
from shardkit.report import Plot


def timed(stages: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Return the seconds that each stage takes, one after another."""
    seconds = {}
    for stage, work in stages.items():
        clock = time.perf_counter()
        work()
        seconds[stage] = time.perf_counter() - clock
    return seconds


def measured(
    bench: Bench,
    module: str,
    programs: Sequence[str],
    making: tuple[Any, ...],
    arguments: tuple[Any, ...],
    repeats: int,
) -> Record:
    """Run programs of a module in turn on tables that it makes; return seconds by stage, and memory, by program.

    Parameters
    ----------
    bench : Bench
        Where they run.
    module : str
        Of `benchmarks`, with `make` and the programs.
    programs : sequence of str
        Names of its functions.
    making, arguments : tuple
        What `make` and the programs get after the place of the tables.
    repeats : int
        How often each runs.
    """
    place = bench.work / "tables"
    bench.child(f"{module}:make", str(place), *making)
    found: dict[str, list[tuple[machine.Usage, dict[str, float]]]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, runs in found.items():
            runs.append(bench.measured(f"{module}:{name}", str(place), *arguments))
    shutil.rmtree(place)
    record: Record = {}
    for name, runs in found.items():
        stages = {stage: spread(seconds[stage] for _, seconds in runs) for stage in runs[0][1]}
        stages["seconds"] = spread(sum(seconds.values()) for _, seconds in runs)
        record[name] = stages | {"peak_mib": spread(used.peak_pss_mib for used, _ in runs)}
    return record


def plots(result: Record, what: str, label: str, ways: Sequence[str], programs: Sequence[str]) -> list[Plot]:
    """Return seconds by number of rows, and memory for the largest tables.

    Parameters
    ----------
    result : dict
        Of a benchmark.
    what : str
        What is joined.
    label : str
        Names a line of the plot, by ``name`` and ``by``.
    ways, programs : sequence of str
        By what rows are joined, and what joins them.
    """
    series = {
        label.format(name=name, by=by): [
            (row["rows"], row[name]["seconds"]) for row in result["rows"] if row["by"] == by and name in row
        ]
        for name in programs
        for by in ways
    }
    most = max(row["rows"] for row in result["rows"])
    largest = [row for row in result["rows"] if row["rows"] == most]
    ran = [name for name in programs if all(name in row for row in largest)]
    memory = {name: [row[name]["peak_mib"] for row in largest] for name in ran}
    return [
        lines(
            f"time to join {what}",
            {name: points for name, points in series.items() if points},
            unit="seconds",
            across="rows",
            log=True,
        ),
        bars(f"memory for {most:,} rows", [f"by {row['by']}" for row in largest], memory, unit="MiB"),
    ]
