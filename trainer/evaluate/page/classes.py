"""Scores of each class and their means, run by run and site by site."""

from dataclasses import dataclass

from markupsafe import Markup, escape

from shardkit.report import number
from trainer.evaluate.intervals import Estimate
from trainer.evaluate.page.words import NONE, at, each, interval, name_of, overall, shown
from trainer.evaluate.results import Entry, Evaluation

_BY_CLASS = {
    "multilabel": ("auc", "ap", "balanced_accuracy", "sensitivity", "specificity", "brier"),
    "multiclass": ("auc", "ap", "balanced_accuracy", "brier"),
    "regression": ("mae", "rmse", "median_error", "bias", "r2"),
}
_CLASSWISE = {"balanced_accuracy": "Recall"}
"""What a score of a multi-class task is called class by class: the balanced accuracy is the mean recall."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below a heading.

    Parameters
    ----------
    title
        Of which run at which site.
    head, rows, foot
        Cells; those of rows are text or Markup.
    left
        Why classes are not scored, a sentence each.
    """

    title: str
    head: list[str]
    rows: list[list[str | Markup]]
    foot: list[str | Markup]
    left: list[str]


def means(of: Evaluation) -> list[Table]:
    """Return, for each site, all scores of all runs: a row a score, a column a run."""
    found = []
    for site in of.sites:
        entries = of.at(site)
        rows: list[list[str | Markup]] = []
        for score in entries[0].scores:
            row: list[str | Markup] = [name_of(score)]
            rows.append(row + [with_interval(overall(entry.scores[score])) for entry in entries])
        found.append(Table(f"At {site}", ["Score", *(entry.run for entry in entries)], rows, [], []))
    return found


def by_class(entry: Entry) -> Table:
    """Return the scores of each class of a run at a site."""
    of, kind = entry.first, entry.first.about.kind
    scores = _BY_CLASS[kind]
    rows: list[list[str | Markup]] = []
    for k, name in enumerate(of.classes):
        counts = [number(of.known[:, k].sum())]
        if kind != "regression":
            counts.append(number((of.targets[:, k] == 1).sum()))
        cells = [with_interval(each(entry.scores[score])[k]) for score in scores]
        if kind != "regression":
            cells.insert(1, _delong(entry, k))
        rows.append([name, *counts, *cells])
    foot: list[str | Markup] = ["Mean", "", *([""] * (kind != "regression"))]
    foot += [with_interval(overall(entry.scores[score])) for score in scores]
    if kind != "regression":
        foot.insert(4, NONE)
    return Table(at(entry), _head(kind), rows, foot, _left(entry))


def _head(kind: str) -> list[str]:
    names = [name_of(score) for score in _BY_CLASS[kind]]
    if kind == "regression":
        return ["Target", "Known", *names]
    if kind == "multiclass":
        names = [_CLASSWISE.get(score, name_of(score)) for score in _BY_CLASS[kind]]
    return ["Class", "Known", "Positives", names[0], "DeLong", *names[1:]]


def with_interval(of: Estimate) -> Markup:
    """Return a score with its interval below; a dash with the reason, where there is none."""
    if of.value is None:
        return Markup('<span class="soft" title="{}">{}</span>').format(of.reason, NONE)
    small = interval(of) if of.low is not None else "no interval"
    return Markup('{}<small title="{}">{}</small>').format(shown(of.value), of.reason, small)


def _delong(entry: Entry, k: int) -> Markup:
    """Return DeLong's interval of the first seed's AUC: by patient, and images as independent."""
    ends = [found[k] for found in (entry.decisions.delong_patients, entry.decisions.delong)]
    if ends == [None, None]:
        return escape(NONE)
    cells = [NONE if found is None else f"{shown(found[0])} to {shown(found[1])}" for found in ends]
    return Markup("<small>{}</small><small>images: {}</small>").format(*cells)


def _left(entry: Entry) -> list[str]:
    """Say of which classes there is no score, and why."""
    reasons: dict[str, list[str]] = {}
    for one in entry.headline.patients.of:
        if one.value is None:
            reasons.setdefault(one.reason, []).append(one.name)
    there = len(entry.first.classes) - sum(map(len, reasons.values()))
    found = [f"Not scored, {why}: {', '.join(names)}." for why, names in reasons.items()]
    if found and len(entry.headline.patients.of) > 1:
        found.append(f"Means are over the {there} of {len(entry.first.classes)} classes that can be scored.")
    return found
