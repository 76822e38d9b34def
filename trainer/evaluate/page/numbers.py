"""A regression drawn: what was predicted over what is known, and how far off it is by age."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from shardkit.report import Plot, colour, svg
from trainer.evaluate.page.words import at, shown
from trainer.evaluate.results import Entry, Evaluation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIDE = (320.0, 300.0)  # points
_POINTS = 1500  # of a plot, at most: a page does not grow with the images


def scatters(of: Evaluation) -> list[tuple[str, Markup]]:
    """Return (heading, plot) for each target of each run at each site; nothing where the task is no regression."""
    if of.kind != "regression":
        return []
    return [
        (f"{name}, {at(entry)}", _scatter(entry, k))
        for entry in of.entries
        for k, name in enumerate(entry.first.classes)
        if entry.first.known[:, k].any()
    ]


def _scatter(entry: Entry, k: int) -> Markup:
    of = entry.first
    known = np.flatnonzero(of.known[:, k])
    kept = known[np.unique(np.linspace(0, len(known) - 1, min(_POINTS, len(known))).round().astype(int))]
    actual, said = of.targets[kept, k], of.scores[kept, k]
    error = entry.scores["mae"].values[0][k]
    low, high = (float(end(np.concatenate([actual, said]))) for end in (np.min, np.max))
    room = 0.04 * (high - low) or 1.0

    def draw(axes: Axes) -> None:
        axes.plot([low, high], [low, high], color=colour("pale"), lw=1, ls=(0, (4, 4)))
        axes.plot(actual, said, ls="", marker="o", ms=3.5, alpha=0.55, mew=0, color=colour("blue"))
        axes.set(xlabel="known", ylabel="predicted", xlim=(low - room, high + room), ylim=(low - room, high + room))
        axes.set_aspect("equal")

    about = f"{of.classes[k]} predicted over known, {at(entry)}: mean absolute error {shown(error)}"
    return svg(Plot(draw, about, extent=_SIDE))
