"""All that tables of predictions tell, computed once: of every run at every site, and of runs against each other."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from shardkit.errors import ArgumentError
from trainer.evaluate import predictions
from trainer.evaluate.calibration import Temperature, fit_temperature
from trainer.evaluate.comparison import Comparison, apart, compare
from trainer.evaluate.decisions import Decisions, decisions
from trainer.evaluate.falls import Fall, only, worst_fall
from trainer.evaluate.groups import Group, group, rows_by
from trainer.evaluate.intervals import LEVEL, REPLICATES, SEED
from trainer.evaluate.kinds import Kind
from trainer.evaluate.predictions import FACTS, Predictions
from trainer.evaluate.seeds import OverSeeds, on_common, over_seeds
from trainer.evaluate.statistics import LESS_IS_BETTER, scores_of
from trainer.evaluate.thresholds import THRESHOLDS
from trainer.evaluate.together import alike

FILE, VALIDATION = "predictions.parquet", "validation.parquet"
"""Predictions of a run on a site, and on the split that a temperature is fitted on."""
LEAK = "Leak: "
"""How a note of predictions begins that a page shows in red."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is computed, and how.

    Attributes
    ----------
    temperature : bool
        Whether scores are divided by a temperature that was fitted on the val split.
    thresholds : tuple of float
        Probabilities from which a class counts as predicted.
    replicates, seed, level
        How often patients are drawn for intervals, by which random numbers, and what share an interval holds.
    """

    temperature: bool = False
    thresholds: tuple[float, ...] = THRESHOLDS
    replicates: int = REPLICATES
    seed: int = SEED
    level: float = LEVEL

    @property
    def drawing(self) -> dict[str, Any]:
        """What intervals are made with."""
        return {"replicates": self.replicates, "seed": self.seed, "level": self.level}


def headline_score(kind: Kind, classes: int) -> str:
    """Return the score that stands above all others: of several categories the balanced accuracy, else the mean AUC."""
    if kind == "regression":
        return "mae"
    return "balanced_accuracy" if kind == "multiclass" and classes > 2 else "auc"


def main_scores(kind: Kind, classes: int) -> tuple[str, ...]:
    """Return the scores that a table shows that has no room for all."""
    if kind == "regression":
        return ("mae", "rmse")
    rest = [score for score in ("auc", "ap", "balanced_accuracy") if score != headline_score(kind, classes)]
    return (headline_score(kind, classes), *rest)


@dataclass(frozen=True)
class Entry:
    """A run at a site.

    Attributes
    ----------
    seeds : tuple of Predictions
        One, or one for each seed of the run, all of the same samples.
    temperatures : tuple of Temperature
        What the scores of each were divided by; none where nothing was.
    settings : Settings
        How scores are computed.
    """

    seeds: tuple[Predictions, ...]
    temperatures: tuple[Temperature, ...]
    settings: Settings

    @property
    def first(self) -> Predictions:
        """The first seed's: drawings are of it."""
        return self.seeds[0]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.first.about.run

    @property
    def site(self) -> str:
        """The dataset's name."""
        return self.first.about.site

    @property
    def headline(self) -> OverSeeds:
        """The score that stands above all others."""
        return self.scores[headline_score(self.first.about.kind, len(self.first.classes))]

    @property
    def scored(self) -> tuple[str, ...]:
        """Classes that the headline is a mean of; all where it is one score of all classes."""
        return tuple(one.name for one in self.headline.patients.of if one.value is not None)

    def on(self, classes: tuple[str, ...]) -> OverSeeds:
        """Return the headline of some of the classes."""
        if classes == self.scored:
            return self.headline
        if classes not in self._on:
            seeds = [only(of, classes) for of in self.seeds]
            self._on[classes] = over_seeds(seeds, self.headline.patients.score, **self.settings.drawing)
        return self._on[classes]

    @cached_property
    def _on(self) -> dict[tuple[str, ...], OverSeeds]:
        return {}

    @cached_property
    def decisions(self) -> Decisions:
        """What scores do when somebody decides by them."""
        return decisions(self.seeds, self.settings.thresholds, self.settings.level)

    @cached_property
    def scores(self) -> Mapping[str, OverSeeds]:
        """All scores with intervals, by name."""
        drawing = self.settings.drawing
        return {name: over_seeds(self.seeds, name, **drawing) for name in scores_of(self.first.about.kind)}

    @cached_property
    def groups(self) -> Mapping[str, tuple[Group, ...]]:
        """The headline's score by what the manifest says of images; facts that are the same everywhere are left out."""
        return {fact: found for fact in FACTS if len(found := self._by(fact)) > 1}

    def _by(self, fact: str) -> tuple[Group, ...]:
        score, drawing = self.headline.patients.score, self.settings.drawing
        return tuple(
            group(name, [of.take(rows) for of in self.seeds], score, **drawing)
            for name, rows in rows_by(self.first, fact).items()
        )


@dataclass(frozen=True)
class Evaluation:
    """Runs at sites.

    Attributes
    ----------
    entries : tuple of Entry
        By run, then by site.
    settings : Settings
        How scores are computed.
    """

    entries: tuple[Entry, ...]
    settings: Settings

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return list(dict.fromkeys(entry.run for entry in self.entries))

    @cached_property
    def sites(self) -> list[str]:
        """Names of the datasets, that of the best headline first: then a fall is read from left to right."""
        values: dict[str, list[float]] = {entry.site: [] for entry in self.entries}
        for entry in self.entries:
            if (value := entry.headline.patients.mean.value) is not None:
                values[entry.site].append(-value if entry.headline.patients.score in LESS_IS_BETTER else value)
        return sorted(values, key=lambda site: (-max(values[site], default=-math.inf), site))

    @property
    def labels(self) -> list[str]:
        """Names of the labels tables, each once."""
        return list(dict.fromkeys(entry.first.about.labels for entry in self.entries))

    @property
    def kind(self) -> Kind:
        """Kind of the task."""
        return self.entries[0].first.about.kind

    def of(self, run: str, site: str) -> Entry | None:
        """Return a run at a site, if it was asked about it."""
        return next((one for one in self.entries if (one.run, one.site) == (run, site)), None)

    def at(self, site: str) -> list[Entry]:
        """Return all runs at a site."""
        return [entry for entry in self.entries if entry.site == site]

    @cached_property
    def falls(self) -> tuple[Fall, ...]:
        """Each run at each site against itself at the site where it is best; where both have an interval."""
        found = []
        for run in self.runs:
            entries = [entry for site in self.sites if (entry := self.of(run, site)) is not None]
            found += [fall for entry in entries if (fall := worst_fall(entry, entries)) is not None]
        return tuple(found)

    @cached_property
    def comparisons(self) -> tuple[tuple[Entry, Entry, Comparison], ...]:
        """Pairs of runs at each site that `apart` says nothing of: the first one's headline less the other's."""
        return tuple((one, other, _compared(one, other)) for one, other, why in self._pairs if not why)

    @property
    def not_compared(self) -> tuple[tuple[Entry, Entry, str], ...]:
        """Pairs of runs at each site that cannot be compared, and why."""
        return tuple(pair for pair in self._pairs if pair[2])

    @cached_property
    def _pairs(self) -> tuple[tuple[Entry, Entry, str], ...]:
        pairs = [pair for site in self.sites for pair in combinations(self.at(site), 2)]
        return tuple((one, other, apart(one.first, other.first)) for one, other in pairs)


def _compared(one: Entry, other: Entry) -> Comparison:
    return compare(one.seeds, other.seeds, one.headline.patients.score, **one.settings.drawing)


def found(folder: Path) -> list[Path]:
    """Return the files of predictions below a folder, in the order of a page: by run, seed and site."""
    return sorted(folder.rglob(FILE))


def evaluation(files: Sequence[Path], settings: Settings) -> Evaluation:
    """Read predictions, and put them together.

    Parameters
    ----------
    files
        Of `predictions.read`.
    settings
        How scores are computed.

    Raises
    ------
    ArgumentError
        There are none, they make no page together, or a temperature is asked for and nothing was predicted for it.
    """
    if not files:
        raise ArgumentError("there are no predictions: leave --page-only out, and name runs and --data")
    together: dict[tuple[str, str], list[tuple[Predictions, Temperature | None]]] = {}
    for path, of in alike([(path, predictions.read(path)) for path in files]):
        fitted = _fitted(path, of) if settings.temperature and of.about.kind != "regression" else None
        together.setdefault((of.about.run, of.about.site), []).append((_cooled(of, fitted), fitted))
    entries = [_entry(pairs, settings) for pairs in together.values()]
    whole = Evaluation(tuple(entries), settings)
    ordered = sorted(entries, key=lambda entry: (entry.run, whole.sites.index(entry.site)))
    return Evaluation(tuple(ordered), settings)


def _entry(pairs: Iterable[tuple[Predictions, Temperature | None]], settings: Settings) -> Entry:
    ordered = sorted(pairs, key=lambda pair: pair[0].about.seed or 0)
    return Entry(on_common([of for of, _ in ordered]), tuple(t for _, t in ordered if t is not None), settings)


def _fitted(path: Path, of: Predictions) -> Temperature:
    """Fit a temperature on what the run said of the val splits of its training, which lie beside those of its sites."""
    folder = path.parent.parent
    held = [one for place in sorted(folder.glob(f"*/{VALIDATION}")) if (one := _held(place, of)) is not None]
    if not held:
        raise ArgumentError(
            f"{folder} has no {VALIDATION} of these weights: predict with --temperature, and with the dataset of the"
            " training"
        )
    scores, targets = (np.concatenate([getattr(one, name) for one in held]) for name in ("scores", "targets"))
    return fit_temperature(of.about.kind, scores, targets)


def _held(place: Path, of: Predictions) -> Predictions | None:
    """Return what was said of a val split; None where other weights said it, or of the dataset as it was before."""
    held, beside = predictions.read(place), place.with_name(FILE)
    same = (held.about.checkpoint, {*held.classes}) == (of.about.checkpoint, {*of.classes})
    if not same or (beside.exists() and predictions.read(beside).about.digest != held.about.digest):
        return None
    return Predictions(replace(held.about, classes=of.classes), held.table)


def _cooled(of: Predictions, fitted: Temperature | None) -> Predictions:
    if fitted is None:
        return of
    facts = {name: of.table[name].to_pylist() for name in ("patient", *FACTS)}
    return Predictions(of.about, predictions.table_of(of.about, of.keys, fitted.apply(of.scores), of.targets, facts))
