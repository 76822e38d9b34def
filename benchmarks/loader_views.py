"""Several views of a sample, as self-supervised methods want them: views a second of ours and of usual programs.

Two views of 518 x 518 pixels and eight of 196 x 196 of each radiograph, with random crop, mirror image, brightness,
contrast, blur and solarisation, as DINOv2's training at high resolution has them, as float32 tensors on the CPU:

shardkit    the loader with MultiView: one read and one decode of each sample, at the level that covers all views.
png         a DataLoader with a worker a core over 8-bit PNG files of full size: PIL, and torchvision's transforms.
htj2k       the same over our HTJ2K, each view decoded on its own, at the level that covers it; torchvision on tensors.

A program is a fresh process; the time runs from asking for the iterator to the last batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from benchmarks import loader_data, machine
from benchmarks.results import Record, begin, spread
from shardkit.terminal.output import Terminal

if TYPE_CHECKING:
    from benchmarks.loader import Bench

PROGRAMS = {
    "shardkit": "`shardkit.Loader` with `MultiView`",
    "png": "DataLoader, PNG, PIL + torchvision",
    "htj2k": "DataLoader, our HTJ2K decoded for each view, torchvision",
}
GLOBAL, LOCAL = 518, 196
LARGE, SMALL = (0.32, 1.0), (0.05, 0.32)  # shares of the area
KINDS = [  # side, share of the area, views, chances of a blur and of solarisation
    (GLOBAL, LARGE, 1, 1.0, 0.0),
    (GLOBAL, LARGE, 1, 0.1, 0.2),
    (LOCAL, SMALL, 8, 0.5, 0.0),
]
VIEWS = sum(n for _, _, n, *_ in KINDS)
JITTER, STRENGTH = 0.8, 0.4
SIGMA, KERNEL = (0.1, 2.0), 13
BATCH, PATCH = 8, 14
FIGURES = ("views_s", "samples_s", "cpu_s", "first_batch_s", "peak_pss_mib", "decodes_per_sample")


def measure(bench: Bench, files: int, repeats: int, scale: float, seed: int, shard_mib: int) -> Record:
    """Make the data and run every program `repeats` times; return the figures."""
    result = begin("How fast several views of a radiograph reach a training loop", machine.LIBRARIES)
    root = bench.work / "views"
    loader_data.ours(root, files, scale, seed, shard_mib, bench.child)
    count = bench.child("loader_views:write_files", str(root))
    rows = []
    for repeat in range(repeats):
        names = list(PROGRAMS)
        start = repeat * len(names) // repeats  # who begins rotates
        for name in names[start:] + names[:start]:
            used, found = bench.measured("loader_views:epoch", {"program": name, "root": str(root)})
            if found["samples"] != count:
                raise RuntimeError(f"{name} delivered {found['samples']} of {count} samples")
            rows.append({"repeat": repeat, "program": name, "peak_pss_mib": used.peak_pss_mib, **found})
    cores = len(os.sched_getaffinity(0))
    result["conditions"] = {"files": files, "scale": scale, "seed": seed, "samples": count, "workers": cores}
    return result | {"rows": rows, "summary": summarise(rows)}


def summarise(rows: list[Record]) -> Record:
    """Return spreads of every program's figures, and of ratios within a repeat."""
    of = {name: [row for row in rows if row["program"] == name] for name in PROGRAMS}
    figures = {name: {key: spread([row[key] for row in own]) for key in FIGURES} for name, own in of.items()}
    ratios = {
        name: spread(
            [ours["views_s"] / its["views_s"] for ours, its in zip(_in_turn(of["shardkit"]), own, strict=True)]
        )
        for name, own in ((name, _in_turn(of[name])) for name in PROGRAMS if name != "shardkit")
    }
    return {"programs": figures, "ratios": ratios}


def _in_turn(rows: list[Record]) -> list[Record]:
    return sorted(rows, key=lambda row: int(row["repeat"]))


# --- roles of child processes


def write_files(root: str) -> int:
    """Write every sample as an 8-bit PNG file of full size, and return how many there are."""
    import numpy as np
    from PIL import Image

    out = Path(root) / "png"
    out.mkdir()
    samples = _samples(root)
    for sample in samples:
        pixels = _decoded(root, sample, 0).astype(np.float32)
        scaled = (pixels - sample["p0_5"]) * (255.0 / max(sample["p99_5"] - sample["p0_5"], 1))
        Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8)).save(out / f"{sample['key']}.png")
    return len(samples)


def epoch(job: Record) -> Record:
    """Run an epoch of a program."""
    program, root = job["program"], job["root"]
    batches: Any = _Ours(root) if program == "shardkit" else _peer(root, program)
    clock, cpu = time.perf_counter(), time.process_time()
    first, samples = 0.0, 0
    for views in batches:
        first = first or time.perf_counter() - clock
        assert len(views) == VIEWS
        samples += len(views[0])
    seconds = time.perf_counter() - clock
    spent = os.times()
    return {
        "samples": samples,
        "seconds": seconds,
        "first_batch_s": first,
        "views_s": samples * VIEWS / seconds,
        "samples_s": samples / seconds,
        "cpu_s": time.process_time() - cpu + spent.children_user + spent.children_system,
        "decodes_per_sample": batches.decodes
        if program == "shardkit"
        else {"png": 1.0, "htj2k": float(VIEWS)}[program],
    }


class _Ours:
    """The loader, whose batches are given as lists of views."""

    def __init__(self, root: str) -> None:
        import nvidia.dali.fn  # noqa: F401 - imports are outside the time, for all

        from shardkit import Loader, MultiView, View

        views = tuple(
            View(side, share, n=n, jitter=JITTER, blur=blur, sigma=SIGMA, solarise=solarise)
            for side, share, n, blur, solarise in KINDS
        )
        batching = MultiView(views, batch_size=BATCH, patch=PATCH, per_step=1)
        self._loader = Loader(f"{root}/shardkit", batching=batching, split=None, device="cpu")

    def __iter__(self) -> Iterator[list[Any]]:
        batch: Any
        for batch in self._loader:
            there = batch.weight > 0
            yield [view[there] for views in batch.views for view in views]

    @property
    def decodes(self) -> float:
        """Decodes by sample."""
        return float(self._loader.stats()["decodes_per_sample"])


def _peer(root: str, variant: str) -> Iterable[Any]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    samples, kinds = _samples(root), [kind for kind in KINDS for _ in range(kind[2])]
    views: list[Any] = [(_png_view if variant == "png" else partial(_htj2k_view, root))(*kind) for kind in kinds]

    class Images(Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(samples)

        def __getitem__(self, at: int) -> list[torch.Tensor]:
            if variant == "htj2k":
                return [view(samples[at]) for view in views]
            from PIL import Image

            image = Image.open(f"{root}/png/{samples[at]['key']}.png")
            image.load()
            return [view(image) for view in views]

    torch.set_num_threads(1)
    workers = len(os.sched_getaffinity(0))
    return DataLoader(Images(), BATCH, shuffle=True, num_workers=workers, multiprocessing_context="fork")


def _changes(blur: float, solarise: float, threshold: float) -> list[Any]:
    """Torchvision's transforms after the crop."""
    from torchvision.transforms import v2  # type: ignore[import-untyped]

    return [
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(STRENGTH, STRENGTH)], JITTER),
        v2.RandomApply([v2.GaussianBlur(KERNEL, SIGMA)], blur),
        v2.RandomSolarize(threshold, solarise),
    ]


def _png_view(side: int, share: tuple[float, float], n: int, blur: float, solarise: float) -> Any:
    """Return what makes a view of a PIL image, resized as torchvision does by default: bilinear, with antialiasing."""
    import torch
    from torchvision.transforms import v2

    end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return v2.Compose([v2.RandomResizedCrop(side, share), *_changes(blur, solarise, 128), *end])


def _htj2k_view(
    root: str, side: int, share: tuple[float, float], n: int, blur: float, solarise: float
) -> Callable[[Record], Any]:
    """Return what makes a view of a sample of ours, by a decode of its own."""
    import math

    import torch
    from torchvision.transforms import v2

    change = v2.Compose([v2.RandomResizedCrop(side, share, antialias=True), *_changes(blur, solarise, 0.5)])

    def view(sample: Record) -> Any:
        least = math.sqrt(share[0] * sample["height"] * sample["width"] * 3 / 4)
        level = min(5, max(0, math.floor(math.log2(max(1.0, least / side)))))
        pixels = torch.from_numpy(_decoded(root, sample, level).astype("float32"))[None]
        scale = max(sample["p99_5"] - sample["p0_5"], 1)
        return change(((pixels - sample["p0_5"]) / scale).clamp_(0, 1))

    return view


def _samples(root: str) -> list[Record]:
    import pyarrow.parquet as pq

    rows: list[Record] = pq.read_table(f"{root}/shardkit/manifest.parquet", columns=loader_data.COLUMNS).to_pylist()
    return rows


def _decoded(root: str, sample: Record, level: int) -> Any:
    from shardkit.codecs import htj2k

    with Path(root, "shardkit", sample["shard"]).open("rb") as file:
        data = os.pread(file.fileno(), sample["level_bytes"][level], sample["offset"])
    return htj2k.decode(data, level, sample["bits"])


# --- tables


def show(result: Record, console: Terminal) -> None:
    """Print a table of the programs."""
    facts, summary = result["conditions"], result["summary"]
    console.print(f"\n[bold]{_words(facts)}[/bold]")
    table = Table("", "views/s", "samples/s", "decodes/sample", "CPU s", "peak MiB", "ours / it", box=None)
    for name, figures in summary["programs"].items():
        ratio = summary["ratios"].get(name)
        cells = [
            f"{figures[key]['median']:,.1f}"
            for key in ("views_s", "samples_s", "decodes_per_sample", "cpu_s", "peak_pss_mib")
        ]
        table.add_row(name, *cells, f"{ratio['median']:.2f}" if ratio else "")
    console.print(table)


def readme(result: Record) -> str:
    """Return this part's lines for benchmarks/README.md."""
    lines = ["| several views of a sample | views/s | decodes a sample | shardkit / it |", "|---|---:|---:|---:|"]
    for name, figures in result["summary"]["programs"].items():
        ratio = result["summary"]["ratios"].get(name)
        views, decodes = figures["views_s"]["median"], figures["decodes_per_sample"]["median"]
        lines.append(f"| {PROGRAMS[name]} | {views:,.0f} | {decodes:.1f} | {_ratio(ratio)} |")
    return f"{_words(result['conditions'])}, {result['date'][:10]}.\n\n" + "\n".join(lines)


def _ratio(ratio: Record | None) -> str:
    return f"{ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})" if ratio else "–"


def _words(facts: Record) -> str:
    return (
        f"{facts['samples']} radiographs, of each 2 views of {GLOBAL} x {GLOBAL} pixels and 8 of {LOCAL} x {LOCAL} with"
        f" crop, flip, brightness, contrast, blur and solarisation, on {facts['workers']} cores"
    )
