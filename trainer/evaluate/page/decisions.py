"""What becomes of scores when somebody decides by them: thresholds, confusion, calibration errors, Oracle AUC."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from shardkit.report import SERIES, Plot, colour, number, percent, svg
from trainer.evaluate.by_class import ByClass
from trainer.evaluate.calibration import ece, reliability, top_label
from trainer.evaluate.categories import categories, confusion
from trainer.evaluate.oracle import Mode, oracle_auc
from trainer.evaluate.page.words import at, shown
from trainer.evaluate.results import Entry, Evaluation
from trainer.evaluate.thresholds import at_thresholds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_FRACTIONS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
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
    return [Part(at(entry), head, _at_thresholds(entry, of.settings.thresholds)) for entry in of.entries]


def _at_thresholds(entry: Entry, thresholds: Sequence[float]) -> list[list[str]]:
    of, rows = entry.first, []
    for found in at_thresholds(of.probabilities, of.targets, thresholds):
        values = [found.fnr.mean, found.fpr.mean, found.precision.mean, found.accuracy.mean, found.subset_accuracy]
        rows.append([f"{found.threshold:g}", *(shown(value) for value in values)])
    return rows


def confusions(of: Evaluation) -> list[dict[str, Any]]:
    """Return how often each category was taken for each; cells are (count, share of the row, tone)."""
    if of.kind != "multiclass":
        return []
    return [{"title": at(entry), "classes": entry.first.classes, "rows": _confusion(entry)} for entry in of.entries]


def _confusion(entry: Entry) -> list[tuple[str, list[tuple[str, str, str]]]]:
    of = entry.first
    predicted, actual = categories(of.scores, of.targets)
    counts = confusion(predicted, actual, len(of.classes))
    rows = []
    for name, row in zip(of.classes, counts, strict=True):
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
    multiclass = of.kind == "multiclass"
    head = ["Run and site", "ECE, equal width", "ECE, equal mass", "Brier score", "Temperature"]
    if multiclass:
        head.insert(1, "ECE of the predicted category")
    return Part("", head, [_errors(entry, multiclass) for entry in of.entries])


def _errors(entry: Entry, multiclass: bool) -> list[str]:
    """Return a row: means over the seeds."""
    probabilities = [(of.probabilities, of.targets) for of in entry.seeds]
    errors = [[ece(*of, kind=kind).mean for of in probabilities] for kind in ("width", "mass")]
    if multiclass:
        tops = [reliability(*top_label(*of)) for of in probabilities]
        errors.insert(0, [None if found is None else found.ece for found in tops])
    temperature = ", ".join(shown(one.value) for one in entry.temperatures) or "1, as it is"
    brier = shown(entry.scores["brier"].patients.mean.value)
    return [at(entry), *(shown(_mean(of)) for of in errors), brier, temperature]


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean over seeds, which know the same targets: all have a score, or none."""
    found = [value for value in values if value is not None]
    return fmean(found) if found else None


def oracle(of: Evaluation) -> list[tuple[str, Markup, list[tuple[str, str]]]]:
    """Draw the Oracle AUC over what somebody who knows decides, a line for each run at each site, in both modes."""
    modes: dict[Mode, str] = {"fraction": "share of images decided", "threshold": "distance to the threshold decided"}
    found = []
    for mode, label in modes.items():
        lines = [(entry, [_oracle(entry, mode, amount) for amount in _FRACTIONS]) for entry in of.entries]
        lines = [(entry, values) for entry, values in lines if values[0] is not None]
        if lines:
            keys = [(at(entry), SERIES[k % len(SERIES)]) for k, (entry, _) in enumerate(lines)]
            found.append((f"By {label}", _curve(lines, label), keys))
    return found


def _oracle(entry: Entry, mode: Mode, amount: float) -> float | None:
    of = entry.first
    area: ByClass = oracle_auc(of.probabilities, of.targets, mode, amount)
    return area.mean


def _curve(lines: list[tuple[Entry, list[float | None]]], label: str) -> Markup:
    told = "; ".join(f"{at(entry)} {shown(values[0])} to {shown(values[-1])}" for entry, values in lines)

    def draw(axes: Axes) -> None:
        for k, (_, values) in enumerate(lines):
            y = np.array([np.nan if value is None else value for value in values])
            axes.plot(_FRACTIONS, y, color=colour(SERIES[k % len(SERIES)]), lw=2, marker="o", ms=4)
        axes.set(xlabel=label, ylabel="Oracle AUC", ylim=(None, 1.01))

    return svg(Plot(draw, f"Oracle AUC over {label}: {told}", extent=_EXTENT))
