"""What becomes of scores when somebody decides by them: thresholds, confusion, calibration errors, Oracle AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from shardkit.report import SERIES, Plot, colour, number, percent, svg
from trainer.evaluate.decisions import FRACTIONS
from trainer.evaluate.oracle import Mode
from trainer.evaluate.page.words import at, shown
from trainer.evaluate.results import Entry, Evaluation
from trainer.evaluate.thresholds import AtThreshold

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TONES = 3  # on which letters stay legible
_SHADED = 0.05  # share of a row from which a cell is shaded
_EXTENT = (400.0, 250.0)  # points


@dataclass(frozen=True, slots=True)
class Part:
    """A table below a heading."""

    title: str
    head: list[str]
    rows: list[list[str]]


def thresholds(of: Evaluation) -> list[Part]:
    """Return what each run does at each threshold, means over classes; of multi-label tasks only."""
    if of.kind != "multilabel":
        return []
    head = ["Threshold", "FNR", "FPR", "Precision", "Accuracy", "Subset accuracy"]
    return [Part(at(entry), head, _at_thresholds(entry.decisions.thresholds)) for entry in of.entries]


def _at_thresholds(found: Sequence[AtThreshold]) -> list[list[str]]:
    rows = []
    for at_one in found:
        values = [at_one.fnr.mean, at_one.fpr.mean, at_one.precision.mean, at_one.accuracy.mean, at_one.subset_accuracy]
        rows.append([f"{at_one.threshold:g}", *(shown(value) for value in values)])
    return rows


def confusions(of: Evaluation) -> list[dict[str, Any]]:
    """Return how often each category was taken for each; cells are (count, share of the row, tone)."""
    if of.kind != "multiclass":
        return []
    return [{"title": at(entry), "classes": entry.first.classes, "rows": _confusion(entry)} for entry in of.entries]


def _confusion(entry: Entry) -> list[tuple[str, list[tuple[str, str, str]]]]:
    counts = entry.decisions.confusion
    assert counts is not None  # of several categories
    rows = []
    for name, row in zip(entry.first.classes, counts, strict=True):
        total = int(row.sum())
        cells = [(number(n), percent(n, total) if total else "", _tone(int(n), total)) for n in row]
        rows.append((name, cells))
    return rows


def _tone(count: int, total: int) -> str:
    share = count / total if total else 0.0
    return f"tone{min(_TONES - 1, int(share * _TONES))}" if share >= _SHADED else ""


def calibration(of: Evaluation) -> Part | None:
    """Return errors of probabilities: a row for each run at each site."""
    if of.kind == "regression":
        return None
    head = ["Run and site", "ECE, equal width", "ECE, equal mass", "Brier score", "Temperature"]
    if of.kind == "multiclass":
        head.insert(1, "ECE of the predicted category")
    return Part("", head, [_errors(entry) for entry in of.entries])


def _errors(entry: Entry) -> list[str]:
    """Return a row: means over the seeds."""
    errors = [shown(value) for value in (entry.decisions.calibration or {}).values()]
    temperature = ", ".join(shown(one.value) for one in entry.temperatures) or "1, as it is"
    return [at(entry), *errors, shown(entry.scores["brier"].patients.mean.value), temperature]


def oracle(of: Evaluation) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
    """Draw the Oracle AUC over what somebody who knows decides, a line for each run at each site, in both modes."""
    modes: dict[Mode, str] = {"fraction": "share of images decided", "threshold": "distance to the threshold decided"}
    found = []
    for mode, label in modes.items():
        lines = [(entry, (entry.decisions.oracle or {}).get(mode, ())) for entry in of.entries]
        lines = [(entry, values) for entry, values in lines if values and values[0] is not None]
        if lines:
            keys = [(at(entry), SERIES[k % len(SERIES)]) for k, (entry, _) in enumerate(lines)]
            found.append((f"By {label}", _curve(lines, label), keys))
    return found


def _curve(lines: list[tuple[Entry, tuple[float | None, ...]]], label: str) -> Markup:
    told = "; ".join(f"{at(entry)} {shown(values[0])} to {shown(values[-1])}" for entry, values in lines)

    def draw(axes: Axes) -> None:
        for k, (_, values) in enumerate(lines):
            y = np.array([np.nan if value is None else value for value in values])
            axes.plot(FRACTIONS, y, color=colour(SERIES[k % len(SERIES)]), lw=2, marker="o", ms=4)
        axes.set(xlabel=label, ylabel="Oracle AUC", ylim=(None, 1.01))

    return svg(Plot(draw, f"Oracle AUC over {label}: {told}", extent=_EXTENT))
