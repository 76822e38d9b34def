"""The table and the plots of the comparison of methods, from its JSON."""

from __future__ import annotations

from typing import Any

from benchmarks.drawing import Spread, bars
from benchmarks.results import Record, table
from shardkit.report import Plot

TASKS = ("view", "sex")
_JUDGES = ("k-NN", "logistic")
_PIXELS = "32 x 32 pixels"
_REFERENCES = {"random, seed 0": "random weights, {network}", _PIXELS: _PIXELS}


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    of, machine = result["conditions"], result["machine"]
    begin = (
        f"{of['steps']:,} steps of {of['images']} NIH images of {of['side']} pixels each, without labels; frozen"
        " features, mean of tokens, learnt and asked on NIH by patient (one of three folds), AUC (95 % by patient)."
        f" Images a second of a core of {machine['cpu']}, all views of an image being one, and memory are of"
        " pre-training, start and all."
        f" Form {of['form']}."
    )
    titles = ["method", "images/core-s", "MiB", *(f"{task}, {judge}" for task in TASKS for judge in _JUDGES)]
    return f"{begin}\n\n{table(titles, [_line(*row) for row in _rows(result)])}"


def plots(result: Record) -> list[Plot]:
    """Return a plot a task."""
    rows = _rows(result)
    return [
        bars(
            f"{task}, frozen features",
            [name for name, _, _ in rows],
            {judge: [_spread(_score(scores, task, judge)) for _, _, scores in rows] for judge in _JUDGES},
            unit="AUC",
            level=0.5,
        )
        for task in TASKS
    ]


def _rows(result: Record) -> list[tuple[str, Record | None, list[Record]]]:
    """Return name, record and scores of all methods; below them random weights of each network, and pixels."""
    found: list[tuple[str, Record | None, list[Record]]] = []
    references: dict[str, list[Record]] = {}
    for of in result["methods"].values():
        own = [row for row in of["scores"] if row["features"] == "pre-trained"]
        found.append((f"{of['name']}, {of['network']}", of, own))
        for source, words in _REFERENCES.items():
            rows = [row for row in of["scores"] if row["features"] == source]
            references.setdefault(words.format(network=of["network"]), rows)
    last = sorted(references, key=lambda name: name == _PIXELS)  # the same for all networks
    return [*found, *((name, None, references[name]) for name in last if references[name])]


def _line(name: str, of: Record | None, scores: list[Record]) -> list[str]:
    spent = ["–", "–"] if of is None else [f"{of['images_per_core_s']:,.0f}", f"{of['took']['peak_mib']:,}"]
    return [name, *spent, *(_cell(_score(scores, task, judge)) for task in TASKS for judge in _JUDGES)]


def _score(scores: list[Record], task: str, judge: str) -> Record | None:
    return next((row for row in scores if row["task"] == task and row["method"] == judge), None)


def _cell(row: Record | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    ends = "" if row["low"] is None else f" ({row['low']:.3f}–{row['high']:.3f})"
    return f"{row['value']:.3f}{ends}"


def _spread(row: Any) -> Spread | None:
    if row is None or row["value"] is None:
        return None
    low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
    return {"median": row["value"], "min": low, "max": high}
