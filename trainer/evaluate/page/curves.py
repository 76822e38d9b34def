"""ROC curves and reliability, drawn: a line a class, of each run at each site."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from sklearn.metrics import roc_curve

from shardkit.report import SERIES, Plot, colour, svg
from trainer.evaluate.calibration import reliability
from trainer.evaluate.kinds import Floats, log_odds
from trainer.evaluate.page.words import at, shown
from trainer.evaluate.results import Entry, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = (320.0, 300.0)  # points
_POINTS = 300  # of a curve, at most: a page does not grow with the images
_REST = "pale"


@dataclass(frozen=True, slots=True)
class Curve:
    """A line from (0, 0) to (1, 1).

    Parameters
    ----------
    name, colour
        The class, and its colour in the palette.
    x, y
        float (n,).
    told
        Its numbers in words.
    """

    name: str
    colour: str
    x: Floats
    y: Floats
    told: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot with a heading, and its key: (class, colour)."""

    title: str
    plot: Markup
    keys: list[tuple[str, str]]


def roc(of: Evaluation) -> list[Drawing]:
    """Return ROC curves of each run at each site where a class has both positives and negatives."""
    found = []
    for entry in of.entries:
        curves = [curve for k in _chosen(entry) if (curve := _roc(entry, k)) is not None]
        if curves:
            found.append(_drawn(entry, curves, "false positive rate", "true positive rate"))
    return found


def calibration(of: Evaluation) -> list[Drawing]:
    """Return reliability of each run at each site."""
    found = []
    for entry in of.entries:
        curves = [curve for k in _chosen(entry) if (curve := _reliability(entry, k)) is not None]
        if curves:
            found.append(_drawn(entry, curves, "probability", "share of positives", marker="o"))
    return found


def _chosen(entry: Entry) -> Sequence[int]:
    """Return the classes that are drawn: of two categories one, since the other is its mirror image."""
    of = entry.first
    return (1,) if of.about.kind == "multiclass" and len(of.classes) == 2 else range(len(of.classes))


def _tone(entry: Entry, k: int) -> str:
    """Return a class's colour: the six with most positives have one of their own."""
    counts = [-(target == 1).sum() for target in entry.first.targets.T]
    rank = int(
        np.argsort(np.array(counts)[list(_chosen(entry))], kind="stable").tolist().index(_chosen(entry).index(k))
    )
    return SERIES[rank] if rank < len(SERIES) else _REST


def _roc(entry: Entry, k: int) -> Curve | None:
    of, target = entry.first, entry.first.targets[:, k]
    known = ~np.isnan(target)
    if len(np.unique(target[known])) < 2:
        return None
    x, y, _ = roc_curve(target[known], log_odds(of.about.kind, of.scores)[known, k])
    area = entry.scores["auc"].values[0][k]
    kept = _thinned(len(x))
    return Curve(of.classes[k], _tone(entry, k), x[kept], y[kept], f"{of.classes[k]} AUC {shown(area)}")


def _reliability(entry: Entry, k: int) -> Curve | None:
    of = entry.first
    found = reliability(of.probabilities[:, k], of.targets[:, k], 10, "mass")
    if found is None:
        return None
    told = f"{of.classes[k]} calibration error {shown(found.ece)}"
    return Curve(of.classes[k], _tone(entry, k), found.predicted, found.observed, told)


def _thinned(count: int) -> Any:
    if count <= _POINTS:
        return slice(None)
    return np.unique(np.linspace(0, count - 1, _POINTS).round().astype(int))


def _drawn(entry: Entry, curves: list[Curve], x: str, y: str, marker: str | None = None) -> Drawing:
    def draw(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=colour("pale"), lw=1, ls=(0, (4, 4)))
        for curve in sorted(curves, key=lambda curve: curve.colour != _REST):
            thin = curve.colour == _REST
            axes.plot(curve.x, curve.y, color=colour(curve.colour), lw=1.0 if thin else 2.0, marker=marker, ms=4)
        axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.set_aspect("equal")
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1])

    keys = [(curve.told, curve.colour) for curve in curves if curve.colour != _REST]
    if len(keys) < len(curves):
        keys.append((f"{len(curves) - len(keys)} other classes", _REST))
    about = f"{y} over {x}, {at(entry)}: {'; '.join(curve.told for curve in curves)}"
    return Drawing(at(entry), svg(Plot(draw, about, extent=_SIDE)), keys)
