"""What a study found as plain values, what a reader should know before any number, and files of both."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.assess.scoring import MAIN
from trainer.assess.study import Judged, Result
from trainer.evaluate import predictions
from trainer.evaluate.intervals import Estimate
from trainer.runs.files import atomic_write

FILE, PREDICTIONS = "assess.json", "predictions"
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


def notes(judged: Judged, seen: frozenset[str] | None) -> tuple[Note, ...]:
    """Return what a reader should know.

    Parameters
    ----------
    judged
        What was found.
    seen
        Keys of the samples that the weights were trained on; None where nobody can tell.
    """
    found: list[Note] = []
    for site, keys in judged.tested.items():
        if seen is None:
            found.append(("plain", f"Whether images of {site} were in the pre-training is not known here."))
        elif among := sum(key in seen for key in keys):
            said = f"{among:,} of the {len(keys):,} images of {site} that are asked about were in the pre-training"
            found.append(("alert", f"{said}, without their labels: the features may know them."))
        else:
            found.append(("good", f"No image of {site} that is asked about was in the pre-training."))
    return tuple(found)


def write(out: Path, about: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Write all figures, and the predictions made with all labels."""
    out.mkdir(parents=True, exist_ok=True)
    for table in tables:
        for result in table.judged.results:
            if result.fraction == max(table.fractions):
                _write_predictions(out / PREDICTIONS / table.labels, result)
    values = {**about, "tables": [_table(table) for table in tables]}
    with atomic_write(out / FILE) as fresh:
        fresh.write_text(json.dumps(values, indent=1, default=str) + "\n")


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
