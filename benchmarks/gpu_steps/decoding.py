"""Decoding by the loader's graph: exact to the last bit, by size, bit depth, level and images a batch; and how fast."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from benchmarks.gpu_steps import Where, need_dali
from benchmarks.results import Record
from shardkit.codecs import htj2k
from shardkit.codecs.base import LEVELS
from shardkit.errors import IntegrityError

if TYPE_CHECKING:
    from shardkit.loader.graph import Graph
    from shardkit.loader.graph_input import Prepared

SIDES = ((1, 1), (5, 3), (37, 53), (64, 64), (129, 1000), (480, 480), (1023, 767), (2991, 2430))
"""Rows and columns: odd ones, one that is all border, one that is long, and those of radiographs."""
DEPTHS = (8, 10, 12, 14, 16)
"""Bits."""
Pixels = npt.NDArray[np.uint16]


def images(depth: int, seed: int, largest: int = 1 << 30) -> list[Pixels]:
    """Draw images of one bit depth, of all sizes up to so many pixels.

    They are a ramp with noise; a board of least and greatest values, whose low-pass bands overshoot; and a constant.
    """
    draw, top = np.random.default_rng((seed, depth)), (1 << depth) - 1
    found = []
    for number, (rows, cols) in enumerate(sides for sides in SIDES if sides[0] * sides[1] <= largest):
        ramp = np.add.outer(np.linspace(0, 0.5, rows), np.linspace(0, 0.4, cols)) * top
        noise = draw.normal(0.05 * top, 0.02 * top, (rows, cols))
        board = np.where(np.add.outer(np.arange(rows) // 7, np.arange(cols) // 5) % 2, top, 0)
        kinds = (ramp + noise, board, np.full((rows, cols), top))
        found += [np.clip(kinds[at], 0, top).astype(np.uint16) for at in ((0, 1, 2) if number < 5 else (0, 1))]
    return found


def exact(where: Where) -> Record:
    """Decode made images with the graph, and compare with what OpenJPH decodes on the CPU, and that with the original.

    Returns
    -------
    dict
        cells: of every bit depth, level and number of images a batch, how many images were `equal`, how many
        `different`, by how much at most, and how many could not be decoded.
    """
    largest = 1 << 30 if where.on_gpu else 1 << 17
    depths, batches = ((12, 16), (1, 16)) if where.quick else (DEPTHS, (1, 8, 32))
    levels = (0, 1, 3) if where.quick else tuple(range(LEVELS + 1))
    graphs = {batch: _graph(where, batch) for batch in batches}
    cells, wrong, told = [], [], set[str]()
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for depth in depths:
            originals = images(depth, where.seed, largest)
            streams = list(pool.map(htj2k.encode, originals))
            for level in levels:
                known = list(pool.map(partial(_known, depth, level), streams))
                assert level or all(map(np.array_equal, known, originals))
                parts = [htj2k.standalone(data[: htj2k.prefixes(data)[level]], level) for data in streams]
                for batch, graph in graphs.items():
                    cell, sentences = _cell(graph, parts, known, depth, batch)
                    cells.append({"bits": depth, "level": level, "batch": batch, **cell})
                    told |= set(sentences)
                    if cell["different"] or cell["undecodable"]:
                        counts = f"{cell['different']} differ, {cell['undecodable']} fail"
                        wrong.append(f"{depth} bits, level {level}, {batch} a batch: {counts}")
    return {"cells": cells, "sides": SIDES, "errors": sorted(told)[:5], "wrong": wrong}


def _known(depth: int, level: int, stream: bytes) -> Pixels:
    return htj2k.decode(stream[: htj2k.prefixes(stream)[level]], level, depth)


def _cell(graph: Graph, parts: list[bytes], known: list[Pixels], depth: int, batch: int) -> tuple[Record, list[str]]:
    """Decode all images, so many at a time; an undecodable batch is tried again one by one."""
    found: Record = {"equal": 0, "different": 0, "most": 0.0, "undecodable": 0, "shapes": []}
    errors: list[str] = []

    def compare(at: range) -> None:
        for i, image in zip(at, graph.run([_prepared(parts[i], known[i].shape, depth) for i in at]), strict=True):
            off = np.abs(image.cpu().numpy()[0].astype(np.float64) - known[i])
            found["different" if off.any() else "equal"] += 1
            if off.any():
                found["most"] = max(found["most"], float(off.max()))
                found["shapes"].append(list(known[i].shape))

    for start in range(0, len(parts), batch):
        some = range(start, min(start + batch, len(parts)))
        try:
            compare(some)
        except IntegrityError as error:
            errors.append(str(error)[:300])
            for one in some:
                try:
                    compare(range(one, one + 1))
                except IntegrityError:
                    found["undecodable"] += 1
                    found["shapes"].append(list(known[one].shape))
    return found, errors


def _graph(where: Where, batch: int) -> Graph:
    from shardkit.loader.graph import Graph, GraphConfig

    need_dali()
    threads = min(len(os.sched_getaffinity(0)), 8)  # as the loader's
    return Graph(GraphConfig(0 if where.on_gpu else None, True, False, False, False, batch, threads))


def _prepared(data: bytes, size: tuple[int, int], depth: int) -> Prepared:
    """Return what the loader hands to the graph, such that its output is grey levels as they are."""
    from shardkit.loader.graph_input import Prepared

    whole = ((0.0, 0.0), (float(size[0]), float(size[1])))
    return Prepared(np.frombuffer(data, np.uint8), (1 << depth) - 1, (0, 0), size, *whole, size, size, False, 0.0, 1.0)


def speed(where: Where) -> Record:
    """Decode the dataset's own images, by bin, level and images a batch."""
    from benchmarks.gpu_decode import Grid, decode

    need_dali()
    threads = min(len(os.sched_getaffinity(0)), 8)  # as the loader's
    if where.quick or not where.on_gpu:
        grid = Grid(bins=2, levels=(0, 2), batches=(1, 32), seconds=0.4, threads=threads)
    else:
        grid = Grid(bins=2, levels=(0, 3), batches=(1, 8, 32), seconds=0.4, threads=threads)
    return {"threads": threads, "rows": decode(where.data, where.kind, grid)}
