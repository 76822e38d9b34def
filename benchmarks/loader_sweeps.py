"""How the loader's rate and the bytes it reads move with resolution level, world size, cache and threads.

One synthetic dataset; every row is a fresh process that reads whole epochs at native proportions, packed, in float32.
images/s and Mpx/s count pixels as stored, decoded Mpx/s those of the level that is streamed. Rows:

level       0 to 4, each with its own share of the bytes.
world size  1 to 8 ranks at once, each a process with one thread: what a rank reads (egress), and the rate of all.
            All ranks share this machine's cores, so that the rate says what ranks cost, not what machines add.
cache       the first epoch through an empty disk cache, and the second, which reads nothing but it.
threads     that decode, 1 to twice the cores.

Loader limit, model limit and both joined are in `gpu-utilization`; limits of decoding and reading in `loader`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from benchmarks import loader_data
from benchmarks.drawing import lines
from benchmarks.loader import Bench
from benchmarks.loader_programs import LIBRARIES, LONGEST_S, PATCH, TOKENS, url_of
from benchmarks.results import FOLDER, Record, begin, save, spread, table
from shardkit.report import Plot
from shardkit.terminal.output import say

LEVELS, WORLDS = (0, 1, 2, 3, 4), (1, 2, 4, 8)
PER_STEP = 8  # micro-batches of a global step: the same plan for every world size
FIGURES = ("images_s", "mpx_s", "decoded_mpx_s", "read_mb", "seconds")
LABELS = {"level": "level {}", "world": "{} ranks", "cache": "cache, {}", "threads": "{} threads"}


def run(
    *,
    files: int = 120,
    repeats: int = 2,
    scale: float = 1.0,
    seed: int = 0,
    shard_mib: int = 32,
    levels: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = LEVELS,
    worlds: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = WORLDS,
    threads: Annotated[tuple[int, ...] | None, Parameter(consume_multiple=True)] = None,
    sources: Annotated[tuple[Literal["disk", "s3"], ...], Parameter(consume_multiple=True)] = ("disk", "s3"),
    rgw: Path | None = None,
    out: Path = FOLDER / "loader-sweeps.json",
) -> None:
    """Sweep level, world size, cache and threads of the loader, from a disk and from a bucket.

    Parameters
    ----------
    files
        Files the synthetic export holds at least.
    repeats
        How often every row runs.
    scale
        Factor on heights and widths of the radiographs; 1 is full size.
    seed
        Seed of the export.
    shard_mib
        Size aimed at for a shard.
    levels
        Resolution levels.
    worlds
        World sizes, divisors of 8.
    threads
        Numbers of decoding threads; default one, one a core, two a core.
    sources
        Where the data lie.
    rgw
        Script that starts a Ceph gateway, as for `benchmarks loader`. Default: moto, whose rates say nothing.
    out
        JSON file for the figures; the plot lies beside it.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder, ExitStack() as stack:
        bench = Bench(Path(folder), sys.executable)
        result = begin((__doc__ or "").partition("\n")[0], LIBRARIES)
        data = loader_data.make(bench.data, files, scale, seed, shard_mib, [], bench.child)
        opened = {"disk": loader_data.disk(data)}
        if "s3" in sources:
            opened["s3"] = stack.enter_context(loader_data.bucket(data, bench.work, rgw))
        opened = {name: opened[name] for name in sources}
        result["conditions"] = {
            "files": files,
            "scale": scale,
            "seed": seed,
            "images": len(data.samples),
            "mpx": data.mpx(),
            "bytes": sum(sample["level_bytes"][0] for sample in data.samples),
            "batches": f"packs of {TOKENS} patches of {PATCH} pixels at level 0",
            "sources": {name: source.where for name, source in opened.items()},
        }
        cores = len(os.sched_getaffinity(0))
        sweeps = {"level": levels, "world": worlds, "cache": (2,)}
        sweeps["threads"] = threads if threads is not None else tuple(sorted({1, cores, 2 * cores}))
        jobs = [(name, kind, value) for name in opened for kind, values in sweeps.items() for value in values]
        result["repeats"] = [
            [row for name, kind, value in jobs for row in _measure(kind, value, opened[name], data, bench)]
            for _ in range(repeats)
        ]
    result["summary"] = summarise(result)
    save(result, out, plots)
    say(readme(result))


def _measure(kind: str, value: int, source: Any, data: Any, bench: Bench) -> list[Record]:
    """Measure a row, or for the cache a row an epoch; raise RuntimeError unless every image came once an epoch."""
    cores = len(os.sched_getaffinity(0))
    level, world = (value if kind == "level" else 0), (value if kind == "world" else 1)
    scratch = bench.work / "scratch"
    job = {
        "place": source.place("shardkit"),
        "level": level,
        "world_size": world,
        "epochs": value if kind == "cache" else 1,
        "cache": str(scratch) if kind == "cache" else None,
        "cache_bytes": 2 * data.bytes("shardkit"),
        "threads": 1 if kind == "world" else value if kind == "threads" else cores,
    }
    ranks = bench.child("loader_sweeps:ranks", job, environment=source.environment)
    shutil.rmtree(scratch, ignore_errors=True)
    rows = []
    for epoch in range(job["epochs"]):
        of = [rank[epoch] for rank in ranks]
        images = sum(rank["images"] for rank in of)
        if images != len(data.samples):
            raise RuntimeError(f"{kind} {value}: {images} of {len(data.samples)} images came")
        seconds = max(rank["ended"] for rank in of) - min(rank["began"] for rank in of)
        read = [rank["read_bytes"] / 1e6 for rank in of]
        rows.append(
            {
                "source": source.name,
                "kind": kind,
                "value": ("cold", "warm")[epoch] if kind == "cache" else value,
                "seconds": seconds,
                "images_s": images / seconds,
                "mpx_s": data.mpx() / seconds,
                "decoded_mpx_s": sum(rank["decoded_mpx"] for rank in of) / seconds,
                "read_mb": sum(read),
                "read_mb_by_rank": {"mean": sum(read) / len(read), "most": max(read)},
            }
        )
    return rows


# --- in a child process


_barrier: Any = None


def ranks(job: Record) -> list[list[Record]]:
    """Return figures by rank and epoch; all ranks begin together."""
    signal.alarm(LONGEST_S)
    context = multiprocessing.get_context("spawn")
    barrier, count = context.Barrier(job["world_size"]), job["world_size"]
    with ProcessPoolExecutor(count, context, _begin, (barrier,)) as pool:
        return list(pool.map(_rank, [job] * count, range(count)))


def _begin(barrier: Any) -> None:
    global _barrier
    _barrier = barrier


def _rank(job: Record, rank: int) -> list[Record]:
    import torch

    from shardkit import Loader, Packed

    torch.set_num_threads(1)
    level = job["level"]
    loader = Loader(
        url_of(job),
        batching=Packed(tokens=TOKENS, patch=PATCH >> level, level=level, per_step=PER_STEP),
        split=None,
        device="cpu",
        rank=rank,
        world_size=job["world_size"],
        threads=job["threads"],
        cache=job["cache"],
        cache_bytes=job["cache_bytes"] if job["cache"] else None,
    )
    _barrier.wait()
    return [_epoch(loader) for _ in range(job["epochs"])]


def _epoch(loader: Any) -> Record:
    """Run an epoch; return wall-clock times, which all ranks share, and counts of this epoch alone."""
    before, began, images, pixels = loader.stats(), time.time(), 0, 0
    for batch in loader:
        images += int(batch.weight.sum())
        pixels += int(batch.hw.prod(1).sum())
    ended, after = time.time(), loader.stats()
    filled = after["cache"]["filled_bytes"] - before["cache"]["filled_bytes"]
    read = filled if after["cache"]["filled_bytes"] else after["read_bytes"] - before["read_bytes"]
    return {"began": began, "ended": ended, "images": images, "decoded_mpx": pixels / 1e6, "read_bytes": read}


# --- what it comes to


def summarise(result: Record) -> list[Record]:
    """Return the spread of each row's figures over the repeats."""
    rows = []
    for same in zip(*result["repeats"], strict=True):
        of = {name: same[0][name] for name in ("source", "kind", "value", "read_mb_by_rank")}
        rows.append(of | {name: spread(row[name] for row in same) for name in FIGURES})
    return rows


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    facts, rows = result["conditions"], result["summary"]
    by = {(row["source"], row["kind"], row["value"]): row for row in rows}
    sources = list(facts["sources"])
    names = {"disk": "disk", "s3": "S3"}
    lines = []
    for kind, value in dict.fromkeys((row["kind"], row["value"]) for row in rows):
        of = [by[source, kind, value] for source in sources]
        rates = [f"{row['images_s']['median']:,.1f} / {row['decoded_mpx_s']['median']:,.0f}" for row in of]
        share = of[-1]["read_mb"]["median"] * 1e6 / facts["bytes"]
        most = of[-1]["read_mb_by_rank"]["most"] * 1e6 / facts["bytes"]
        lines.append(
            [
                LABELS[kind].format(value).replace("1 ranks", "1 rank").replace("1 threads", "1 thread"),
                *rates,
                f"{share:.3f}",
                f"{most:.3f}",
            ]
        )
    titles = ["", *[f"{names[s]}: images/s / Mpx/s decoded" for s in sources], "read / all bytes", "most of a rank"]
    return (
        f"{facts['images']} synthetic radiographs, {facts['mpx']:,.0f} Mpx, {facts['bytes'] / 1e6:,.0f} MB; packed,"
        f" float32; {result['machine']['cores']} cores of an {result['machine']['cpu']}, medians of"
        f" {len(result['repeats'])} repeats. S3: {facts['sources'].get('s3', '–')}.\n\n" + table(titles, lines)
    )


def plots(result: Record) -> list[Plot]:
    """Draw a plot a sweep that was measured: images/s by source."""
    titles = {
        "level": "resolution level",
        "world": "ranks, one thread each",
        "cache": "disk cache",
        "threads": "threads",
    }
    found = []
    for kind, title in titles.items():
        series = {
            source: [
                (str(row["value"]), row["images_s"])
                for row in result["summary"]
                if (row["source"], row["kind"]) == (source, kind)
            ]
            for source in result["conditions"]["sources"]
        }
        if any(series.values()):
            found.append(lines(f"by {title}", series, unit="images/s", across=title))
    return found
