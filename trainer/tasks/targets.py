"""What a run learns from: labels by row of the manifest, after the recipe's policy for what is uncertain or blank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from shardkit.labels import Labels

Kind = Literal["multilabel", "multiclass", "regression"]
Uncertain = Literal["zeros", "ones", "ignore"]
FACTS: Final = "facts"
"""In place of a table's name: the columns of the manifest."""
UNCERTAIN = -1.0


@dataclass(frozen=True)
class Targets:
    """Targets of all samples.

    Attributes
    ----------
    classes : tuple of str
        Names of the K classes: labels, categories of one label, or numbers to be predicted.
    values : ndarray
        float32 (rows, K): 0 or 1, one-hot for several categories; numbers of a regression. 0 where nothing is known.
    known : ndarray
        bool (rows, K), whether the labels say anything.
    """

    classes: tuple[str, ...]
    values: npt.NDArray[np.float32]
    known: npt.NDArray[np.bool_]


def binary(
    labels: Labels,
    columns: tuple[str, ...],
    uncertain: Uncertain,
    ones: tuple[str, ...],
    blank: Literal["zeros", "ignore"],
) -> Targets:
    """Return targets of binary labels.

    Parameters
    ----------
    labels
        By row.
    columns
        Which labels; all binary ones where there are none.
    uncertain
        What -1 counts as.
    ones
        Labels whose -1 counts as 1, whatever `uncertain` says.
    blank
        What a blank counts as, of a sample of which the table knows something; nothing is known of others.
    """
    names, values, known = _taken(labels, columns, "binary")
    doubtful: npt.NDArray[np.bool_] = np.logical_and(known, values == UNCERTAIN)
    up = doubtful & np.array([uncertain == "ones" or name in ones for name in names])
    values = np.where(doubtful, up, values).astype(np.float32)
    said = np.zeros(known.shape, np.bool_)
    said[:] = labels.known.any(1, keepdims=True) if blank == "zeros" else known
    if uncertain == "ignore":
        said &= ~doubtful | up
    known = said
    return Targets(names, np.where(known, values, 0).astype(np.float32), known)


def categories(labels: Labels, column: str, fold: Mapping[str, str], classes: tuple[str, ...] = ()) -> Targets:
    """Return one-hot targets of a label's categories, or of a binary label's 0 and 1.

    Parameters
    ----------
    labels
        By row.
    column
        Which label.
    fold
        Categories that count as another one.
    classes
        Names of the classes, of a run that has them already; others count as unknown.
    """
    _, values, known = _taken(labels, (column,), labels.kinds.get(column, "category"))
    words = labels.categories.get(column, ("0", "1"))
    folded = [fold.get(word, word) for word in words]
    names = classes or tuple(sorted(set(folded)))
    number = np.array([names.index(word) if word in names else -1 for word in folded])
    of = np.where(known[:, 0], number[np.clip(values[:, 0], 0, None).astype(np.int64)], -1)
    there = (of >= 0) & (values[:, 0] >= 0)
    one_hot = (of[:, None] == np.arange(len(names))) & there[:, None]
    return Targets(names, one_hot.astype(np.float32), np.broadcast_to(there[:, None], one_hot.shape).copy())


def numbers(labels: Labels, columns: tuple[str, ...]) -> Targets:
    """Return targets of numbers, as they are."""
    names, values, known = _taken(labels, columns, "number")
    return Targets(names, np.where(known, values, 0).astype(np.float32), known)


def _taken(
    labels: Labels, columns: tuple[str, ...], kind: str
) -> tuple[tuple[str, ...], npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    names = columns or tuple(name for name in labels.columns if labels.kinds[name] == kind)
    for name in names:
        if labels.kinds.get(name) != kind:
            there = ", ".join(f"{n} ({k})" for n, k in labels.kinds.items())
            raise ArgumentError(f"there is no {kind} label {name}: choose --objective.columns of {there}")
    at = [labels.columns.index(name) for name in names]
    return names, labels.values[:, at], labels.known[:, at]
