"""The headline's score by view, sex, age and body part, with how many stand behind it."""

from typing import Any

from markupsafe import Markup

from shardkit.report import number
from trainer.evaluate.groups import Group
from trainer.evaluate.page.classes import with_interval
from trainer.evaluate.page.words import NONE, at, mean_name
from trainer.evaluate.results import Entry, Evaluation

_FEW = 4  # classes whose positives are told one by one
_TITLES = {"view": "View", "sex": "Sex", "body_part": "Body part", "age": "Age in years"}


def found(of: Evaluation) -> list[dict[str, Any]]:
    """Return tables of groups for each run at each site; of a fact that decides the label there is nothing to tell."""
    tables = []
    for entry in of.entries:
        rows = [
            {"title": _TITLES[fact], "rows": [_row(entry, group) for group in groups]}
            for fact, groups in entry.groups.items()
            if any(group.estimates is None or group.estimates.mean.value is not None for group in groups)
        ]
        if rows:
            tables.append({"title": at(entry), "parts": rows, "head": _head(entry)})
    return tables


def _head(entry: Entry) -> list[str]:
    name = mean_name(entry)
    counts = "Known" if entry.first.about.kind == "regression" else "Positives"
    return ["Images", "Patients", counts, f"{name[:1].upper()}{name[1:]}"]


def _row(entry: Entry, group: Group) -> list[str | Markup]:
    return [group.name, number(group.images), number(group.patients), _counts(entry, group), _score(group)]


def _counts(entry: Entry, group: Group) -> str:
    """Return positives class by class where they are few, else the least and the most of a class."""
    if entry.first.about.kind == "regression":
        return " / ".join(map(number, group.known))
    if len(group.positives) <= _FEW:
        return " / ".join(map(number, group.positives))
    return f"{number(min(group.positives))}–{number(max(group.positives))}"


def _score(group: Group) -> Markup:
    if group.estimates is None:
        return Markup('<span class="soft">{}<small>{}</small></span>').format(NONE, group.reason)
    mean = group.estimates.mean
    if mean.value is None:
        reasons = dict.fromkeys(one.reason for one in group.estimates.of if one.reason)
        return Markup('<span class="soft">{}<small>{}</small></span>').format(NONE, "; ".join(reasons))
    return with_interval(mean)
