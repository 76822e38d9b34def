"""Scores as a reader sees them: names, digits, intervals, and what is missing and why."""

from shardkit.report import number
from shardkit.terminal.words import counted
from trainer.evaluate.intervals import Estimate
from trainer.evaluate.predictions import Predictions
from trainer.evaluate.results import Entry
from trainer.evaluate.seeds import OverSeeds

NAMES = {
    "auc": "AUC",
    "ap": "Average precision",
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "subset_accuracy": "Subset accuracy",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "brier": "Brier score",
    "mae": "Mean absolute error",
    "rmse": "Root mean square error",
    "median_error": "Median absolute error",
    "bias": "Bias",
    "r2": "R²",
}
"""What scores are called."""
NONE = "–"
_PROPER = ("brier",)  # named after a person
_FEW = 3  # classes whose positives are told one by one


def name_of(score: str) -> str:
    """Return what a score is called."""
    return NAMES.get(score, score.replace("_", " "))


def in_sentence(score: str) -> str:
    """Return what a score is called within a sentence."""
    found = name_of(score)
    return found if found.isupper() or score in _PROPER else found[0].lower() + found[1:]


def mean_name(entry: Entry) -> str:
    """Return what the headline's score is called in a sentence: of several AUCs it is their mean.

    Two categories have the same AUC, and the mean of recalls has a name of its own.
    """
    score, about = entry.headline.patients.score, entry.first.about
    one = len(about.classes) == 1 or (about.kind == "multiclass" and len(about.classes) == 2)
    return f"mean {in_sentence(score)}" if score == "auc" and not one else in_sentence(score)


def shown(value: float | None, digits: int = 3) -> str:
    """Return a score with three digits behind the point, a large one with three in all."""
    if value is None:
        return NONE
    text = f"{value:.{digits}f}" if abs(value) < 10 else f"{value:,.1f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")


def signed(value: float | None) -> str:
    """Return a difference with its sign."""
    text = shown(value)
    return f"+{text}" if value is not None and value > 0 else text


def interval(of: Estimate) -> str:
    """Return the ends of an interval, or why there is none."""
    if of.value is None:
        return of.reason or "not scored"
    return f"{shown(of.low)} to {shown(of.high)}" if of.low is not None else f"no interval: {of.reason}"


def overall(of: OverSeeds) -> Estimate:
    """Return the mean over classes, its interval over patients and, of several seeds, over seeds, too."""
    return of.overall.mean


def each(of: OverSeeds) -> tuple[Estimate, ...]:
    """Return a score's classes, as `overall` has their mean."""
    return of.overall.of


def images(of: Predictions) -> str:
    """Return how many images and patients there are."""
    n, patients = len(of), len(set(of.patients.tolist()))
    return f"{counted(n, 'image')} of {counted(patients, 'patient')}"


def positives(of: Predictions) -> str:
    """Return how many positives there are, class by class where they are few; of a regression how many are known."""
    if of.about.kind == "regression":
        return f"{number(of.known.any(axis=1).sum())} with a known value"
    counts = [int((target == 1).sum()) for target in of.targets.T]
    if len(counts) <= _FEW:
        return ", ".join(f"{name} {number(count)}" for name, count in zip(of.classes, counts, strict=True))
    return f"{number(min(counts))} to {number(max(counts))} positives a class"


def scored(entry: Entry, score: OverSeeds) -> str:
    """Return of how many classes a mean is, where that is not all of them."""
    classes, there = len(entry.first.classes), sum(one.value is not None for one in score.patients.of)
    alone = len(score.patients.of) == 1
    return "" if alone or there == classes else f"mean of {there} of {classes} classes: the others have none"


def at(entry: Entry) -> str:
    """Return which run at which site, as a heading."""
    return f"{entry.run} at {entry.site}"
