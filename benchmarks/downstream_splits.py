"""Who is learnt from and who is asked about: tables of labels with a split by patient, alike at both sites."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from benchmarks.downstream_runs import Job
from trainer.assess import parts

OFFICIAL, FOLDS = "official", tuple(f"fold{at}" for at in range(3))
SHARES = {"official33": 1 / 3}
"""The official split with fewer patients to pre-train on."""
LABELS = ("view", "sex", "pa", "female")
"""Two categories, and the same as binary labels: `pa` is 1 for PA, `female` for F."""
_SEED = 0


def tables(site: str, dataset: Path, out: Path) -> list[Job]:
    """Return the commands that give a dataset its tables, and write what they read.

    Parameters
    ----------
    site
        Name of the dataset. Of nih, the official test patients are asked about in `official`; of others, half.
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
    found = {
        name: test for name, (_, test) in zip(FOLDS, parts.folds(strata, patients, len(FOLDS), _SEED), strict=True)
    }
    if published is None:
        found[OFFICIAL] = parts.folds(strata, patients, 2, _SEED)[0][1]
    else:
        found[OFFICIAL] = np.flatnonzero([published[key] == "test" for key in columns["key"]])
    splits = {name: _words(len(patients), test) for name, test in found.items()}
    for name, share in SHARES.items():
        train = np.flatnonzero(np.array(splits[OFFICIAL]) == "train")
        kept = train[parts.share(strata[train], patients[train], share, _SEED)]
        splits[name] = _words(len(patients), found[OFFICIAL], kept)
    return splits


def _words(number: int, test: npt.NDArray[np.int64], train: npt.NDArray[np.int64] | None = None) -> list[str]:
    """Return a split in words; what is neither asked about nor learnt from is in no split."""
    words = np.full(number, "train" if train is None else "", object)
    if train is not None:
        words[train] = "train"
    words[test] = "test"
    return list(words)


def _is(values: list[str | None], wanted: str) -> list[int]:
    return [int(value == wanted) for value in values]
