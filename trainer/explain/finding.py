"""Boxes of the labels, and how well the maps of a run, and maps that know nothing, find them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shardkit import Dataset
from shardkit.labels import LabelTable
from trainer.explain import baselines
from trainer.explain.boxes import Box
from trainer.explain.explaining import ANY, Explained
from trainer.explain.protocols import LEVELS, PROTOCOLS, THRESHOLDS, Fit, Fits, Protocol

RUN: Final = "run"
SOURCES: Final = (RUN, *baselines.NAMES)


def of_table(table: LabelTable, keys: set[str], label: str | None) -> dict[str, list[tuple[str, Box]]]:
    """Return the boxes of samples, by key: class and place. Without a label, those of all classes."""
    found: dict[str, list[tuple[str, Box]]] = {}
    for row in table.boxes.to_pylist() if table.boxes is not None else ():
        if row["key"] in keys and label in (None, row["label"]):
            box = Box(row["top"], row["left"], row["height"], row["width"])
            found.setdefault(row["key"], []).append((row["label"], box))
    return found


def patients(data: Dataset, keys: Sequence[str]) -> dict[str, str]:
    """Return the patient of each sample, a pseudonym, by key; one of its own where none is known."""
    table = data.table(["key", "patient"])
    known = dict(zip(table["key"].to_pylist(), table["patient"].to_pylist(), strict=True))
    return {key: known.get(key) or f"of {key}" for key in keys}


@dataclass(frozen=True, slots=True)
class Found:
    """A box of the labels, and how well maps fit it.

    Attributes
    ----------
    key, label, patient : str
        Sample, class, and whose image it is.
    box : Box
        The labels' box.
    fits : dict of str to Fit
        Of the run's map and of those that know nothing.
    """

    key: str
    label: str
    patient: str
    box: Box
    fits: dict[str, Fit]


@dataclass
class Finds:
    """All boxes that were looked for, in the order of their keys."""

    boxes: list[Found] = field(default_factory=list)

    def add(self, one: Explained, boxes: Sequence[tuple[str, Box]], patient: str, seed: int) -> None:
        """Look for the boxes of an image; those of classes without a map are not looked for."""
        for number, (label, box) in enumerate(boxes):
            found = one.maps.get(label, one.maps.get(ANY))
            if found is None:
                continue
            grid = next(iter(one.raw.values())).shape
            noise = baselines.random(one.frame, (grid[0], grid[1]), one.stride, seed, f"{one.key} {label} {number}")
            maps = {RUN: found, "centre": baselines.centre(one.frame), "random": noise}
            fits = {name: Fit.of(of, box) for name, of in maps.items()}
            self.boxes.append(Found(one.key, label, patient, box, fits))
            self.boxes.sort(key=lambda each: (each.key, each.label, each.box.top, each.box.left))

    def fits(self, source: str) -> Fits:
        """Return how well maps of one source fit."""
        return Fits.together(
            [b.fits[source] for b in self.boxes], [b.label for b in self.boxes], [b.patient for b in self.boxes]
        )

    def at(self, protocol: Protocol) -> int:
        """Return the place of the threshold that is best for the run's maps on these boxes."""
        return self.fits(RUN).searched(protocol)

    def told(self) -> dict[str, Any]:
        """Return all of it as plain values, for a file."""
        if not self.boxes:
            return {"boxes": [], "scores": {}, "curves": {}}
        best = {protocol: self.at(protocol) for protocol in PROTOCOLS}
        sources = {source: self.fits(source) for source in SOURCES}
        boxes = []
        for each in self.boxes:
            fit, at = each.fits[RUN], best["component"]
            got = fit.boxes[at]
            boxes.append(
                {
                    "key": each.key,
                    "label": each.label,
                    "patient": each.patient,
                    "box": _plain(each.box),
                    "found": None if got is None else _plain(got),
                    "iou": {p: float(getattr(fit, p)[best[p]]) for p in PROTOCOLS},
                }
            )
        curves = {
            source: {p: {f"ap{100 * lv:.0f}": fits.curve(p, lv).tolist() for lv in LEVELS} for p in PROTOCOLS}
            for source, fits in sources.items()
        }
        return {
            "thresholds": THRESHOLDS.tolist(),
            "boxes": boxes,
            "scores": {p: self._scores(p, sources) for p in PROTOCOLS},
            "curves": curves,
        }

    def _scores(self, protocol: Protocol, sources: dict[str, Fits]) -> dict[str, Any]:
        run, at = sources[RUN], sources[RUN].searched(protocol)
        return {
            "searched": {
                name: _values(fits.score(protocol, fits.searched(protocol))) for name, fits in sources.items()
            },
            "held_out": {name: _values(fits.held_out(protocol)) for name, fits in sources.items()},
            "by_class": {label: _values(run.of_class(label).score(protocol, at)) for label in run.classes},
        }


def _plain(box: Box) -> dict[str, float]:
    return {"top": box.top, "left": box.left, "height": box.height, "width": box.width}


def _values(score: Any) -> dict[str, Any] | None:
    return None if score is None else {name: getattr(score, name) for name in score.__slots__}
