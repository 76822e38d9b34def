"""What a study found as plain values, what a reader should know before any number, and files of both."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardkit.terminal.words import counted
from trainer.assess.scoring import MAIN, scored_in
from trainer.assess.seen import Seen
from trainer.assess.study import Judged, Result
from trainer.evaluate import predictions
from trainer.evaluate.intervals import Estimate
from trainer.runs.files import atomic_write

FILE, PREDICTIONS = "assess.json", "predictions"
_NAMED = 5  # samples that a note names
Note = tuple[str, str]
"""Kind (alert, good or plain) and sentence."""


@dataclass(frozen=True)
class Table:
    """What was found for a table of labels."""

    labels: str
    judged: Judged
    notes: tuple[Note, ...]

    @property
    def score(self) -> str:
        """Name of the score."""
        return MAIN[self.judged.kind]

    @property
    def fractions(self) -> list[float]:
        """Shares of the training patients."""
        return sorted({result.fraction for result in self.judged.results})

    def rows(self) -> Iterator[tuple[str, str, str, list[Result]]]:
        """Return site, source and method of each row, and its results by share."""
        found: dict[tuple[str, str, str], list[Result]] = {}
        for result in self.judged.results:
            found.setdefault((result.site, result.source, result.method), []).append(result)
        for (site, source, method), results in sorted(
            found.items(), key=lambda item: self.judged.sites.index(item[0][0])
        ):
            yield site, source, method, sorted(results, key=lambda result: result.fraction)


def notes(judged: Judged, seen: Seen) -> tuple[Note, ...]:
    """Return what a reader should know.

    Parameters
    ----------
    judged
        What was found.
    seen
        What the weights were trained on.
    """
    told = [note for site, keys in judged.tested.items() for note in _seen(site, keys, seen)]
    told += [("alert", _unread(site, keys)) for site, keys in judged.unread.items() if keys]
    first = {result.site: result for result in reversed(judged.results)}
    return (*told, *(("alert", sentence) for result in first.values() for sentence in _lacking(result)))


def _unread(site: str, keys: Sequence[str]) -> str:
    named = ", ".join(key[:12] for key in keys[:_NAMED]) + (" and others" if len(keys) > _NAMED else "")
    return f"{counted(len(keys), 'image')} of {site} could not be read, and nothing is learnt from or said of: {named}."


def _lacking(result: Result) -> Iterator[str]:
    """Name the classes that a mean is without, and those that not every fold could score."""
    there = scored_in(result.fits, result.estimates.score)
    for one, number in zip(result.estimates.of, there.sum(axis=0), strict=True):
        if one.value is None:
            yield f"{one.name} of {result.site} has no score, and counts in no mean: {one.reason}."
        elif number < len(there):
            yield f"{one.name} of {result.site} can be scored in {number} of {len(there)} folds: its score is of those."


def _seen(site: str, keys: Sequence[str], seen: Seen) -> Iterator[Note]:
    labelled = sum(key in seen.labelled for key in keys)
    plain = sum(key in seen.plain for key in keys)
    before = "in the training of these weights" if seen.labelled else "in the pre-training"
    asked = f"of the {len(keys):,} images of {site} that are asked about were"
    if labelled:
        yield "alert", f"{labelled:,} {asked} trained on, with labels: the features may know what is asked."
    if plain:
        yield "alert", f"{plain:,} {asked} in the pre-training, without their labels: the features may know them."
    if not seen.whole:
        more = "other images" if labelled or plain else "images"
        yield "plain", f"Whether {more} of {site} were {before} is not known here."
    elif not labelled and not plain:
        yield "good", f"No image of {site} that is asked about was {before}."


def write(out: Path, about: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Write all figures, and the predictions made with all labels."""
    out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for result in table.judged.results:
            if result.fraction == max(table.fractions):
                _write_predictions(out / PREDICTIONS / table.labels, result)
    values = {**about, "tables": [_table(table) for table in tables]}
    with atomic_write(out / FILE) as fresh:
        fresh.write_text(json.dumps(values, indent=1, default=str, allow_nan=False) + "\n")


def _write_predictions(folder: Path, result: Result) -> None:
    for part, fits in enumerate(result.fits):
        name = "-".join((result.site, result.source, result.method, str(part))).replace(" ", "_").replace(",", "")
        predictions.write(fits[0], folder / f"{name}.parquet")


def _table(table: Table) -> dict[str, Any]:
    return {
        "labels": table.labels,
        "kind": table.judged.kind,
        "asked": table.judged.asked,
        "score": table.score,
        "tested": {site: len(keys) for site, keys in table.judged.tested.items()},
        "notes": [sentence for _, sentence in table.notes],
        "rows": [_row(result) for result in table.judged.results],
    }


def _row(result: Result) -> dict[str, Any]:
    of = result.estimates
    return {
        "site": result.site,
        "source": result.source,
        "method": result.method,
        "fraction": result.fraction,
        "patients": result.patients,
        "images": result.images,
        **_estimate(of.mean),
        "draws": list(result.draws),
        "penalties": list(result.penalties),
        "classes": {one.name: _estimate(one) for one in of.of},
    }


def _estimate(of: Estimate) -> dict[str, Any]:
    return {"value": of.value, "low": of.low, "high": of.high, "reason": of.reason}
