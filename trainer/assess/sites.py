"""A dataset to be asked about: who is in it, and what its labels say."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardkit import Loader
from shardkit.labels import Labels
from trainer.assess.parts import Rows
from trainer.evaluate.kinds import Floats, Kind
from trainer.tasks.config import TaskConfig

_KINDS: dict[str, Kind] = {"binary": "multilabel", "category": "multiclass", "number": "regression"}


@dataclass(frozen=True)
class Site:
    """The samples of a dataset, by row of the manifest.

    Attributes
    ----------
    name, data, digest : str
        Name for tables, where it lies, and its digest.
    keys : tuple of str
        Of the samples.
    patients : tuple of str or None
        Pseudonyms; None where nobody knows.
    own_split : ndarray
        Text (n,), the split of the manifest.
    """

    name: str
    data: str
    digest: str
    keys: tuple[str, ...]
    patients: tuple[str | None, ...]
    own_split: npt.NDArray[np.object_]

    @property
    def numbers(self) -> Rows:
        """int64 (n,), a number for each patient; a sample of an unknown one counts as a patient of its own."""
        names = [patient or f"key {key}" for patient, key in zip(self.patients, self.keys, strict=True)]
        return np.unique(names, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class Answers:
    """What a table of labels says of a site's samples.

    Attributes
    ----------
    labels : str
        Name of the table.
    kind : {"multilabel", "multiclass", "regression"}
        Of the task.
    classes : tuple of str
        K classes.
    targets : Floats
        (n, K), NaN where unknown.
    split : ndarray
        (n,), the official split as text, None where there is none.
    """

    labels: str
    kind: Kind
    classes: tuple[str, ...]
    targets: Floats
    split: npt.NDArray[np.object_]


def site(loader: Loader, data: str, name: str) -> Site:
    """Return a dataset's samples."""
    columns = loader.columns("key", "patient", "split")
    return Site(
        name=name,
        data=data,
        digest=str(loader.state_dict()["manifest_digest"]),
        keys=tuple(columns["key"].to_pylist()),
        patients=tuple(columns["patient"].to_pylist()),
        own_split=np.array(columns["split"].to_pylist(), np.object_),
    )


def answers(loader: Loader, task: TaskConfig, classes: tuple[str, ...] = ()) -> Answers:
    """Return what labels say.

    Parameters
    ----------
    loader
        Of the dataset.
    task
        Names the table, and says what counts as what.
    classes
        Those of the first site, on others.
    """
    labels = task.read(loader)
    found = task.made(labels, classes)
    targets = np.where(found.known, found.values, np.nan).astype(np.float64)
    return Answers(task.labels, task.kind, found.classes, targets, labels.split)


def kind_of(labels: Labels, columns: Sequence[str]) -> Kind:
    """Return the kind of task that labels are for: by their binary columns, else categories, else numbers."""
    there = [labels.kinds[name] for name in (columns or labels.columns) if name in labels.kinds]
    return next((task for kind, task in _KINDS.items() if kind in there), "multilabel")
