"""Who is learnt from and who is asked about: tables of labels with a split by patient, alike at both sites."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.downstream_runs import Job
from trainer.assess import parts

FOLDS = ("fold0", "fold1", "fold2")
FIRST = FOLDS[0]
"""The fold whose test patients hold those of NIH's official test list."""
SHARES = {"fold0-third": 1 / 3}
"""The first fold with fewer patients to pre-train on."""
LABELS = ("view", "sex", "pa", "female")
"""Two categories, and the same as binary labels: `pa` is 1 for PA, `female` for F."""
_SEED, _PIECES = 0, 12
Rows = npt.NDArray[np.int64]


def tables(site: str, dataset: Path, out: Path) -> list[Job]:
    """Return the commands that give a dataset its tables, and write what they read.

    Parameters
    ----------
    site
        Name of the dataset.
    dataset, out
        The dataset, and a folder for tables.
    """
    manifest = pq.read_table(dataset / "manifest.parquet", columns=["key", "patient", "view", "sex"])
    columns = {name: manifest[name].to_pylist() for name in manifest.column_names}
    columns["pa"] = _is(columns["view"], "PA")
    columns["female"] = _is(columns["sex"], "F")
    published = None
    if site == "nih":
        split = pq.read_table(dataset / "labels" / "view.parquet", columns=["key", "split"]).to_pydict()
        published = dict(zip(split["key"], split["split"], strict=True))
    jobs: list[Job] = []
    for name, of in _splits(columns, published).items():
        table = out / f"{site}-{name}.csv"
        out.mkdir(parents=True, exist_ok=True)
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["key", *LABELS, "split"])
            writer.writerows(zip(columns["key"], *(columns[label] for label in LABELS), of, strict=True))
        words = ("label", str(dataset), "--name", name, "--table", str(table), "--by", "key", "--labels", *LABELS)
        jobs.append(Job(f"label-{site}-{name}", (*words, "--split-column", "split"), program="shardkit"))
    return jobs


def _splits(columns: dict[str, list[str]], published: dict[str, str] | None) -> dict[str, list[str]]:
    """Return the split of each sample, by the name of a table."""
    patients = np.unique(columns["patient"], return_inverse=True)[1].astype(np.int64)
    targets = np.array([columns["pa"], columns["female"]], np.float64).T
    strata = parts.strata("multilabel", targets)
    official = np.array([published is not None and published[key] == "test" for key in columns["key"]])
    found = _folds(strata, patients, official)
    splits = {name: _words(len(patients), test) for name, test in found.items()}
    for name, share in SHARES.items():
        train = np.flatnonzero(np.array(splits[FIRST]) == "train")
        kept = train[parts.share(strata[train], patients[train], share, _SEED)]
        splits[name] = _words(len(patients), found[FIRST], kept)
    return splits


def _folds(strata: Rows, patients: Rows, official: npt.NDArray[np.bool_]) -> dict[str, Rows]:
    """Return the test rows of each fold: the official ones are in the first, which gets fewer of the others."""
    rest = np.flatnonzero(~official)
    pieces = [rest[test] for _, test in parts.folds(strata[rest], patients[rest], _PIECES, _SEED)]
    sides = {FIRST: np.flatnonzero(official), **dict.fromkeys(FOLDS[1:], rest[:0])}
    for piece in pieces:
        least = min(sides, key=lambda name: len(sides[name]))
        sides[least] = np.concatenate([sides[least], piece])
    return sides


def _words(number: int, test: Rows, train: Rows | None = None) -> list[str]:
    """Return a split in words; what is neither asked about nor learnt from is in no split."""
    words = np.full(number, "train" if train is None else "", object)
    if train is not None:
        words[train] = "train"
    words[test] = "test"
    return list(words)


def _is(values: list[str | None], wanted: str) -> list[int]:
    return [int(value == wanted) for value in values]
