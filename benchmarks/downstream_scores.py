"""What the runs of the downstream benchmark said, as scores with intervals by patient: from their predictions alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.downstream_splits import FIRST
from trainer.assess.scoring import estimated
from trainer.evaluate import predictions
from trainer.evaluate.predictions import Predictions

Record = dict[str, Any]
TASKS = {"pa": "view", "female": "sex"}
REPLICATES = 2000


def measured(work: Path, folds: Sequence[str], curves: Mapping[str, tuple[str, str]]) -> Record:
    """Return all scores of a work folder: official ones are of the first fold's official test images alone.

    Parameters
    ----------
    work
        Where jobs wrote.
    folds
        Splits that were asked about.
    curves
        Folder of an assessment -> what is varied in it, and its value.
    """
    view = pq.read_table(work / "data" / "nih" / "labels" / "view.parquet", columns=["key", "split"])
    official = set(view.filter(pc.equal(view["split"], "test"))["key"].to_pylist())
    return {
        "official": [
            row for make in (_frozen, _tuned) for row in make(work, [FIRST], official) if row["site"] == "nih"
        ],
        "folds": [row for make in (_frozen, _tuned) for row in make(work, folds)],
        "shares": _shares(work),
        "curves": [row for folder, name in curves.items() for row in _curve(work / folder, name)],
        "boxes": _boxes(work / "explain" / "boxes.json"),
    }


def _boxes(path: Path) -> Any:
    """Read what boxes came to, None without any; the dataset by its name, for figures name no machine's folders."""
    found = _read(path)
    if found:
        found["about"]["data"] = Path(found["about"]["data"]).name
    return found


def _read_predictions(path: Path, only: Set[str] | None) -> Predictions:
    """Read predictions, of some samples of NIH alone where those are named."""
    found = predictions.read(path)
    if only is None or found.about.site != "nih":
        return found
    return found.take(np.flatnonzero([key in only for key in found.keys]))


def _frozen(work: Path, splits: Sequence[str], only: Set[str] | None = None) -> list[Record]:
    """Score frozen features, all labels."""
    by_source: dict[tuple[str, str], list[list[Predictions]]] = defaultdict(list)
    for split in splits:
        for path in sorted((work / f"assess-pretrain-{split}" / "predictions" / split).glob("*.parquet")):
            found = _read_predictions(path, only)
            by_source[found.about.run, found.about.site].append([found])
    return [row for (run, site), parts in by_source.items() for row in _rows(run, site, parts)]


def _tuned(work: Path, splits: Sequence[str], only: Set[str] | None = None) -> list[Record]:
    """Score fine-tuned networks; seeds of one run are fits on the same samples."""
    by_run: dict[tuple[str, str], list[list[Predictions]]] = defaultdict(list)
    for split in splits:
        fits: dict[tuple[str, str], list[Predictions]] = defaultdict(list)
        for path in sorted((work / f"evaluate-{split}").rglob("predictions.parquet")):
            found = _read_predictions(path, only)
            fits[found.about.run.removesuffix(f"-{split}"), found.about.site].append(found)
        for name, seeds in fits.items():
            by_run[name].append(seeds)
    words = {"finetune": "pre-trained, fine-tuned", "scratch": "from scratch, fine-tuned"}
    return [row for (run, site), parts in by_run.items() for row in _rows(words[run], site, parts)]


def _rows(run: str, site: str, parts: Sequence[Sequence[Predictions]]) -> Iterator[Record]:
    """Return a row a task."""
    features, _, method = run.rpartition(", ")
    found = estimated(parts, "auc", REPLICATES)
    for one in found.of:
        yield {
            "task": TASKS.get(one.name, one.name),
            "site": site,
            "features": features,
            "method": method,
            "value": one.value,
            "low": one.low,
            "high": one.high,
            "reason": one.reason,
            "images": found.images,
            "patients": found.patients,
            "fits": sum(map(len, parts)),
        }


def _shares(work: Path) -> list[Record]:
    """Return scores by the share of the patients whose labels are used, of the first fold."""
    return assessed(work / f"assess-pretrain-{FIRST}")


def _curve(folder: Path, name: tuple[str, str]) -> list[Record]:
    rows = [row for row in assessed(folder) if row["features"] == "pre-trained" and row["fraction"] == 1]
    return [{"varied": name[0], "at": name[1], **row} for row in rows]


def assessed(folder: Path) -> list[Record]:
    """Return what an assessment says, a row for each of its features, sites, methods, shares and tasks."""
    found = _read(folder / "assess.json")
    rows = [row for table in found["tables"] for row in table["rows"]] if found else []
    named = [{("features" if name == "source" else name): value for name, value in row.items()} for row in rows]
    return [{**of, "task": task} for row in named for of, task in _by_task(row)]


def _by_task(row: Record) -> Iterator[tuple[Record, str]]:
    """Return a row for each of its classes."""
    kept = {name: row[name] for name in ("site", "features", "method", "fraction", "patients", "images")}
    for label, of in row["classes"].items():
        yield {**kept, **of}, TASKS.get(label, label)


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None
