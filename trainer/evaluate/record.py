"""The numbers of a page as plain values: scores.json."""

from dataclasses import asdict
from typing import Any

from trainer.evaluate.by_class import ByClass
from trainer.evaluate.decisions import FRACTIONS, Decisions
from trainer.evaluate.falls import Fall
from trainer.evaluate.results import Entry, Evaluation
from trainer.evaluate.thresholds import AtThreshold


def as_json(of: Evaluation) -> dict[str, Any]:
    """Return all that the tables of a page tell as plain values; those of a task's kind only."""
    return {
        "settings": asdict(of.settings),
        "runs": [_entry(entry) for entry in of.entries],
        "between_sites": [_fall(fall) for fall in of.falls],
        "comparisons": [
            {"first": one.run, "second": other.run, "site": one.site, **asdict(found)}
            for one, other, found in of.comparisons
        ],
        "not_compared": [
            {"first": one.run, "second": other.run, "site": one.site, "why": why} for one, other, why in of.not_compared
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    of = entry.first
    return {
        "run": entry.run,
        "site": entry.site,
        "about": [asdict(one.about) for one in entry.seeds],
        "temperatures": [asdict(one) for one in entry.temperatures],
        "headline": entry.headline.patients.score,
        "known": of.known.sum(axis=0),
        "positives": None if of.about.kind == "regression" else (of.targets == 1).sum(axis=0),
        "scores": {name: asdict(found) for name, found in entry.scores.items()},
        "groups": {fact: [asdict(one) for one in groups] for fact, groups in entry.groups.items()},
        **_decisions(entry.decisions),
    }


def _decisions(of: Decisions) -> dict[str, Any]:
    oracle = {} if of.oracle is None else {mode: {"at": FRACTIONS, "auc": areas} for mode, areas in of.oracle.items()}
    return {
        "delong": of.delong,
        "delong_patients": of.delong_patients,
        "thresholds": [_at_threshold(one) for one in of.thresholds],
        "confusion": of.confusion,
        "calibration": of.calibration or {},
        "oracle_auc": oracle,
    }


def _at_threshold(of: AtThreshold) -> dict[str, Any]:
    scores = {name: getattr(of, name) for name in ("accuracy", "fnr", "fpr", "precision")}
    plain = {name: _by_class(found) for name, found in scores.items()}
    return {"threshold": of.threshold, "subset_accuracy": of.subset_accuracy, **plain}


def _by_class(of: ByClass) -> dict[str, Any]:
    return {"mean": of.mean, **asdict(of)}


def _fall(of: Fall) -> dict[str, Any]:
    """Return a run at a site against itself where it is best: `by` is how much worse it is."""
    scores = {"at_best": asdict(of.here), "at_site": asdict(of.there)}
    ends = {"by": of.by, "low": of.low, "high": of.high}
    return {"run": of.entry.run, "site": of.entry.site, "best": of.best.site, "classes": of.classes, **scores, **ends}
