"""What a hundred million radiographs would take: planning, opening a dataset, building by workers, and a paper model.

plan    EpochPlan of n samples of published sizes, arrays in memory: seconds and memory to the first global step; up to
        10**7 samples also seconds to a step in the middle of the epoch, planned from the start, and with the mark that
        a state carries, which is what a resume takes.
index   a loader's view of a manifest of n rows, with all columns: seconds and memory to open it, to plan its first
        batch and to find where its images lie. Above 10**7 rows keys and hashes repeat: see `scale_data`.
finish  the last stage of a build of n files, made up without pixels: see `scale_build`.
build   `shardkit build` of one synthetic export, with one worker and more.
archives  listing zips of many members, and a compressed tar: see `archives`.
model   hours and egress for more images on more machines: see `scale_model`, which `checks` holds against measured rows
        that it was not made from.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from benchmarks import archives, loader_data, machine
from benchmarks.drawing import lines
from benchmarks.loader import Bench
from benchmarks.results import FOLDER, Record, begin, save, spread, table
from benchmarks.scale_data import SHARD
from benchmarks.scale_model import model
from shardkit.report import Plot
from shardkit.terminal.output import say

BATCHINGS = {
    "packed": "packed:tokens=24576,patch=48",
    "binned": "binned:tokens=24576,patch=48",
    "resized": "resized:side=224,batch_size=64,patch=16",
}
RESUMED = 10**7  # samples up to which a step in the middle is asked for: all before it has to be planned

DISTINCT = 10**7  # rows up to which each has keys and hashes of its own
LIMITS = {"open_s": 10, "open_mib": 2048, "resume_s": 1, "finish_mib": 4096}
"""What each must stay below: opening 10**8 rows to the first batch; resuming in, and finishing, 10**7."""
Part = Literal["build", "archives", "finish", "index", "plan"]
PARTS: tuple[Part, ...] = ("build", "archives", "finish", "index", "plan")
SOME = 32  # steps whose mean says how many images a step has


def run(
    *,
    plan_rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**5, 10**6, 10**7, 10**8),
    index_rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**5, 10**6, 10**7, 10**8),
    finish_rows: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**5, 10**6, 10**7),
    members: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (10**4, 10**5, 10**6),
    tar_members: int = 10**4,
    tar_mb: int = 1000,
    files: int = 160,
    scale: float = 1.0,
    repeats: int = 2,
    parts: Annotated[tuple[Part, ...], Parameter(consume_multiple=True)] = PARTS,
    loader: Path = FOLDER / "loader.json",
    out: Path = FOLDER / "scale.json",
) -> None:
    """Measure what grows with the number of images, and extrapolate with a model that is checked.

    Parameters
    ----------
    plan_rows
        Samples of the plans; 4 bytes of memory each.
    index_rows
        Rows of the manifests; up to 10**7 some 200 bytes of disk each, 10**8 take 1 GB and some 5 minutes to make.
    finish_rows
        Files of the builds whose last stage is run; 10**7 take some 16 GB of disk and half an hour.
    members
        Members of the zips that are listed.
    tar_members, tar_mb
        Members of the tar.gz that is listed and read, and its size unpacked.
    files
        Files of the export that is built.
    scale
        Factor on heights and widths of its radiographs.
    repeats
        How often each build runs.
    parts
        What to measure. What is not run stays in the JSON file as it is, with the date that it has there; figures are
        written after each part.
    loader
        Figures of `benchmarks loader`, for the model.
    out
        JSON file for the figures; the plot lies beside it.
    """
    before = json.loads(out.read_text()) if out.exists() else {}
    result = before | begin((__doc__ or "").partition("\n")[0]) | {"limits": LIMITS}
    result["conditions"] = {"files": files, "scale": scale, "samples_a_shard": SHARD, "sizes": "published, repeated"}
    result["dates"] = {part: before.get("dates", {}).get(part, before["date"]) for part in PARTS if part in before}
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        bench = Bench(Path(folder), sys.executable)
        loader_data.make_files(bench.work / "export", files, scale, seed=0)
        measures: dict[str, Callable[[], Any]] = {
            "build": lambda: _builds(bench, repeats),
            "archives": lambda: archives.measured(bench, members, tar_members, tar_mb * 10**6),
            "finish": lambda: list(_finish(bench, finish_rows)),
            "index": lambda: list(_index(bench, index_rows)),
            "plan": lambda: [bench.child("scale:plan", rows, name) for rows in plan_rows for name in BATCHINGS],
        }
        if "build" not in parts and {"finish", "index"} & {*parts}:
            _build(bench, len(os.sched_getaffinity(0)), 1)  # whose rows others are made of
        for part in (name for name in PARTS if name in parts):
            result[part] = measures[part]()
            result["dates"][part] = begin("")["date"]
            save(result, out)
    result["model"] = model(result["build"], json.loads(loader.read_text()))
    save(result, out, plots)
    say(readme(result))


# --- build


def _builds(bench: Bench, repeats: int) -> list[Record]:
    """Build with each number of workers: a row each; the last dataset built stays."""
    cores = len(os.sched_getaffinity(0))
    return [_build(bench, workers, repeats) for workers in sorted({1, 2, cores // 2 or 1, cores}) if workers <= cores]


def _build(bench: Bench, workers: int, repeats: int) -> Record:
    from shardkit.dataset import contents

    built, private, used = bench.work / "built", bench.work / "private", []
    words = ["build", "--source", bench.work / "export", "--out", built, "--private", private, "--workers", workers]
    words.append("--accept-outcome")  # a small export may leave a split empty
    for _ in range(repeats):
        for folder in (built, private):
            shutil.rmtree(folder, ignore_errors=True)
        used.append(bench.measured("command", [str(word) for word in words])[0])
    facts = json.loads((built / contents.NAME).read_text())
    mpx = facts["pixels"] / 1e6
    return {
        "workers": workers,
        "images": facts["samples"],
        "mpx": mpx,
        "bytes": facts["bytes"],
        "seconds": spread(of.wall_s for of in used),
        "mpx_s": spread(mpx / of.wall_s for of in used),
        "cpu_s": spread(of.cpu_s for of in used),
        "peak_mib": spread(of.peak_pss_mib for of in used),
    }


# --- index: manifests made of the rows of the dataset built


def _index(bench: Bench, rows: tuple[int, ...]) -> Iterator[Record]:
    for count in rows:
        place = bench.work / f"index{count}"
        size = bench.child("scale_data:write_index", str(bench.work / "built"), str(place), count, count <= DISTINCT)
        bench.child("scale:open_index", str(place))  # brings it into the page cache
        yield {"rows": count, "manifest_mb": size / 1e6} | bench.child("scale:open_index", str(place))
        shutil.rmtree(place)


def open_index(place: str) -> Record:
    """Do what a loader does before its first batch: read sizes and split of all rows, plan, find where images lie."""
    from shardkit.loader.manifest_index import ManifestIndex
    from shardkit.plan import EpochPlan, from_text

    before, clock, cpu = machine.peak_of_this_process(), time.perf_counter(), time.process_time()
    catalog = ManifestIndex(place)
    samples = catalog.samples("train", boxes=False)
    opened, memory = time.perf_counter() - clock, machine.peak_of_this_process() - before
    rows = EpochPlan(samples, 0, 0, from_text(BATCHINGS["resized"]))[0][0].crops.row
    for row in rows.tolist():
        catalog.detail(row)
    batch, cpu = time.perf_counter() - clock, time.process_time() - cpu
    peak, clock = machine.peak_of_this_process() / 2**20, time.perf_counter()
    catalog.details(len(catalog.shards) // 2)
    return {
        "samples": len(samples),
        "open_s": opened,
        "first_batch_s": batch,
        "first_batch_cpu_s": cpu,
        "details_s": time.perf_counter() - clock,
        "mib": memory / 2**20,
        "peak_mib": peak,
    }


# --- finish: the last stage of a build


def _finish(bench: Bench, rows: tuple[int, ...]) -> Iterator[Record]:
    for count in rows:
        place = bench.work / f"finish{count}"
        bench.child("scale_build:make", str(bench.work / "built"), str(place), count)
        yield bench.child("scale_build:last_stage", str(place))
        shutil.rmtree(place)


# --- plan


def plan(rows: int, name: str) -> Record:
    """Plan an epoch; mib is beyond what the samples' arrays take."""
    import numpy as np

    from shardkit.dataset.bins import THESIS, Bins
    from shardkit.plan import EpochPlan, Samples, from_text
    from shardkit.plan.resuming import Mark
    from shardkit.synthetic.radiographs import synth_sizes

    drawn = synth_sizes(99_991, np.random.default_rng(0))
    height, width = (np.resize(side.astype(np.uint16), rows) for side in drawn[:2])
    samples = Samples("scale", np.append(np.arange(0, rows, SHARD), rows), height, width, Bins(THESIS, 48))
    before, clock = machine.peak_of_this_process(), time.perf_counter()
    of = EpochPlan(samples, 0, 0, from_text(BATCHINGS[name]))
    _ = of[0]
    first, peak = time.perf_counter() - clock, machine.peak_of_this_process()
    found = {"rows": rows, "batching": name, "first_step_s": first, "mib": (peak - before) / 2**20}
    if rows <= RESUMED:
        images = statistics.mean(sum(len(micro.crops) for micro in step) for step in islice(of, SOME))
        clock, middle = time.perf_counter(), int(rows / images / 2)
        planned = EpochPlan(samples, 0, 0, from_text(BATCHINGS[name]))
        _ = planned[middle]
        found["middle_step_s"] = time.perf_counter() - clock
        mark = planned.mark(middle)
        text, clock = json.dumps(None if mark is None else mark.plain()), time.perf_counter()
        resumed = EpochPlan(samples, 0, 0, from_text(BATCHINGS[name]))
        if mark is not None:
            resumed.go_on(Mark.read(json.loads(text)))
        _ = resumed[middle]
        found |= {"resume_s": time.perf_counter() - clock, "mark_bytes": len(text)}
    return found


# --- what it comes to


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    plans = {(row["rows"], row["batching"]): row for row in result["plan"]}
    index = {row["rows"]: row for row in result["index"]}
    lines = []
    for rows in dict.fromkeys(row["rows"] for row in result["plan"]):
        opened = f"{_opening(index[rows]):.1f} s, {index[rows]['mib']:,.0f} MiB" if rows in index else "–"
        of = [plans[rows, name] for name in BATCHINGS]
        steps = [f"{row['first_step_s']:.2f} s, {row['mib']:,.0f} MiB" for row in of]
        middle = [f"{row.get('resume_s', row['middle_step_s']):.1f}" if "middle_step_s" in row else "–" for row in of]
        lines.append([f"{rows:,}", opened, *steps, " / ".join(middle)])
    titles = ["images", "open the dataset", *[f"first step, {name}" for name in BATCHINGS], "resume mid-epoch, s"]
    found = result["model"]
    hours = [
        [
            f"{row['images']:,} on {row['machines']}",
            *(_hours(row[k]) for k in ("build_h", "epoch_full_h", "epoch_224_h")),
        ]
        for row in found["hours"]
    ]
    builds = ", ".join(f"{row['workers']}: {row['mpx_s']['median']:.0f} Mpx/s" for row in result["build"])
    checks = "; ".join(f"{check['what']} {check['off']:+.0%}" for check in found["checks"])
    egress = "; ".join(_dollars(row) for row in found["egress"])
    return (
        f"{table(titles, lines)}\n\n"
        f"Build by workers (on {result['machine']['cores']} cores): {builds}. A model of CPU seconds a megapixel and"
        f" bytes an image, on machines that decode on {found['assumed']['cores_a_machine']} cores:\n\n"
        + table(["images, machines", "build", "epoch at full size", "epoch at 224"], hours)
        + f"\n\nEgress at ${found['assumed']['dollars_a_gb']} a GB, {found['assumed']['epochs']} epochs: {egress}."
        f" The model against measured rows that it was not made from: {checks}."
        + (f"\n\n{archives.readme(result['archives'])}" if "archives" in result else "")
        + (f"\n\n{_finished(result)}" if "finish" in result else "")
    )


def _opening(row: Record) -> float:
    """Return the seconds to the first batch; of older figures, to the open dataset."""
    return float(row["first_batch_s"] if "first_batch_s" in row else row["open_s"])


def _finished(result: Record) -> str:
    """Say what the last stage of a build takes, and which limits are held."""
    rows = [
        [f"{row['files']:,}", f"{row['seconds']:,.0f} s", f"{row['cpu_s']:,.0f} s", f"{row['peak_mib']:,.0f} MiB"]
        for row in result["finish"]
    ]
    found = {
        "open_s": [_opening(row) for row in result["index"] if row["rows"] == 10**8],
        "open_mib": [row.get("peak_mib", row["mib"]) for row in result["index"] if row["rows"] == 10**8],
        "resume_s": [row["resume_s"] for row in result["plan"] if row["rows"] == 10**7 and "resume_s" in row],
        "finish_mib": [row["peak_mib"] for row in result["finish"] if row["files"] == 10**7],
    }
    what = {
        "open_s": "100,000,000 rows to the first batch, s",
        "open_mib": "the same, MiB",
        "resume_s": "resume amid 10,000,000, s",
        "finish_mib": "last stage of 10,000,000 files, MiB",
    }
    limits = [
        [what[name], f"{limit:,}", f"{max(found[name]):,.1f}" if found[name] else "not measured"]
        for name, limit in result["limits"].items()
    ]
    return (
        table(["files, last stage of a build", "time", "CPU time", "memory"], rows)
        + "\n\n"
        + table(["limit", "at most", "measured"], limits)
    )


def _hours(hours: float) -> str:
    """Return hours in words, minutes below an hour."""
    return f"{hours:,.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"


def _dollars(row: Record) -> str:
    return (
        f"{row['images']:,} images, {row['epoch_full_tb']:,.1f} TB: ${row['run_full_dollars']:,.0f} at full size,"
        f" ${row['run_224_dollars']:,.0f} at 224, ${row['cached_dollars']:,.0f} through a disk cache that holds all"
    )


def plots(result: Record) -> list[Plot]:
    """Return seconds and memory by number of images, on logarithmic axes."""
    found = []
    for title, of_plan, of_index, unit in (
        ("time to the first step", "first_step_s", "open_s", "seconds"),
        ("memory", "mib", "mib", "MiB"),
    ):
        series = {
            f"first step, {name}": [
                (row["rows"], spread([row[of_plan]])) for row in result["plan"] if row["batching"] == name
            ]
            for name in BATCHINGS
        }
        series["open the dataset"] = [(row["rows"], spread([row[of_index]])) for row in result["index"]]
        found.append(lines(title, series, unit=unit, across="images", log=True))
    return found
