"""What padding costs: tokens and operations of a masked autoencoder by batching, against each image at its own size.

Every strategy is planned by shardkit.plan over the same images, and what is counted are the sequences that the model
would run for its micro-batches: places of a dense batch at the padded size, images of a pack at their own size and its
filler in the short pieces that the trainer cuts it into. 100 % is each image padded to whole patches and no more.

tokens            given to the model.
thesis compute    the square of it, which the thesis' table 4.1 prints.
squares           sum of the squared lengths of all sequences: attention alone.
FLOPs             of ViT-B/48 and its decoder as `trainer.models.flops` counts them: linear maps and attention.
shapes            of micro-batches: what a compiler meets, and CUDA graphs are kept for.
incomplete        images that no full batch is left for at the epoch's end; they are in no other figure.
straggler         work of the busiest of 8 or 32 ranks by the mean, over all steps of one micro-batch a rank.

Dense batches are of 16 images. Ranks take bins in the order in which they fill (group=1), each its own; with "one bin a
step", shardkit's default, all 8 or 32 have the same one, and tokens and incomplete batches are those of 8.
"""

import functools
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from benchmarks import published
from benchmarks.drawing import bars
from benchmarks.results import FOLDER, Record, begin, save, spread, table
from benchmarks.token_strategies import (
    BATCH,
    DBB,
    GOAL,
    RANKS,
    Images,
    Ints,
    Strategy,
    of_dataset,
    published_images,
    square,
    strategies,
)
from shardkit.errors import ArgumentError
from shardkit.plan import Batching
from shardkit.report import Plot
from shardkit.terminal.output import Terminal
from trainer.models.flops import image_flops
from trainer.models.mae import MaeConfig
from trainer.recipes.registry import RECIPES

PERCENT = {"tokens_pct": "tokens", "squares_pct": "squares", "flops_pct": "flops"}
SPREAD = [*PERCENT, "thesis_compute_pct", "incomplete_pct", *(f"straggler_{ranks}" for ranks in RANKS)]
CELLS = {  # title: column and its digits
    "tokens %": ("tokens_pct", 1),
    "thesis compute %": ("thesis_compute_pct", 1),
    "squares %": ("squares_pct", 1),
    "FLOPs %": ("flops_pct", 1),
    "shapes": ("shapes", 0),
    "incomplete %": ("incomplete_pct", 2),
    **{f"straggler, {ranks} ranks": (f"straggler_{ranks}", 2) for ranks in RANKS},
    "plan s": ("seconds", 2),
}
MOST, DBB_TOKENS = 100.5, 1.1009


def run(
    *,
    data: str | None = None,
    images: int = 100_000,
    patch: int = published.PATCH,
    repeats: int = 3,
    seed: int = 0,
    out: Path = FOLDER / "token-overhead.json",
) -> None:
    """Count what batches of radiographs are padded with, for every way to batch them.

    Parameters
    ----------
    data
        Folder or bucket url of a dataset, whose manifest gives sizes and content boxes; default the sizes of a large
        published set, and boxes assumed to have its mean share of pixels that are not 0.
    images
        Images drawn from the published sizes. Of a dataset, all are taken.
    patch
        Side of a token in pixels.
    repeats
        How often images are drawn and shuffled.
    seed
        Of the first repeat; each further one adds 1.
    out
        JSON file for the figures, with a plot of the same name beside it.
    """
    result = begin((__doc__ or "").partition("\n")[0], ("shardkit", "numpy", "torch"))
    result["repeats"], result["left_out"] = [], {}
    for number in range(seed, seed + repeats):
        given = published_images(images, patch, number) if data is None else of_dataset(data, patch)
        rows = list(_rows(given, patch, number, result["left_out"]))
        facts = {"seed": number, "images": len(given.own), "mean_tokens": float(given.own.mean())}
        result["repeats"].append(facts | {"rows": rows})
    result["conditions"] = {
        "source": given.source,
        "images": len(given.own),
        "patch": patch,
        "batch": BATCH,
        "mean_tokens": statistics.mean(repeat["mean_tokens"] for repeat in result["repeats"]),
        "model": "thesis-b48" if patch == published.PATCH else f"thesis-b48 with patches of {patch}",
    }
    result["rows"] = summarise(result["repeats"])
    result["published"] = {"dbb_tokens": published.dbb_tokens() * published.IMAGES, "tokens": published.TOKENS}
    result["goals"] = goals(result)
    save(result, out, plots)
    show(result, Terminal(width=max(Terminal().width, 160)))


# --- what they cost


def _rows(given: Images, patch: int, seed: int, left_out: dict[str, str]) -> Iterator[Record]:
    """Return a record for each strategy that suits the images; the others, and why."""
    flops = _flops(patch, square(max(given.side, published.SIDE), patch).height ** 2 // patch**2)
    for strategy in strategies(given, patch):
        try:
            row = measure(strategy, given.own, flops, seed)
        except ArgumentError as error:
            left_out[strategy.name] = str(error)
            continue
        if row["samples"]:
            yield row
        else:
            left_out[strategy.name] = f"there are too few images for a full batch of {BATCH}"


@functools.cache
def _flops(patch: int, longest: int) -> npt.NDArray[np.float64]:
    """Return operations of a forward pass by tokens; training is three times that, which cancels out."""
    model = RECIPES["thesis-b48"].config.model
    assert isinstance(model, MaeConfig)
    tokens = torch.arange(longest + 1, dtype=torch.float64)
    found: npt.NDArray[np.float64] = image_flops(replace(model, patch=patch), tokens).numpy()
    return found


def measure(strategy: Strategy, own: Ints, flops: npt.NDArray[np.float64], seed: int) -> Record:
    """Return a strategy's raw sums, and what follows from them.

    samples are those in full batches; what ends in _own is at their own size; planned_tokens is by the plan's own
    account, to compare with.
    """
    start = time.perf_counter()
    account = strategy.plan(seed, strategy.per_step).account()
    seconds = time.perf_counter() - start
    shapes, sums = set[object](), np.zeros(7)
    for step in strategy.plan(seed, strategy.per_step):
        for micro in step:
            shape, n = strategy.ran(micro)
            at = own[micro.crops.index]
            shapes.add(shape)
            sums += [len(at), *_sums(n, flops), *_sums(at, flops)]
    names = ("samples", "tokens", "squares", "flops", "tokens_own", "squares_own", "flops_own")
    raw = dict(zip(names, sums.tolist(), strict=True))
    row = {"name": strategy.name, "in_shardkit": strategy.in_shardkit, "batching": _short(strategy.batching)}
    row |= raw | {"incomplete": account.samples_dropped, "planned_tokens": account.real_tokens + account.padding_tokens}
    row |= {"shapes": len(shapes), "seconds": seconds}
    row |= {f"straggler_{ranks}": _straggler(strategy, flops, seed, ranks) for ranks in RANKS}
    return row | (derived(row) if raw["samples"] else {})


def _sums(n: Ints, flops: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    return float(n.sum()), float((n * n).sum()), float(flops[n].sum())


def _short(batching: Batching) -> str:
    """Return a batching's text, without the names of dozens of bins."""
    words = str(batching).split(",")
    return ",".join(w if w.count("+") < 3 else f"bins=({w.count('+') + 1})" for w in words)


def _straggler(strategy: Strategy, flops: npt.NDArray[np.float64], seed: int, ranks: int) -> float | None:
    """Return busiest rank by mean rank, averaged over steps; None where there is no whole step."""
    plan = strategy.plan(seed, ranks)
    work = np.array([[flops[strategy.ran(micro)[1]].sum() for micro in step] for step in plan])
    return float((work.max(1) / work.mean(1)).mean()) if len(work) else None


def derived(row: Record) -> Record:
    """Return percentages from raw sums."""
    found = {name: 100 * row[raw] / row[f"{raw}_own"] for name, raw in PERCENT.items()}
    total = row["samples"] + row["incomplete"]
    thesis = found["tokens_pct"] ** 2 / 100
    return found | {"thesis_compute_pct": thesis, "incomplete_pct": 100 * row["incomplete"] / total}


# --- what it comes to


def summarise(repeats: list[Record]) -> list[Record]:
    """Return a row by strategy: median, least and most over the repeats; medians of shapes and seconds."""
    found: dict[str, list[Record]] = {}
    for repeat in repeats:
        for row in repeat["rows"]:
            found.setdefault(row["name"], []).append(row)
    return [_summary(rows) for rows in found.values()]


def _summary(rows: list[Record]) -> Record:
    spreads: Record = {}
    for column in SPREAD:
        values = [row[column] for row in rows if row[column] is not None]
        spreads[column] = spread(values) if values else None
    medians = {name: statistics.median(row[name] for row in rows) for name in ("shapes", "seconds")}
    return {name: rows[0][name] for name in ("name", "in_shardkit", "batching")} | spreads | medians


def goals(result: Record) -> list[Record]:
    """Return what was promised, and what came of it in the worst repeat."""
    counts = result["published"]["dbb_tokens"] / 1e9
    found = [(f"{DBB} by its bins' printed counts, 10^9 tokens", DBB_TOKENS, counts, abs(counts - DBB_TOKENS) < 5e-5)]
    for row in (row for row in result["rows"] if row["name"] == GOAL):
        most, shapes = row["tokens_pct"]["max"], row["shapes"]
        found += [(f"{GOAL}: tokens %", MOST, most, most <= MOST), (f"{GOAL}: shapes", 1, shapes, shapes == 1)]
    return [dict(zip(("goal", "wanted", "got", "met"), goal, strict=True)) for goal in found]


def show(result: Record, console: Terminal) -> None:
    """Print all columns, what was left out, and which goals were met."""
    shown = Table("", *CELLS, box=None, pad_edge=False)
    for row in result["rows"]:
        shown.add_row(*_line(row, CELLS))
    shown.columns[0].no_wrap = True
    for column in shown.columns[1:]:
        column.justify = "right"
    left_out = [f"left out: {name}: {why}" for name, why in result["left_out"].items()]
    for part in (_sentence(result), shown, *left_out, _goal_lines(result)):
        console.print(part, highlight=False)


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    titles = [title for title in CELLS if title not in ("thesis compute %", "squares %", "plan s")]
    rows = table(["", *titles], (_line(row, titles) for row in result["rows"]))
    return f"{_sentence(result)}\n\n{rows}\n\n{_goal_lines(result)}"


def _sentence(result: Record) -> str:
    facts = result["conditions"]
    return (
        f"{facts['images']:,} {facts['source']}, on average {facts['mean_tokens']:,.0f} patches of {facts['patch']}"
        f" pixels, which are 100 %; dense batches of {facts['batch']} images; medians of {len(result['repeats'])}"
        " shuffles. * is not in shardkit."
    )


def _goal_lines(result: Record) -> str:
    dbb = [row["tokens_pct"]["median"] for row in result["rows"] if row["name"] == DBB]
    lines = [
        f"- {goal['goal']} **{goal['got']:.5g}**, wanted {goal['wanted']:g}: {'met' if goal['met'] else 'short'}"
        for goal in result["goals"]
    ]
    published_pct = 100 * result["published"]["dbb_tokens"] / result["published"]["tokens"]
    return "\n".join([*lines, f"- {DBB}: {published_pct:.1f} % were published" + f", {dbb[0]:.1f} % here" * len(dbb)])


def _line(row: Record, titles: Iterable[str]) -> list[str]:
    """Return a row's cells, medians."""
    cells = [row["name"] if row["in_shardkit"] else f"{row['name']} *"]
    for column, digits in map(CELLS.__getitem__, titles):
        value = row[column]["median"] if isinstance(row[column], dict) else row[column]
        cells.append("–" if value is None else f"{value:,.{digits}f}")
    return cells


def plots(result: Record) -> list[Plot]:
    """Two bars a strategy: what the model computes, and what the thesis' square of the tokens makes of it."""
    rows, most = result["rows"], 200.0
    series = {
        "FLOPs of ViT-B and its decoder": [row["flops_pct"] for row in rows],
        "thesis compute: square of the tokens": [row["thesis_compute_pct"] for row in rows],
    }
    names = [_line(row, ())[0] for row in rows]
    title, unit = f"what is computed (bars end at {most:.0f} %)", "% of each image at its own size"
    return [bars(title, names, series, unit=unit, level=100, most=most)]
