"""The worst errors as pictures: those that were drawn when predictions were made, chosen by the predictions alone."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trainer.evaluate.kinds import Floats
from trainer.evaluate.page.words import NONE, at, shown
from trainer.evaluate.results import Entry, Evaluation

PICTURES = "pictures"
MOST = 8
"""Pictures of a run at a site, at most."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with its words; `source` is None where it was not drawn."""

    key: str
    source: str | None
    said: str
    target: str
    facts: str


def worst(entry: Entry, most: int = MOST) -> list[tuple[int, int]]:
    """Return (row, class) of the largest errors, mean over seeds: an image once, by its worst class.

    Of a task with categories it is the actual class; an image is wrong if another one has the highest probability.
    """
    kind = entry.first.about.kind
    wrong = np.mean([_errors(entry, k) for k in range(len(entry.seeds))], axis=0)
    if kind == "multiclass":
        wrong[entry.first.targets[np.arange(len(wrong)), _mean(entry).argmax(axis=1)] == 1] = 0.0
    at_class = wrong.argmax(axis=1)
    largest = wrong.max(axis=1)
    order = np.argsort(-largest, kind="stable")
    least = 0.5 if kind == "multilabel" else 0.0
    return [(int(row), int(at_class[row])) for row in order[:most] if largest[row] > least]


def _errors(entry: Entry, seed: int) -> Floats:
    """Return how wrong each prediction is, (n, K): 0 where the target is unknown."""
    of = entry.seeds[seed]
    wrong = np.abs(of.probabilities - of.targets)
    if of.about.kind == "multiclass":
        wrong = np.where(of.targets == 1, wrong, 0.0)
    if of.about.kind == "regression" and len(of.classes) > 1:  # in deviations, as numbers may have other units
        spread = [np.std(target[~np.isnan(target)]) if (~np.isnan(target)).any() else 1.0 for target in of.targets.T]
        wrong = wrong / np.maximum(spread, 1e-12)
    return np.where(of.known, wrong, 0.0)


def _mean(entry: Entry) -> Floats:
    """Return probabilities, mean over seeds, (n, K)."""
    return np.asarray(np.mean([of.probabilities for of in entry.seeds], axis=0))


def keys(of: Evaluation) -> dict[str, list[str]]:
    """Return the keys of what is to be drawn, site by site."""
    found: dict[str, list[str]] = {}
    for entry in of.entries:
        found.setdefault(entry.site, []).extend(entry.first.keys[row] for row, _ in worst(entry))
    return {site: list(dict.fromkeys(names)) for site, names in found.items()}


def place(folder: Path, site: str, key: str) -> Path:
    """Return where a picture lies below the folder of a page."""
    return folder / PICTURES / site / f"{key}.jpg"


def shelves(of: Evaluation, folder: Path) -> list[dict[str, Any]]:
    """Return the pictures of each run at each site that has errors to show."""
    found = []
    for entry in of.entries:
        pictures = [_picture(entry, row, k, folder) for row, k in worst(entry)]
        if any(one.source for one in pictures):
            found.append({"title": at(entry), "pictures": pictures})
    return found


def _picture(entry: Entry, row: int, k: int, folder: Path) -> Picture:
    of, key = entry.first, entry.first.keys[row]
    path = place(folder, entry.site, key)
    source = None
    if path.exists():
        source = f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
    facts = [of.fact(name)[row] for name in ("view", "sex", "body_part")]
    age = of.fact("age")[row]
    told = [str(one) for one in facts if one is not None] + ([] if np.isnan(age) else [f"about {age:.0f} years"])
    return Picture(key, source, _said(entry, row, k), _target(entry, row, k), " · ".join(told))


def _said(entry: Entry, row: int, k: int) -> str:
    of = entry.first
    mean = _mean(entry)[row]
    probability = float(mean[k])
    if of.about.kind == "regression":
        return f"{of.classes[k]}: predicted {shown(probability)}"
    if of.about.kind == "multiclass":
        return f"said {of.classes[int(mean.argmax())]} {shown(float(mean.max()), 2)}"
    return f"{of.classes[k]}: said {shown(probability, 2)}"


def _target(entry: Entry, row: int, k: int) -> str:
    of = entry.first
    value = of.targets[row, k]
    if of.about.kind == "multiclass":
        return f"is {of.classes[k]}"
    if np.isnan(value):
        return NONE
    return f"is {shown(float(value))}" if of.about.kind == "regression" else f"is {value:.0f}"
