"""The published situation staged again: radiographs read over a slow mount, and what shards change about it.

A thesis trained on DICOM behind a NAS at 7 images a second (and measured 1,000 files on one thread: 170 s from the NAS,
6.1 s from a local disk). Here, over one wire of a given latency (each way) and rate:

dicom, NAS      a DataLoader with a worker a core over the DICOM files of a real mount (sshfs), as in `peers.dicom`.
shards, NAS     `shardkit.Loader` over the same mount.
shards, S3      the same from a bucket on a gateway behind the same wire.
shards, cache   the second epoch of a loader whose disk cache the first has filled: no wire in it.
shards, disk; dicom, disk
                local files, in the page cache.

Tasks as in `loader`: every image at full size, or 224 x 224 pixels. Stages are seconds added up over threads, so that
they exceed the time that passed where they overlap; those of DICOM come from one thread that does one after the other.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from benchmarks import loader_data
from benchmarks.drawing import bars
from benchmarks.loader import TASKS, Bench, measure
from benchmarks.loader_data import Data, Source
from benchmarks.loader_programs import LIBRARIES, LONGEST_S, open_loader
from benchmarks.loader_summary import Name
from benchmarks.results import FOLDER, Record, begin, save, spread, table
from shardkit.report import Plot
from shardkit.terminal.output import say

LATENCIES_MS, RATES_GBIT = (0.2, 1.0, 5.0), (1.0, 10.0)
DICOM, SHARDS = Name("dicom", "dicom", "", ""), Name("shardkit", "", "", "")
FIGURES = ("samples_s", "mpx_s", "read_mb_s", "seconds", "cpu_s", "machine_cpu_s")
STAGES = ("wait_s", "fetch_s", "decode_s", "graph_s", "assemble_s")
PUBLISHED = {"NAS": 170.0, "disk": 6.1}  # seconds for 1,000 DICOM files on one thread, in the thesis' repository


def run(
    *,
    files: int = 60,
    repeats: int = 2,
    scale: float = 1.0,
    seed: int = 0,
    latency_ms: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = LATENCIES_MS,
    gbit: Annotated[tuple[float, ...], Parameter(consume_multiple=True)] = RATES_GBIT,
    tasks: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = TASKS,
    rgw: Path | None = None,
    out: Path = FOLDER / "nas-baseline.json",
) -> None:
    """Stage the published NAS, and read the same radiographs as shards over the same wire.

    Parameters
    ----------
    files
        Files the synthetic export holds at least.
    repeats
        How often every program runs.
    scale
        Factor on heights and widths of the radiographs; 1 is full size.
    seed
        Seed of the export.
    latency_ms
        Latencies of the wire, each way.
    gbit
        Rates of the wire.
    tasks
        full, 224 or both.
    rgw
        Script that starts a Ceph gateway, as for `benchmarks loader`. Default: moto, whose rates say nothing.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder, ExitStack() as stack:
        bench = Bench(Path(folder), sys.executable)
        result = begin((__doc__ or "").partition("\n")[0], LIBRARIES)
        data = loader_data.make(bench.data, files, scale, seed, 32, ["dicom"], bench.child)
        data = replace(data, formats={pair: data.formats[pair] for pair in (("shardkit", ""), ("dicom", "dicom"))})
        gateway = stack.enter_context(loader_data.bucket(data, bench.work, rgw))
        wires = [(latency, rate) for rate in gbit for latency in latency_ms]
        result["conditions"] = {
            "files": files,
            "scale": scale,
            "seed": seed,
            "images": len(data.samples),
            "mpx": data.mpx(),
            "bytes": {folder: data.bytes(folder) for folder in data.formats.values()},
            "caches": "the mount's are dropped before each program; server's page cache and gateway are warm",
            "published": {"what": "1,000 DICOM files on one thread, seconds", **PUBLISHED},
            "s3": gateway.where,
            "wires": [{"latency_ms": latency, "gbit": rate} for latency, rate in wires],
        }
        result["repeats"] = [_repeat(wires, tasks, gateway, data, bench) for _ in range(repeats)]
        result["summary"] = summarise(result)
    save(result, out, plots)
    say(readme(result))


def _repeat(
    wires: list[tuple[float, float]], tasks: tuple[str, ...], gateway: Source, data: Data, bench: Bench
) -> Record:
    disk = loader_data.disk(data)
    rows = [_row(name, disk, task, data, bench) for name in (DICOM, SHARDS) for task in tasks]
    rows += [_cached(gateway, data, bench)]
    stages = [_stages(disk, data, bench, {"name": "disk"})]
    for latency, rate in wires:
        wire = {"latency_ms": latency, "gbit": rate}
        with loader_data.nas(data, bench.work, latency, rate) as mount:
            rows += [_row(name, mount, task, data, bench) | wire for name in (DICOM, SHARDS) for task in tasks]
            stages.append(_stages(mount, data, bench, {"name": "NAS"} | wire))
        with loader_data.wired(gateway, latency, rate) as behind:
            rows += [_row(SHARDS, behind, task, data, bench) | wire for task in tasks]
    return {"rows": rows, "dicom_stages": stages}


def _row(program: Name, source: Source, task: str, data: Data, bench: Bench) -> Record:
    name = replace(program, source=source.name, task=task)
    found = measure(name, source, data, bench)
    stages = {stage: found["stats"][stage] for stage in STAGES} if "stats" in found else {}
    row: Record = name.fields() | {figure: found[figure] for figure in FIGURES} | {"stages_s": stages}
    return row


def _cached(gateway: Source, data: Data, bench: Bench) -> Record:
    """Measure the second epoch through a disk cache, at full size."""
    job = {"place": gateway.place("shardkit"), "bytes": 2 * data.bytes("shardkit"), "scratch": bench.work / "cache"}
    found = bench.child("nas_baseline:second_epoch", job, environment=gateway.environment)
    rates = {"samples_s": found["images"] / found["seconds"], "mpx_s": data.mpx() / found["seconds"]}
    row: Record = replace(SHARDS, variant="cache", source="cache", task="full").fields() | found | rates
    return row


def _stages(source: Source, data: Data, bench: Bench, of: Record) -> Record:
    source.forget()
    job = {"root": source.place("export")["root"], "files": data.files("export")}
    found: Record = bench.child("nas_baseline:one_thread", job, environment=source.environment)
    return of | found


# --- in a child process


def second_epoch(job: Record) -> Record:
    """Return the figures of a second epoch; the first has filled the cache."""
    signal.alarm(LONGEST_S)
    loader = open_loader({"task": "full", "place": job["place"]}, cache=job["scratch"], cache_bytes=job["bytes"])
    for _ in loader:
        pass
    before, clock, images = loader.stats(), time.perf_counter(), 0
    for batch in loader:
        images += int(batch.weight.sum())
    seconds, after = time.perf_counter() - clock, loader.stats()
    filled = after["cache"]["filled_bytes"] - before["cache"]["filled_bytes"]
    stages = {stage: after[stage] - before[stage] for stage in STAGES}
    return {"images": images, "seconds": seconds, "read_mb_s": filled / seconds / 1e6, "stages_s": stages}


def one_thread(job: Record) -> Record:
    """Time reading, decoding and normalising DICOM files one after another, as the thesis timed its NAS."""
    from benchmarks.peers.work import Work, normalised

    signal.alarm(LONGEST_S)
    import pydicom.pixels  # noqa: F401 - not part of the time

    work, spent = Work("dicom", "full"), {"read_s": 0.0, "decode_s": 0.0, "normalise_s": 0.0}
    normalised(work.decoded(Path(job["root"], job["files"][0]).read_bytes()), 0, 1)  # libraries load with the first
    for file in job["files"]:
        clock = [time.perf_counter()]
        data = Path(job["root"], file).read_bytes()
        clock.append(time.perf_counter())
        pixels = work.decoded(data)
        clock.append(time.perf_counter())
        normalised(pixels, 0, max(int(pixels.max()), 1))
        clock.append(time.perf_counter())
        for stage, start, end in zip(spent, clock[:-1], clock[1:], strict=True):
            spent[stage] += end - start
    return {"files": len(job["files"]), "seconds": sum(spent.values()), **spent}


# --- what it comes to


def summarise(result: Record) -> Record:
    """Return spreads of each row, and the best of shards in multiples of DICOM over the mount, by wire and task."""
    repeats = result["repeats"]
    rows = []
    for same in zip(*(repeat["rows"] for repeat in repeats), strict=True):
        of = {name: same[0].get(name) for name in ("program", "source", "task", "latency_ms", "gbit")}
        stages = {stage: spread(row["stages_s"][stage] for row in same) for stage in same[0]["stages_s"]}
        rates = {name: spread(row[name] for row in same) for name in FIGURES if name in same[0]}
        rows.append(of | rates | {"stages_s": stages})
    singles = []
    for same in zip(*(repeat["dicom_stages"] for repeat in repeats), strict=True):
        times = ("seconds", "read_s", "decode_s", "normalise_s")
        singles.append(same[0] | {name: spread(one[name] for one in same) for name in times})
    return {"rows": rows, "dicom_stages": singles, "ratios": [_ratio(row, rows) for row in rows if _is_nas(row)]}


def _is_nas(row: Record) -> bool:
    return (row["program"], row["source"]) == ("dicom", "nas")


def _ratio(dicom: Record, rows: list[Record]) -> Record:
    """Return medians of shards over the same wire, in multiples of DICOM over the mount."""
    where = {name: dicom[name] for name in ("task", "latency_ms", "gbit")}
    same = [r for r in rows if r["program"] == "shardkit" and all(r[name] == where[name] for name in where)]
    return where | {row["source"]: row["mpx_s"]["median"] / dicom["mpx_s"]["median"] for row in same}


LINES = {
    ("dicom", "nas"): "DICOM files, NAS",
    ("shardkit", "nas"): "shards, NAS",
    ("shardkit", "s3"): "shards, S3",
    ("dicom", "disk"): "DICOM files, local disk",
    ("shardkit", "cache"): "shards, disk cache, second epoch",
    ("shardkit", "disk"): "shards, local disk",
}


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    facts, summary = result["conditions"], result["summary"]
    wires = [(wire["latency_ms"], wire["gbit"]) for wire in facts["wires"]]
    text = []
    for task, title in {"full": "full size, Mpx/s", "224": "224 pixels, images/s"}.items():
        if not any(row["task"] == task for row in summary["rows"]):
            continue
        lines = [[words, *_cells(summary["rows"], key, task, wires)] for key, words in LINES.items()]
        heads = [f"{latency:g} ms, {rate:g} Gbit/s" for latency, rate in wires]
        text.append(table([title, *heads], [line for line in lines if any(cell != "–" for cell in line[1:])]))
    ratios = [r for r in summary["ratios"] if r["task"] == "full"]
    low, high = (pick(max(r["nas"], r["s3"]) for r in ratios) for pick in (min, max))
    disk, *mounts = summary["dicom_stages"]
    slower = [one["seconds"]["median"] / disk["seconds"]["median"] for one in mounts]
    waiting = [one["read_s"]["median"] / one["seconds"]["median"] for one in mounts]
    waits = f"{min(waiting):.0%} to {max(waiting):.0%}"
    least, most = min(slower), max(slower)
    text += [_dicom_stages(summary["dicom_stages"]), _shard_stages(summary["rows"], facts["images"])]
    return (
        f"{facts['images']} synthetic radiographs, {facts['mpx']:,.0f} Mpx: {facts['bytes']['export'] / 1e6:,.0f} MB of"
        f" DICOM, {facts['bytes']['shardkit'] / 1e6:,.0f} MB of shards; {result['machine']['cores']} cores of an"
        f" {result['machine']['cpu']}, which servers and wire share; latency each way; medians of"
        f" {len(result['repeats'])} repeats. S3: {facts['s3']}, behind the same wire.\n\n"
        + "\n\n".join(text)
        + f"\n\nAt full size shards give {low:.1f} to {high:.1f} times the pixels of DICOM over the same wire. One"
        f" thread that reads, decodes and normalises DICOM takes {least:.1f} to {most:.1f} times as long as from the"
        f" disk (in the thesis {PUBLISHED['NAS'] / PUBLISHED['disk']:.0f} times), and waits for {waits} of that time."
    )


def _dicom_stages(singles: list[Record]) -> str:
    lines = []
    for one in singles:
        where = one["name"] + (f", {one['latency_ms']:g} ms, {one['gbit']:g} Gbit/s" if "gbit" in one else "")
        times = (one[name]["median"] / one["files"] for name in ("read_s", "decode_s", "normalise_s"))
        lines.append([where, *(f"{1e3 * seconds:.1f}" for seconds in times)])
    return table(["one thread over DICOM, ms a file", "read", "decode", "normalise"], lines)


def _shard_stages(rows: list[Record], images: int) -> str:
    lines = []
    for row in (row for row in rows if row["program"] == "shardkit" and row["task"] == "full"):
        where = LINES["shardkit", row["source"]]
        where += f", {row['latency_ms']:g} ms, {row['gbit']:g} Gbit/s" if row.get("gbit") else ""
        lines.append([where, *(f"{1e3 * row['stages_s'][stage]['median'] / images:.1f}" for stage in STAGES)])
    titles = [stage.removesuffix("_s") for stage in STAGES]
    return table(["shards at full size, ms an image, threads added up", *titles], lines)


def _cells(rows: list[Record], key: tuple[str, str], task: str, wires: list[tuple[float, float]]) -> list[str]:
    """Return a cell a wire; the same in all where there is none."""
    figure, digits = ("mpx_s", 1) if task == "full" else ("samples_s", 0)
    of = _by_wire(rows, key, task, wires)
    return [f"{row[figure]['median']:,.{digits}f}" if row else "–" for row in of]


def _by_wire(
    rows: list[Record], key: tuple[str, str], task: str, wires: list[tuple[float, float]]
) -> list[Record | None]:
    found = {(r["latency_ms"], r["gbit"]): r for r in rows if (r["program"], r["source"], r["task"]) == (*key, task)}
    return [found.get(wire, found.get((None, None))) for wire in wires]


def plots(result: Record) -> list[Plot]:
    """Return rates of DICOM and of shards by wire, at full size and at 224 pixels, as far as these were measured."""
    rows, wires = result["summary"]["rows"], result["conditions"]["wires"]
    names = [f"{wire['latency_ms']:g} ms, {wire['gbit']:g} Gbit/s" for wire in wires]
    found = []
    for task, title, unit, name in (
        ("full", "full size", "Mpx/s", "mpx_s"),
        ("224", "224 pixels", "images/s", "samples_s"),
    ):
        series = {}
        for key, label in LINES.items():
            of = _by_wire(rows, key, task, [(wire["latency_ms"], wire["gbit"]) for wire in wires])
            if any(of):
                series[label] = [row[name] if row else None for row in of]
        if series:
            found.append(bars(title, names, series, unit=unit))
    return found
