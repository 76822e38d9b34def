"""Whether tables of predictions make one page, and how: of one task, in one order of classes, each site a dataset."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from shardkit.errors import ArgumentError
from trainer.evaluate.predictions import Predictions, PredictionsAbout

_DIGITS = 6  # of a digest that tells sites of one name apart
_REMEDY = "name another --out, or remove"

Places = Sequence[tuple[Path, PredictionsAbout]]
"""Files, and what their predictions are of."""


def check(places: Places) -> None:
    """Refuse predictions that cannot stand on one page.

    Raises
    ------
    ArgumentError
        They are of several tasks; or a run has seeds and none, a seed twice, or seeds of several splits at a site.
    """
    for at, (path, about) in enumerate(places):
        for place, other in places[:at]:
            if (about.kind, {*about.classes}) != (other.kind, {*other.classes}):
                raise ArgumentError(
                    f"{about.run} has other classes than {other.run}, and a page is of one task: evaluate them by two"
                    f" commands, each with another --out{f', or remove {place}' if place.exists() else ''}"
                )
            if about.run == other.run:
                _check_one_run((path, about), (place, other))


def _check_one_run(one: tuple[Path, PredictionsAbout], other: tuple[Path, PredictionsAbout]) -> None:
    (path, about), (place, there) = one, other
    if (about.seed is None) != (there.seed is None):
        raise ArgumentError(
            f"{about.run} is a single run in one of {path} and {place}, and several seeds in the other: {_REMEDY}"
            f" {place}"
        )
    if (about.site, about.digest) != (there.site, there.digest):
        return
    if about.split != there.split:
        raise ArgumentError(
            f"{path} is of the split {about.split}, and {place} of {there.split}: predict the same split of all seeds,"
            " with another --out"
        )
    if about.seed == there.seed:
        raise ArgumentError(f"{path} and {place} are of the same run and dataset: remove one")


def alike(found: Sequence[tuple[Path, Predictions]]) -> list[tuple[Path, Predictions]]:
    """Return predictions with classes in one order, and datasets of one name with names of their own.

    Raises
    ------
    ArgumentError
        See `check`.
    """
    check([(path, of.about) for path, of in found])
    digests: dict[str, set[str]] = {}
    for _, of in found:
        digests.setdefault(of.about.site, set()).add(of.about.digest)
    classes = found[0][1].classes if found else ()
    return [(path, _as(of, classes, len(digests[of.about.site]) > 1)) for path, of in found]


def _as(of: Predictions, classes: tuple[str, ...], several: bool) -> Predictions:
    """Return predictions with classes in this order, and, of `several` datasets of one name, a name by its digest."""
    site = f"{of.about.site}-{of.about.digest[:_DIGITS]}" if several else of.about.site
    about = replace(of.about, classes=classes, site=site)
    return of if about == of.about else Predictions(about, of.table)
