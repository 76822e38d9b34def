"""Tars of HTJ2K against Zarr arrays of Blosc: size, rates of build and loader, bytes read, and latency of one image.

The same synthetic export is built as WebDataset tars, as Zarr, and as Zarr with two smaller images beside each. Every
build is a fresh process, and so is all that is read of it; in each repeat the formats take turns.

cold        the shards' pages are dropped from this machine's page cache before (posix_fadvise), the disk's own caches
            are not; warm: the epoch after. Both follow one in which graph and threads are made.
224         Resized(224, level="auto"): the smallest level that covers the image and is stored.
one image   random images one by one, pages cached: `shardkit` reads by the manifest's offset, checks the hash and
            decodes; `zarr` is `zarr.open_group(url)[bin]["pixels"][i]`, which reads the shard's index each time.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drawing import bars
from benchmarks.loader_data import make_files
from benchmarks.results import FOLDER, ROOT, Record, begin, save, spread, table
from shardkit.report import Plot
from shardkit.terminal.output import Terminal

FORMATS = {
    "tar": ("tars, HTJ2K", ["--format", "webdataset"]),
    "zarr": ("Zarr", ["--format", "zarr"]),
    "zarr2": ("Zarr, 2 levels", ["--format", "zarr", "--levels", "2"]),
}
LIBRARIES = ("shardkit", "numpy", "torch", "nvidia-dali-cuda130", "imagecodecs", "zarr", "numcodecs", "obstore")
TOKENS, PATCH, SIDE = 8192, 48, 224
ROWS = {  # figure: its title, its digits
    "build_mpx_s": ("build, Mpx/s", 1),
    "stored_mb": ("stored, MB", 0),
    "full_cold_mpx_s": ("full size, cold, Mpx/s", 0),
    "full_warm_mpx_s": ("full size, warm, Mpx/s", 0),
    "full_mb": ("full size, MB read", 0),
    "small_cold_images_s": ("224 pixels, cold, images/s", 0),
    "small_warm_images_s": ("224 pixels, warm, images/s", 0),
    "small_mb": ("224 pixels, MB read", 1),
    "one_p50_ms": ("one image, shardkit, median ms", 1),
    "one_p95_ms": ("one image, shardkit, 95th percentile ms", 1),
    "zarr_p50_ms": ("one image, zarr, median ms", 1),
    "zarr_p95_ms": ("one image, zarr, 95th percentile ms", 1),
}


def run(
    *,
    files: int = 160,
    repeats: int = 3,
    scale: float = 1.0,
    seed: int = 0,
    shard_mib: int = 64,
    images: int = 60,
    out: Path = FOLDER / "zarr.json",
) -> None:
    """Build the same radiographs as tars and as Zarr, load both, and read single images.

    Parameters
    ----------
    files
        Files the synthetic export holds at least.
    repeats
        How often everything runs.
    scale
        Factor on heights and widths of the radiographs; 1 is full size.
    seed
        Seed of the export, and of the images that are read one by one.
    shard_mib
        Size aimed at for a shard.
    images
        Single images to read.
    out
        JSON file for the figures, with a plot of the same name beside it.
    """
    result = begin((__doc__ or "").partition("\n")[0], LIBRARIES)
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        work = Path(folder)
        make_files(work / "export", files, scale, seed)
        _build(work, "tar", shard_mib)  # unmeasured: leaves the export in the page cache
        result["repeats"] = [
            {name: _measured(work, name, shard_mib, images, seed) for name in _turn(number)}
            for number in range(repeats)
        ]
        result["conditions"] = {"files": files, "scale": scale, "seed": seed, "shard_mib": shard_mib, "images": images}
        result["conditions"] |= _conditions(work)
    result["summary"] = summarise(result["repeats"])
    save(result, out, plots)
    Terminal(width=120).print(readme(result), highlight=False)


def _turn(number: int) -> list[str]:
    names = list(FORMATS)
    return names[number % 3 :] + names[: number % 3]


def _conditions(work: Path) -> Record:
    facts = json.loads((work / "tar" / "dataset.json").read_text())
    return {
        "samples": facts["samples"],
        "mpx": facts["pixels"] / 1e6,
        "bins": len(facts["bins"]),
        "padding": facts["padded_tokens"] / facts["tokens"],
        "batching": f"packed:tokens={TOKENS},patch={PATCH}; resized:side={SIDE},level=auto,batch_size=32",
        "raw_mb": facts["pixels"] * 2 / 1e6,
    }


# --- one format, once


def _measured(work: Path, name: str, shard_mib: int, images: int, seed: int) -> Record:
    seconds = _build(work, name, shard_mib)
    facts = json.loads((work / name / "dataset.json").read_text())
    figures = {
        "build_mpx_s": facts["pixels"] / 1e6 / seconds,
        "stored_mb": sum(path.stat().st_size for path in _shards(work / name)) / 1e6,
    }
    return figures | _child(work / name, images, seed)


def _build(work: Path, name: str, shard_mib: int) -> float:
    """Run the command; return its seconds."""
    for place in (work / name, work / f"{name}.private"):
        shutil.rmtree(place, ignore_errors=True)
    words = ["--source", work / "export", "--out", work / name, "--shard-size", shard_mib, *FORMATS[name][1]]
    words.append("--accept-outcome")
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", "build", *map(str, words)]
    begun = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - begun


def _shards(place: Path) -> list[Path]:
    """Return the files of the objects that hold images."""
    from shardkit.dataset import contents
    from shardkit.formats import form_of, listing
    from shardkit.storage import Store

    store = Store(str(place))
    return [place / name for name, _ in listing(store, form_of(contents.description(store)))]


def _drop(place: Path) -> None:
    """Take the shards out of the page cache; what is dirty is written first, or it would stay."""
    for path in _shards(place):
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _child(place: Path, images: int, seed: int) -> Record:
    """Run `measure` in a fresh process; its last line is its result."""
    script = "import json, sys; from benchmarks import zarr; print(json.dumps(zarr.measure(*json.loads(sys.argv[1]))))"
    words = [sys.executable, "-c", script, json.dumps([str(place), images, seed])]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    return dict(json.loads(done.stdout.splitlines()[-1]))


# --- what the child process runs


def measure(place: str, images: int, seed: int) -> Record:
    """Measure all figures of a dataset but those of its making."""
    return {**_epochs(place, "full"), **_epochs(place, "small"), **_latencies(place, images, seed)}


def _epochs(place: str, task: str) -> Record:
    """Run epochs of a task: one whose pages were dropped before, and the one after; count bytes read in one."""
    import nvidia.dali.fn  # noqa: F401 - imports are outside the time

    from shardkit import Loader, Packed, Resized

    batching = Packed(tokens=TOKENS, patch=PATCH, per_step=1)
    small = Resized(SIDE, batch_size=32, level="auto", per_step=1)
    loader = Loader(place, batching=batching if task == "full" else small, split=None, device="cpu")
    height, width = (loader._index.columns("height", "width")[name].to_numpy() for name in ("height", "width"))
    figures: Record = {}
    for pages in ("first", "cold", "warm"):
        if pages == "cold":
            _drop(Path(place))
        begun, before, pixels, count = time.perf_counter(), loader.stats()["read_bytes"], 0, 0
        for batch in loader:
            rows = batch.rows[batch.weight > 0].numpy()
            pixels += int((height[rows].astype(np.int64) * width[rows]).sum())
            count += len(rows)
        seconds = time.perf_counter() - begun
        if pages != "first":  # in that, graph and threads are made
            rate = pixels / 1e6 / seconds if task == "full" else count / seconds
            figures[f"{task}_{pages}_{'mpx_s' if task == 'full' else 'images_s'}"] = rate
        figures[f"{task}_mb"] = (loader.stats()["read_bytes"] - before) / 1e6
    return figures


def _latencies(place: str, images: int, seed: int) -> Record:
    """Read random images one by one, in ms: by the manifest, and by plain zarr where there are arrays."""
    from shardkit.dataset import contents
    from shardkit.storage import Store

    store = Store(place)
    facts, rows = contents.description(store), contents.samples(store).to_pylist()
    chosen = [rows[i] for i in np.random.default_rng(seed).integers(0, len(rows), images)]
    figures = _quantiles("one", (partial(contents.image, store, row, facts) for row in chosen))
    if facts.codec == "blosc":
        figures |= _quantiles("zarr", _plain(place, chosen))
    return figures


def _plain(place: str, rows: list[Record]) -> Iterator[Callable[[], object]]:
    import zarr

    root: Any = zarr.open_group(place, mode="r")
    arrays = {name: (group["pixels"], group["key"][:].tolist()) for name, group in root.groups()}
    for row in rows:
        pixels, keys = arrays[row["shard"].partition("/")[0]]
        yield partial(pixels.__getitem__, keys.index(row["key"]))


def _quantiles(name: str, jobs: Iterator[Callable[[], object]]) -> Record:
    took = []
    for job in jobs:
        begun = time.perf_counter()
        job()
        took.append(1e3 * (time.perf_counter() - begun))
    half, most = np.quantile(took[1:], [0.5, 0.95])  # without the first, which loads libraries
    return {f"{name}_p50_ms": float(half), f"{name}_p95_ms": float(most)}


# --- what is said of it


def summarise(repeats: list[Record]) -> Record:
    """Return the spread of every figure by format, and of its ratio to that of tars in the same repeat."""
    figures: Record = {}
    ratios: Record = {}
    for name in FORMATS:
        there = [figure for figure in ROWS if all(figure in repeat[name] for repeat in repeats)]
        figures[name] = {figure: spread(repeat[name][figure] for repeat in repeats) for figure in there}
        ratios[name] = {
            figure: spread(repeat[name][figure] / repeat["tar"][figure] for repeat in repeats)
            for figure in there
            if all(figure in repeat["tar"] for repeat in repeats)
        }
    return {"figures": figures, "ratios": ratios}


def readme(result: Record) -> str:
    """Return the table, and what follows from it, as Markdown."""
    facts, summary, of = result["conditions"], result["summary"]["figures"], result["machine"]
    ratio = result["summary"]["ratios"]
    rows = [
        [title, *(_cell(summary[name].get(figure), digits) for name in FORMATS)]
        for figure, (title, digits) in ROWS.items()
    ]
    size, small, full = (
        ratio["zarr"]["stored_mb"]["median"],
        ratio["zarr"]["small_mb"],
        ratio["zarr"]["full_warm_mpx_s"],
    )
    halves = ratio["zarr2"]
    return (
        f"{facts['samples']:,} synthetic radiographs, {facts['mpx']:,.0f} Mpx ({facts['raw_mb']:,.0f} MB raw), in"
        f" {facts['bins']} bins; local disk, {of['cores']} cores of an {of['cpu']}; medians of"
        f" {len(result['repeats'])} repeats in one run:\n\n"
        + table(["", *(title for title, _ in FORMATS.values())], rows)
        + f"\n\nZarr takes **{size:.2f}** times the bytes of tars and loads at **{full['median']:.1f}** times their"
        f" rate at full size, pages cached ({full['min']:.1f} to {full['max']:.1f} by the repeat). At {SIDE} pixels it"
        f" reads **{small['median']:.0f}** times the bytes of an HTJ2K prefix, with two levels beside"
        f" **{halves['small_mb']['median']:.1f}** times, for {halves['stored_mb']['median']:.2f} times the storage."
    )


def _cell(found: Record | None, digits: int) -> str:
    return "–" if found is None else f"{found['median']:,.{digits}f}"


def plots(result: Record) -> list[Plot]:
    """Rates and bytes of the Zarr formats in multiples of tars', with their spread over the repeats."""
    ratios = result["summary"]["ratios"]
    shown = [figure for figure in ROWS if figure in ratios["zarr"]]
    series = {FORMATS[name][0]: [ratios[name][row] for row in shown] for name in ("zarr", "zarr2")}
    names = [ROWS[row][0] for row in shown]
    unit = "in multiples of tars of HTJ2K, logarithmic"
    return [bars("Zarr and tars", names, series, unit=unit, log=True, level=1)]
