"""How busy a GPU is in training: what its model can do, what the loader can do, and what both do together.

In every repeat each batching of a recipe runs in a process of its own, over the same images, an epoch of them at least:

model   limit: the trainer's loop, loss and optimiser included, on batches of the epoch's plan held in memory.
loader  limit: the same epoch from `shardkit.Loader`, batches on the device, with no model.
joint   the trainer's loop on the loader, as `python -m trainer pretrain` runs it.

Batchings: Fixed pads to the largest image's side, DBB to a bin (as the thesis does), Packed not at all, and Packed +
content also leaves blank borders out. All have as many tokens a micro-batch at most. A recipe that resizes its images
has all of one size, and runs as it is. Mpx and tokens are the images' own, without padding; MFU counts operations on
them, HFU all that are run, padding and filler too but no recomputation. The decoder of the loader is measured alone, by
bin, level and images a batch.

Without a GPU the smallest recipe runs on the CPU, to test all this. On a GPU it has not been run to its end by its
authors, who had one for minutes: `gpu-check` asks for less.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from rich.table import Table

from benchmarks import machine
from benchmarks.gpu_summary import NAMES, plots, readme, summarise
from benchmarks.results import FOLDER, Record, begin, save
from shardkit.dataset.rounding import ceil_div, halved
from shardkit.terminal.output import Terminal

if TYPE_CHECKING:
    from benchmarks.gpu_decode import Grid
    from benchmarks.gpu_programs import Case
    from shardkit import Batching

__all__ = ["plots", "readme", "run"]

LIBRARIES = ("shardkit", "numpy", "torch", "nvidia-dali-cuda130", "imagecodecs", "timm", "nvidia-ml-py")
FEW_BINS = "auto:12"  # pad about as much as the thesis' 36
NO_GPU = "none at hand: run on the CPU with {} to test the harness; no claim about a GPU"


@dataclass(frozen=True)
class Defaults:
    """What is measured on a device if nothing else is asked for.

    Attributes
    ----------
    recipes
        Names of recipes.
    studies, scale
        Of the synthetic export.
    tokens
        Of a micro-batch; None for the recipe's.
    """

    recipes: tuple[str, ...]
    studies: int
    scale: float
    tokens: int | None


DEFAULTS = {
    "cuda": Defaults(("thesis-b48", "medmae-s16"), studies=2000, scale=1.0, tokens=None),
    # Small micro-batches: of a few hundred images, the last ones of every bin would be half of all.
    "cpu": Defaults(("tiny",), studies=100, scale=0.5, tokens=1024),
}


def run(
    *,
    recipes: Annotated[list[str] | None, Parameter(consume_multiple=True)] = None,
    data: str | None = None,
    split: str = "all",
    studies: int | None = None,
    scale: float | None = None,
    tokens: int | None = None,
    per_step: int = 2,
    epochs: int = 1,
    repeats: int = 2,
    seed: int = 0,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path = FOLDER / "gpu-utilization.json",
) -> None:
    """Train with every batching, and measure the model, the loader and both together; and the decoder.

    Parameters
    ----------
    recipes
        Of the trainer; default thesis-b48 and medmae-s16 on a GPU, tiny on a CPU.
    data
        Folder or bucket url of a dataset made by shardkit build; default a synthetic one. All of its split is run:
        enough for some minutes, or the start of an epoch counts too much.
    split
        Of the dataset: train, val, test, or all.
    studies
        Of the synthetic export, about two images each; default 2000 on a GPU, 100 on a CPU.
    scale
        Factor on heights and widths of its radiographs; default 1 on a GPU, 0.5 on a CPU.
    tokens
        Of a micro-batch, at most; default the recipe's on a GPU, 1024 on a CPU.
    per_step
        Micro-batches of a global step, at most; recipes have more, which a short epoch could not fill.
    epochs
        To measure, one after the other.
    repeats
        How often everything is measured.
    seed
        Of the export, the plan and the weights.
    device
        Where to run.
    out
        JSON file for the figures; a plot goes beside it.
    """
    where = chosen(device)
    default = DEFAULTS[where]
    names = recipes or default.recipes
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        result = begin((__doc__ or "").partition("\n")[0], LIBRARIES)
        made: Record = {"studies": studies or default.studies, "scale": scale or default.scale}
        made["bins"] = "thesis" if made["scale"] == 1 else FEW_BINS  # the thesis' are for radiographs of full size
        url = data or synthetic(Path(folder), seed=seed, **made)
        every = [
            case
            for recipe in names
            for case in cases(recipe, url, split, tokens or default.tokens, per_step, where, seed, epochs)
        ]
        result["conditions"] = {
            "data": "a dataset named with --data" if data else {"synthetic": made},
            "storage": "as the dataset's url has it" if data else "local disk, every byte in the page cache",
            "split": split,
            "epochs": epochs,
            "seed": seed,
            "per_step": per_step,
        }
        result["repeats"] = [_repeat(i, every, url, where) for i in range(repeats)]
    result["gpu"] = NO_GPU.format(" and ".join(names)) if where == "cpu" else result["repeats"][0]["rows"][0]["device"]
    result["summary"] = summarise(result["repeats"])
    save(result, out, plots)
    show(result, Terminal(width=max(Terminal().width, 120)))


def chosen(wanted: str) -> Literal["cpu", "cuda"]:
    """Return where to run: on a GPU where there is one, unless the CPU is asked for."""
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch sees no GPU here: use --device cpu to test the harness with the recipe tiny")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def synthetic(work: Path, *, studies: int, scale: float, bins: str, seed: int) -> str:
    """Make a synthetic export's dataset, by the command."""
    from shardkit.synthetic.export import make_export

    workers = len(os.sched_getaffinity(0))
    make_export(work / "export", studies, seed=seed, defects=0.0, scale=scale, workers=workers)
    words = ["--source", work / "export", "--out", work / "dataset", "--private", work / "private", "--bins", bins]
    words.append("--accept-outcome")
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", "build", *map(str, words)]
    machine.measure(command, work / "log")
    return str(work / "dataset")


# --- what runs


def cases(
    recipe: str, url: str, split: str, tokens: int | None, per_step: int, device: str, seed: int, epochs: int
) -> list[Case]:
    """Return a recipe with every batching on a dataset; the options are those of `run`."""
    from benchmarks.gpu_programs import Case
    from shardkit import from_text
    from shardkit.loader.manifest_index import ManifestIndex
    from trainer.recipes.registry import RECIPES

    if recipe not in RECIPES:
        raise SystemExit(f"recipe {recipe} is unknown: choose of {', '.join(RECIPES)}")
    own = from_text(RECIPES[recipe].config.loader.batching)
    # Every image once and none left out, so that all batchings see the same.
    own = replace(own, remainder="fill", per_step=min(own.per_step, per_step))
    sizes = ManifestIndex(url).samples(None if split == "all" else split)
    side = int(np.maximum(sizes.height, sizes.width).max())
    found = batchings(own, side, tokens)
    return [Case(recipe, name, str(b), url, split, device, seed, epochs) for name, b in found.items()]


def batchings(own: Batching, side: int, tokens: int | None) -> dict[str, Batching]:
    """Return the batchings to compare, by name, from a recipe's own.

    Parameters
    ----------
    own
        The recipe's.
    side
        Side in pixels that no image exceeds.
    tokens
        Of a micro-batch; None for the recipe's.
    """
    from shardkit import Binned, Fixed, Packed, Resized

    if isinstance(own, Resized):
        size = max(1, tokens // (own.side // own.patch) ** 2) if tokens else own.batch_size
        return {"Resized": replace(own, level="auto", batch_size=size)}
    assert isinstance(own, Packed), "the trainer's recipes either pack or resize"
    limit, patches = tokens or own.tokens, ceil_div(halved(side, int(own.level)), own.patch)
    common: Any = {name: getattr(own, name) for name in ("patch", "per_step", "level", "remainder")}
    found = (
        Fixed(side=patches * own.patch, batch_size=max(1, limit // patches**2), **common),
        Binned(tokens=limit, group=1, **common),
        replace(own, tokens=limit),
        replace(own, tokens=limit, content=True),
    )
    return dict(zip(NAMES, found, strict=True))


def _repeat(index: int, cases: list[Case], url: str, device: str) -> Record:
    """Run every case once; who begins rotates, so that a drift of the machine favours none."""
    from benchmarks.gpu_decode import decode
    from benchmarks.gpu_programs import measure

    start = index % len(cases)
    done = {case: _child(measure, case) for case in cases[start:] + cases[:start]}
    images = [done[case]["epoch"].pop("rows") for case in cases]
    if any(rows != images[0] for rows in images):
        raise RuntimeError("batchings did not see the same images: their rates cannot be compared")
    names = ("recipe", "name", "batching")
    rows = [{name: getattr(case, name) for name in names} | done[case] for case in cases]
    for row in rows:
        limit = min(row["model"]["images_s"], row["loader"]["images_s"])
        row["joint / limit"] = row["joint"]["images_s"] / limit
    return {"order": [case.name for case in done], "rows": rows, "decode": _child(decode, url, device, _grid(device))}


def _grid(device: str) -> Grid:
    from benchmarks.gpu_decode import Grid

    cores = len(os.sched_getaffinity(0))
    if device == "cpu":
        return Grid(bins=2, levels=(0, 3), batches=(1, 8), seconds=0.3, threads=cores)
    return Grid(bins=4, levels=(0, 1, 2, 3), batches=(1, 8, 32), seconds=1.0, threads=min(cores, 8))  # as the loader's


def _child(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a fresh process: its peak of memory is its own, and nothing is compiled or cached yet."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# --- what it comes to


def show(result: Record, console: Terminal) -> None:
    """Print the figures in one screen."""
    console.print(f"GPU: {result['gpu']}", highlight=False)
    titles = ("recipe", "batching", "model images/s", "loader", "joint", "Mpx/s", "joint / limit", "wait", "TFLOP/s")
    table = Table(*titles, "MFU", "HFU", "peak MiB", box=None, pad_edge=False)
    for row in result["summary"]["rows"]:
        joint = {name: spread["median"] for name, spread in row["joint"].items()}
        rates = [f"{row[part]['images_s']['median']:,.1f}" for part in ("model", "loader", "joint")]
        shares = [f"{joint[name]:.1%}" if name in joint else "–" for name in ("mfu", "hfu")]
        ratio = f"{row['joint / limit']['median']:.2f}"
        rest = [f"{joint['mpx_s']:.3g}", ratio, f"{joint['data_wait']:.1%}", f"{joint['tflops']:.3g}", *shares]
        table.add_row(row["recipe"], row["name"], *rates, *rest, f"{joint['peak_mib']:,.0f}")
    console.print(table)
    for row in result["summary"]["decode"]:
        cell = f"decode {row['bin']}, level {row['level']}, {row['batch']} a batch"
        speed = f"{row['mpx_s']['median']:,.1f} Mpx/s, {row['images_s']['median']:,.1f} images/s"
        console.print(f"{cell}: {speed}", highlight=False)
