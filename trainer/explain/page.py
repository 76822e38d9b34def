"""One page about what a run looks at: pictures with boxes, scores by both protocols, and curves over the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shardkit.report import Plot, Tile, colour, number, render, svg
from trainer.explain import words
from trainer.explain.boxes import Box
from trainer.explain.explaining import ANY, Explained
from trainer.explain.finding import RUN, SOURCES, Finds, Found
from trainer.explain.pictures import FOUND, LABEL, drawn, legend
from trainer.explain.protocols import LEVELS, PROTOCOLS, THRESHOLDS, Fits, Protocol, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS: Final = ("blue", "amber")  # of AP25 and AP50
_STYLES: Final = {RUN: "solid", "centre": "dashed", "random": "dotted"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a command found.

    Attributes
    ----------
    about : Mapping
        Run, step, data, digest, labels, split, method and other options, as plain values.
    images : int
        How many images were explained.
    finds : Finds
        Boxes that were looked for.
    boxes : Mapping of str to sequence
        All boxes of the labels, by key: class and place.
    shown : sequence of Explained
        Images whose pictures are drawn.
    notes : sequence of str
        What a reader should know.
    """

    about: Mapping[str, Any]
    images: int
    finds: Finds
    boxes: Mapping[str, Sequence[tuple[str, Box]]]
    shown: Sequence[Explained]
    notes: Sequence[str]


def page(of: Result) -> bytes:
    """Return the page."""
    fits = {source: of.finds.fits(source) for source in SOURCES} if of.finds.boxes else {}
    parts = {
        "method": "What is shown",
        **({"boxes": "Boxes found, by threshold", "scores": "Scores"} if fits else {}),
        **({"pictures": "Pictures"} if of.shown else {}),
        "configuration": "Configuration",
    }
    at = of.finds.at("component") if fits else 0
    shown = [each for one in of.shown for each in _figures(one, of, at, bool(fits))]
    return render(
        "explanations.html",
        "trainer.explain",
        title=f"{of.about['name']}: {words.NAMES[of.about['method']]}",
        kind="What a model looks at",
        name=f"{of.about['name']}: {words.NAMES[of.about['method']]}",
        contents=parts,
        about=of.about,
        method={"name": words.NAMES[of.about["method"]], "words": words.method(of.about)},
        headline=_headline(of, fits),
        verdicts=[*_verdicts(fits), *(("", note) for note in of.notes)],
        curves=[_curve(fits, protocol) for protocol in PROTOCOLS] if fits else [],
        lines=[
            (f"{words.SOURCES[source]}, {words.level(level)}", hue, _STYLES[source])
            for source in SOURCES
            for level, hue in zip(LEVELS, _COLOURS, strict=True)
        ],
        scores=[_scores(fits, protocol) for protocol in PROTOCOLS] if fits else [],
        shown=shown,
        chosen=words.chosen(len(of.shown), of.images),
        legend=legend(),
        colours=(LABEL, FOUND),
        threshold=f"{THRESHOLDS[at]:.2f}",
        wide=260 * max((len(each["cells"]) for each in shown), default=2),
        configuration=[[name, words.plain(value)] for name, value in of.about.items()],
    )


# ------------------------------------------------------------------------------------------------- numbers


def _headline(of: Result, fits: Mapping[str, Fits]) -> list[Tile]:
    found = [Tile("Images", number(of.images), f"of the split {of.about['split']}")]
    if not fits:
        return found
    run, patients = fits[RUN], len(set(fits[RUN].patients))
    found.append(Tile("Boxes", number(len(run)), f"of {patients:,} patients, {len(run.classes)} classes"))
    for protocol in PROTOCOLS:
        own, base = (fits[name].held_out(protocol) for name in (RUN, "centre"))
        for level, name in (("ap25", "AP25"), ("ap50", "AP50")):
            value, other = (None if each is None else float(getattr(each, level)) for each in (own, base))
            note = f"threshold of the other patients; centre box {words.share(other)}"
            below = value is not None and other is not None and value <= other
            found.append(Tile(f"{name}, {words.PROTOCOLS[protocol]}", words.share(value), note, below))
    return found


def _verdicts(fits: Mapping[str, Fits]) -> list[tuple[str, str]]:
    if not fits:
        return []
    own, base = (fits[name].held_out("component") for name in (RUN, "centre"))
    if own is None or base is None:
        return [
            ("alert", "All boxes are of one patient: no threshold can be chosen without them, and no interval told.")
        ]
    numbers = f"AP25 {words.share(own.ap25)} against {words.share(base.ap25)}, by the box of the largest component"
    if own.ap25 > base.ap25:
        return [("", f"Maps find more boxes than a box in the middle of every image does: {numbers}.")]
    return [("alert", f"Maps find no more boxes than a box in the middle of every image does: {numbers}.")]


def _curve(fits: Mapping[str, Fits], protocol: Protocol) -> dict[str, Any]:
    run = fits[RUN]

    def draw(axes: Axes) -> None:
        for source in reversed(SOURCES):
            for level, hue in zip(LEVELS, _COLOURS, strict=True):
                values = 100 * fits[source].curve(protocol, level)
                thick = 2.2 if source == RUN else 1.2
                axes.plot(THRESHOLDS, values, color=colour(hue), lw=thick, ls=_STYLES[source])
        axes.grid(True, axis="y")
        axes.grid(False, axis="x")
        axes.spines["left"].set_visible(False)
        top = max(100 * float(each.curve(protocol, LEVELS[0]).max()) for each in fits.values())
        axes.set(xlabel="threshold, share of the map’s greatest value", xlim=(0, 1), ylim=(0, max(10.0, 1.1 * top)))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")

    best = run.score(protocol, run.searched(protocol))
    about = (
        f"AP25 and AP50 by threshold, {words.PROTOCOLS[protocol]}: at {best.threshold:.2f} this run has"
        f" {words.share(best.ap25)} and {words.share(best.ap50)}"
    )
    title = words.PROTOCOLS[protocol][0].upper() + words.PROTOCOLS[protocol][1:]
    return {"title": title, "chart": svg(Plot(draw, about)), "words": words.COUNTED[protocol]}


def _scores(fits: Mapping[str, Fits], protocol: Protocol) -> dict[str, Any]:
    rows = []
    for source in SOURCES:
        own = fits[source]
        rows.append(_row(f"{words.SOURCES[source]}, searched", own.score(protocol, own.searched(protocol))))
        if (held := own.held_out(protocol)) is not None:
            rows.append(_row(f"{words.SOURCES[source]}, of the others", held))
    run = fits[RUN]
    at = run.searched(protocol)
    rows += [_row(label, run.of_class(label).score(protocol, at)) for label in run.classes]
    title = words.PROTOCOLS[protocol][0].upper() + words.PROTOCOLS[protocol][1:]
    head = ["", "boxes", "patients", "threshold", "AP25", "AP50", "mean IoU"]
    return {"title": title, "head": head, "rows": rows}


def _row(name: str, score: Score) -> list[str]:
    return [
        name,
        number(score.boxes),
        number(score.patients),
        f"{score.threshold:.2f}",
        words.share(score.ap25, score.ap25_interval),
        words.share(score.ap50, score.ap50_interval),
        f"{score.mean_iou:.3f}",
    ]


# ------------------------------------------------------------------------------------------------- pictures


def _figures(one: Explained, of: Result, at: int, scored: bool) -> list[dict[str, Any]]:
    """Return the figures of an image, one a map."""
    figures = []
    for name, found in one.maps.items():
        fits = [each for each in of.finds.boxes if each.key == one.key and name in (ANY, each.label)]
        labels = [box for label, box in of.boxes.get(one.key, ()) if name in (ANY, label)]
        component = fits[0].fits[RUN].boxes[at] if scored and fits else None
        lines = [
            *([f"sample {one.key}"] if name else []),
            *_said(one, name, of.about),
            *(_fitted(fit, at, of) for fit in fits),
        ]
        figures.append(
            {
                "title": name or f"sample {one.key}",
                "cells": drawn(one, found, labels, component),
                "lines": lines,
            }
        )
    return figures


def _said(one: Explained, name: str, about: Mapping[str, Any]) -> list[str]:
    if name not in one.probabilities:
        return []
    word = "prediction" if about.get("kind") == "regression" else "probability"
    nothing = "" if one.maps[name].values.any() else "; nothing speaks for it: the map is 0 everywhere"
    return [f"{word} {one.probabilities[name]:.3g}{nothing}"]


def _fitted(found: Found, at: int, of: Result) -> str:
    fit, mask = found.fits[RUN], of.finds.at("mask")
    return (
        f"{found.label}: IoU {fit.component[at]:.2f} of the component’s box above {THRESHOLDS[at]:.2f},"
        f" {fit.mask[mask]:.2f} of all above {THRESHOLDS[mask]:.2f}"
    )
