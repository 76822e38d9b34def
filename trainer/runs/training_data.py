"""What a run is trained on, as `run.json` names it, and whether a dataset is that, or a part, a copy or more of it."""

import heapq
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from shardkit import Dataset, Loader
from shardkit.errors import ArgumentError
from shardkit.labels.split_names import Choice, Split

GONE = "the run was trained on images of this dataset, by a split that it has no more: on which ones is not known"
"""Where `split_at` finds none."""
_KEYS = 64  # keys that a dataset's samples are known by

Facts = dict[str, Any]
Rows = npt.NDArray[np.int64]


def split_rows(loader: Loader) -> Rows:
    """Return the rows of the loader's split, ascending."""
    samples = loader.plan.samples
    return np.sort(samples.row(np.arange(len(samples))))


def told(loader: Loader) -> list[Facts]:
    """Name what a loader's split is of.

    Parameters
    ----------
    loader
        Of the training split.

    Returns
    -------
    list of dict
        Of each member that has samples in it (one for a dataset): `name` in the mixture, `digest`, and `keys`, the
        smallest ones of those samples: a dataset that grew has another digest, but holds them still.
    """
    keys, rows = loader.columns("key")["key"], split_rows(loader)
    found = []
    for name, of in loader.members.items():
        own = keys.take(pa.array(rows[(rows >= of.start) & (rows < of.stop)])).to_pylist()
        if own:
            found.append({"name": name, "digest": loader.digests[name], "keys": heapq.nsmallest(_KEYS, own)})
    return found


def trained_at(facts: Facts, site: Dataset) -> bool:
    """Return whether a run was trained on samples of a dataset.

    Parameters
    ----------
    facts
        The run's. Older runs name no samples: they are known by the digest alone.
    site
        The dataset, whole.
    """
    members = facts.get("trained", [])
    if site.description.digest in {facts["digest"], *(one["digest"] for one in members)}:
        return True
    keys = pa.array({key for one in members for key in one["keys"]}, pa.string())
    return bool(pc.any(pc.is_in(site.table(["key"])["key"], keys)).as_py())


def split_at(facts: Facts, site: Dataset) -> Choice | None:
    """Return what a run's training split is at a dataset; None where it has no such split, or has it no more.

    Parameters
    ----------
    facts
        The run's. Its split may be a list of several tables' splits, of which each member of a mixture takes its own.
    site
        The dataset.
    """
    named = Split.read(str(facts["config"]["loader.split"]))
    for table in named.tables:
        with suppress(ArgumentError):
            site.label_table(table)  # a plain web server lists only those that were read
    mixed = any(one["name"] for one in facts.get("trained", ()))
    return named.of(site.labels_names) or (named.elsewhere if mixed else None)
