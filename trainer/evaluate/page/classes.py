"""Scores of each class and their means, run by run and site by site."""

from dataclasses import dataclass

from markupsafe import Markup, escape

from shardkit.report import number
from shardkit.terminal.words import listed
from trainer.evaluate.intervals import Estimate
from trainer.evaluate.page.words import NONE, at, each, in_sentence, interval, name_of, overall, shown
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
        Why classes lack scores, and of how many classes means are, a sentence each.
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
    """Say which scores classes lack, and why; and of how many classes means are, which differs from score to score."""
    kind, classes = entry.first.about.kind, entry.first.classes
    scores = {score: entry.scores[score].patients.of for score in _BY_CLASS[kind]}
    lacking: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for k, name in enumerate(classes):
        reasons: dict[str, list[str]] = {}
        for score, of in scores.items():
            if of[k].value is None:
                reasons.setdefault(of[k].reason, []).append(score)
        for why, which in reasons.items():
            lacking.setdefault((why, tuple(which)), []).append(name)
    found = [f"No {_words(which, kind)} of {', '.join(names)}: {why}." for (why, which), names in lacking.items()]
    if found and len(classes) > 1:
        found.append(_counted(scores, len(classes), "targets" if kind == "regression" else "classes"))
    return found


def _counted(scores: dict[str, tuple[Estimate, ...]], all_of: int, what: str) -> str:
    """Say of how many classes the mean of each score is."""
    counts: dict[int, list[str]] = {}
    for score, of in scores.items():
        counts.setdefault(sum(one.value is not None for one in of), []).append(in_sentence(score))
    if len(counts) == 1:
        return f"Means are over the {next(iter(counts))} of {all_of} {what} that can be scored."
    each_of = "; ".join(f"{count} of {all_of} for {listed(names)}" for count, names in sorted(counts.items()))
    return f"Means are over the {what} that can be scored: {each_of}."


def _words(scores: tuple[str, ...], kind: str) -> str:
    return "score" if scores == _BY_CLASS[kind] else listed([in_sentence(score) for score in scores])
