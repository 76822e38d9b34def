"""The downstream benchmark's tables and plots, from its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.drawing import Spread, bars
from benchmarks.results import Record, table
from shardkit.report import Plot

TASKS, SITES = ("view", "sex"), ("nih", "hannover")
_NAMES = {"nih": "NIH", "hannover": "Hannover"}
_ORDER = (
    "32 x 32 pixels",
    "random, seed 0",
    "random, seed 1",
    "pre-trained",
    "from scratch",
    "pre-trained, fine-tuned",
)
_MAIN = (
    ("32 x 32 pixels", "logistic"),
    ("random, seed 0", "logistic"),
    ("random, seed 1", "logistic"),
    ("pre-trained", "k-NN"),
    ("pre-trained", "logistic"),
    ("from scratch", "fine-tuned"),
    ("pre-trained", "fine-tuned"),
)


def readme(result: Record) -> str:
    """Return this benchmark's lines for benchmarks/README.md; a test holds them equal to the JSON."""
    of = result["conditions"]
    number = len(of["folds"])
    folds = f"{'Three folds' if number == 3 else 'One of three folds'} by patient, mean AUC (95 % by patient)"
    parts = [f"{folds}:\n\n{_scores(result['folds'], SITES)}"]
    parts.append(f"Of the first fold, NIH's official test patients alone:\n\n{_scores(result['official'], SITES[:1])}")
    if result["curves"]:
        short = f"; below them pre-trainings of {of['curve_steps']:,} steps" if of["curve_steps"] else ""
        words = f"Steps and pooling of the same pre-training{short}; first fold, NIH, logistic regression"
        parts.append(f"{words}:\n\n{_curves(result['curves'])}")
    parts.append(
        f"By the share of the training patients whose labels are used, first fold, NIH:\n\n{_shares(result['shares'])}"
    )
    parts += [_boxes(result["boxes"])] if result["boxes"] else []
    minutes = sum(took["cpu_seconds"] for took in result["took"].values()) / 60
    begin = (
        f"`tiny` pre-trained without labels on NIH and Hannover ({of['steps']:,} steps of 32 images, 128 pixels), views"
        f" and sexes learnt on NIH's training patients alone; {result['machine']['cores']} cores of"
        f" {result['machine']['cpu']}, {minutes:,.0f} core-minutes, form {of['form']}."
    )
    return "\n\n".join([begin, *parts])


def plots(result: Record) -> list[Plot]:
    """Return a plot a task."""
    where = "three folds" if len(result["conditions"]["folds"]) == 3 else "one of three folds"
    return [_bars(result["folds"], task, where) for task in TASKS]


def _scores(rows: Sequence[Record], sites: Sequence[str]) -> str:
    titles = ["features, judged by", *(f"{task}, {_NAMES[site]}" for task in TASKS for site in sites)]
    return table(
        titles,
        (
            [
                f"{features}, {method}",
                *(_cell(_one(rows, task, site, features, method)) for task in TASKS for site in sites),
            ]
            for features, method in _MAIN
        ),
    )


def _one(rows: Sequence[Record], task: str, site: str, features: str, method: str) -> Record | None:
    wanted = {"task": task, "site": site, "features": features, "method": method}
    return next((row for row in rows if wanted.items() <= row.items()), None)


def _cell(row: Record | None) -> str:
    if row is None or row["value"] is None:
        return "–"
    return _value(row["value"], None if row["low"] is None else (row["low"], row["high"]))


def _value(value: float, ends: Sequence[float] | None) -> str:
    return f"{value:.3f}" + ("" if ends is None else f" ({ends[0]:.3f}–{ends[1]:.3f})")


def _curves(rows: Sequence[Record]) -> str:
    here = [row for row in rows if row["site"] == "nih" and row["method"] == "logistic"]
    names = list(dict.fromkeys((row["varied"], row["at"]) for row in here))
    found = {(row["varied"], row["at"], row["task"]): row for row in here}
    return table(
        ["varied", *TASKS],
        ([f"{varied} {at}", *(_cell(found.get((varied, at, task))) for task in TASKS)] for varied, at in names),
    )


def _shares(rows: Sequence[Record]) -> str:
    here = [row for row in rows if row["site"] == "nih"]
    shares = sorted({row["fraction"] for row in here})
    found = {(row["features"], row["method"], row["task"], row["fraction"]): row for row in here}
    titles = ["features, judged by", *(f"{task}, {100 * share:.3g} %" for task in TASKS for share in shares)]
    names = sorted({key[:2] for key in found}, key=lambda name: (_ORDER.index(name[0]), name[1]))
    lines = []
    for name in names:
        cells = [found[(*name, task, share)]["value"] for task in TASKS for share in shares]
        lines.append([", ".join(name), *("–" if value is None else f"{value:.3f}" for value in cells)])
    return table(titles, lines)


def _boxes(found: dict[str, Any]) -> str:
    """Tell of the threshold that the boxes of other images chose."""
    rows = []
    for protocol, of in found["scores"].items():
        for source, fit in ((source, fit) for source, fit in of["held_out"].items() if fit is not None):
            shares = [_value(fit[name], fit[f"{name}_interval"]) for name in ("ap25", "ap50")]
            rows.append([f"{protocol}, {source}", *shares, _value(fit["mean_iou"], None)])
    number = len(found["boxes"])
    return (
        f"Grad-CAM against {number} boxes of NIH's test images, a network fine-tuned on the findings, beside a blob"
        f" in the centre and random ones; thresholds chosen on other boxes:\n\n"
        f"{table(['protocol, map', 'AP25', 'AP50', 'mean IoU'], rows)}"
    )


def _bars(rows: Sequence[Record], task: str, where: str) -> Plot:
    labels = [f"{features}, {method}" for features, method in _MAIN]
    series: dict[str, list[Spread | None]] = {}
    for site in SITES:
        found = [_one(rows, task, site, *name) for name in _MAIN]
        series[_NAMES[site]] = [_spread(row) for row in found]
    return bars(f"{task}, learnt at NIH, {where}", labels, series, unit="AUC", level=0.5)


def _spread(row: Record | None) -> Spread | None:
    if row is None or row["value"] is None:
        return None
    low, high = (row["value"] if row[end] is None else row[end] for end in ("low", "high"))
    return {"median": row["value"], "min": low, "max": high}
