"""How fast the loader's DALI graph decodes HTJ2K, by bin, level and images a batch: bytes in memory, nothing else runs.

It is the loader's graph, `shardkit.loader.graph.Graph`: decode, clamp, normalise; output on the device. On a
GPU that is DALI's `mixed` decoder, on a CPU its CPU decoder, where the
loader by default takes OpenJPH on threads instead.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu_programs import name_of, start
from benchmarks.results import Record
from shardkit.codecs import htj2k
from shardkit.dataset.contents import description, samples
from shardkit.dataset.rounding import halved
from shardkit.loader.graph import Graph, GraphConfig
from shardkit.loader.graph_input import Prepared
from shardkit.storage import Store

COLUMNS = ["shard", "offset", "level_bytes", "height", "width", "bits", "bin_height", "bin_width"]


@dataclass(frozen=True)
class Grid:
    """What the decoder is measured on.

    Attributes
    ----------
    bins
        How many bins, evenly by area.
    levels, batches
        Levels, and images of a batch.
    seconds
        Least time of a cell.
    threads
        Threads of the DALI graph.
    """

    bins: int
    levels: tuple[int, ...]
    batches: tuple[int, ...]
    seconds: float
    threads: int


def decode(url: str, device: str, grid: Grid) -> list[Record]:
    """Measure every bin, level and batch; returns no row for a dataset with another codec."""
    store, world = Store(url), start(device)
    if description(store).codec != "htj2k":
        return []
    found = []
    for name, rows in _bins(store, grid.bins):
        for level in (level for level in grid.levels if level < len(rows[0]["level_bytes"])):
            images = [_image(store, row, level) for row in rows[: max(grid.batches)]]
            for batch in grid.batches:
                raw = _timed(images, batch, world.device, grid)
                found.append({"device": name_of(world), "bin": name, "level": level, "batch": batch, **raw})
    return found


def _bins(store: Store, count: int) -> Iterator[tuple[str, list[Record]]]:
    """Yield names and samples of `count` bins, from the smallest to the largest."""
    by_bin: dict[tuple[int, int], list[Record]] = {}
    for row in samples(store, COLUMNS).to_pylist():
        by_bin.setdefault((row["bin_height"], row["bin_width"]), []).append(row)
    ordered = sorted(by_bin, key=lambda sides: sides[0] * sides[1])
    for at in sorted(set(np.linspace(0, len(ordered) - 1, count).astype(int).tolist())):
        yield "{:04d}x{:04d}".format(*ordered[at]), by_bin[ordered[at]]


def _image(store: Store, row: Record, level: int) -> Prepared:
    """Return what the loader's threads hand to the graph: an image's bytes up to this level, as a stream of its own."""
    data = htj2k.standalone(store.get_range(row["shard"], row["offset"], row["level_bytes"][level]), level)
    size = (halved(row["height"], level), halved(row["width"], level))
    top = (1 << row["bits"]) - 1
    whole = ((0.0, 0.0), (float(size[0]), float(size[1])))
    return Prepared(np.frombuffer(data, np.uint8), top, (0, 0), size, *whole, size, size, False, 0.0, float(top))


def _timed(images: list[Prepared], batch: int, device: torch.device, grid: Grid) -> Record:
    """Decode batches of these images in turn, after one that builds the graph."""
    number = device.index if device.type == "cuda" else None
    graph = Graph(GraphConfig(number, True, False, False, False, max_images=batch, threads=grid.threads))
    _run(graph, images, 0, batch, device)
    begun, runs, area = time.monotonic(), 0, 0
    while (seconds := time.monotonic() - begun) < grid.seconds:
        runs += 1
        area += _run(graph, images, runs * batch, batch, device)
    graph.close()
    rates = {"mpx_s": area / 1e6 / seconds, "images_s": runs * batch / seconds}
    return {"images": runs * batch, "mpx": area / 1e6, "seconds": seconds, **rates}


def _run(graph: Graph, images: list[Prepared], at: int, batch: int, device: torch.device) -> int:
    """Decode a batch, which is on the device when this returns; return its pixels."""
    chosen = [images[i % len(images)] for i in range(at, at + batch)]
    graph.run(chosen)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return sum(image.size[0] * image.size[1] for image in chosen)
