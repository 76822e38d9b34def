"""What a run learns from: labels by row of the manifest, after the recipe's policy for what is uncertain or blank."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from shardkit.labels import Labels

Uncertain = Literal["zeros", "ones", "ignore"]
Blank = Literal["zeros", "ignore"]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
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
    values: Floats
    known: Mask

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hex, of classes and values: two runs with the same one learn from the same."""
        sha = hashlib.sha256("\n".join(self.classes).encode())
        sha.update(np.ascontiguousarray(self.values, "<f4").tobytes())
        sha.update(np.packbits(self.known).tobytes())
        return sha.hexdigest()


@dataclass(frozen=True, slots=True)
class Policy:
    """What -1 and a blank of a binary label count as.

    Attributes
    ----------
    uncertain
        What -1 counts as.
    ones
        Labels whose -1 counts as 1, whatever `uncertain` says.
    blank
        What a blank counts as, of a sample that has a row in the table; nothing is known of others.
    """

    uncertain: Uncertain = "zeros"
    ones: tuple[str, ...] = ()
    blank: Blank = "zeros"


USUAL = Policy()


def binary(
    labels: Labels,
    columns: tuple[str, ...],
    policy: Policy,
    fold: Mapping[str, str] | None = None,
    classes: tuple[str, ...] = (),
) -> Targets:
    """Return targets of binary labels.

    Parameters
    ----------
    labels
        By row.
    columns
        Which labels; all binary ones where there are none.
    policy
        What -1 and blanks count as.
    fold
        Labels that count as another one: 1 if one of them is 1, 0 if all are 0, else unknown.
    classes
        Names of the classes, of a run that has them already: those that the labels do not have are unknown. Where
        labels of a class are missing, the one of its own name speaks for them; without it, no image is without it.
    """
    fold = fold or {}
    own = {name: _own(labels, columns, fold, name) for name in classes}
    names = tuple(n for n in labels.columns if labels.kinds[n] == "binary" and n in set().union(*own.values()))
    names, values, known = _taken(labels, names if classes else columns, "binary", bool(classes))
    if not classes:
        check_names("--objective.fold", fold, names)
        check_names("--objective.ones", policy.ones, names)
    doubtful: Mask = np.logical_and(known, values == UNCERTAIN)
    up = doubtful & np.array([policy.uncertain == "ones" or name in policy.ones for name in names], np.bool_)
    values = np.where(doubtful, up, values).astype(np.float32)
    if policy.blank == "zeros":
        known = np.broadcast_to(labels.has_row[:, None], known.shape)
    if policy.uncertain == "ignore":
        known = known & (~doubtful | up)
    if not classes:
        own = {}
        for name in names:
            own.setdefault(fold.get(name, name), set()).add(name)
    return _together(own, names, np.where(known, values, 0), known)


def _own(labels: Labels, columns: tuple[str, ...], fold: Mapping[str, str], name: str) -> set[str]:
    """Return the labels that a class of a run is made of: those that the run learnt from, or the one of its name."""
    there = {column for column in labels.columns if labels.kinds[column] == "binary"}
    folded = {old for old, new in fold.items() if new == name}
    of_its_name = {name} & there - fold.keys()
    # A run that names no columns learnt from all.
    own = {c for c in columns if fold.get(c, c) == name} if columns else folded | of_its_name
    return own if own and own <= there else of_its_name or own or {name}


def _together(
    of: Mapping[str, set[str]], names: tuple[str, ...], values: npt.NDArray[np.floating], known: Mask
) -> Targets:
    """Return targets of classes, each of which is made of any number of columns, not all of which need be there."""
    shape = (len(values), len(of))
    one, zero = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for at, own in enumerate(of.values()):
        there = [column for column, name in enumerate(names) if name in own]
        one[:, at] = (values[:, there] == 1).any(1)
        zero[:, at] = known[:, there].all(1) & own.issubset(names) & ~one[:, at]
    return Targets(tuple(of), one.astype(np.float32), one | zero)


def categories(
    labels: Labels,
    column: str,
    fold: Mapping[str, str],
    classes: tuple[str, ...] = (),
    policy: Policy = USUAL,
) -> Targets:
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
    policy
        What -1 and blanks of a binary label count as. Blanks of a label with categories are unknown.
    """
    if labels.kinds.get(column) == "binary":
        of_one = binary(labels, (column,), policy, classes=(column,) if classes else ())
        values, known = of_one.values, of_one.known
    else:
        _, values, known = _taken(labels, (column,), "category")
    words = labels.categories.get(column, ("0", "1"))
    if not classes:
        check_names("--objective.fold", fold, words)
    folded = [fold.get(word, word) for word in words]
    names = classes or tuple(sorted(set(folded)))
    number = np.array([names.index(word) if word in names else -1 for word in folded] or [-1])
    of = np.where(known[:, 0], number[np.clip(values[:, 0], 0, None).astype(np.int64)], -1)
    there = of >= 0
    one_hot = (of[:, None] == np.arange(len(names))) & there[:, None]
    return Targets(names, one_hot.astype(np.float32), np.broadcast_to(there[:, None], one_hot.shape).copy())


def counted(labels: Labels, columns: Sequence[str], policy: Policy, rows: npt.NDArray[np.int64]) -> list[str]:
    """Say of binary labels what their blanks and -1 count as, where they count, and how many there are.

    Parameters
    ----------
    labels
        By row.
    columns
        Those of them that are used; labels of other kinds are left out.
    policy
        What -1 and blanks count as.
    rows
        Of the samples that are asked about.
    """
    names = [name for name in columns if labels.kinds.get(name) == "binary"]
    at = [labels.columns.index(name) for name in names]
    values, known = labels.values[rows][:, at], labels.known[rows][:, at]
    blank = dict(zip(names, (labels.has_row[rows][:, None] & ~known).sum(0).tolist(), strict=True))
    unsure = dict(zip(names, (known & (values == UNCERTAIN)).sum(0).tolist(), strict=True))
    as_one = [n for n in names if policy.uncertain == "ones" or n in policy.ones]
    zero = {n: c for n, c in unsure.items() if n not in as_one and policy.uncertain == "zeros"}
    groups = [
        (
            "Blanks count as 0 (--objective.blank zeros; ignore leaves them out)",
            blank if policy.blank == "zeros" else {},
        ),
        ("Uncertain values (-1) count as 0 (--objective.uncertain zeros)", zero),
        ("Uncertain values (-1) count as 1 (--objective.uncertain, --objective.ones)", {n: unsure[n] for n in as_one}),
    ]
    return [
        f"{what}, on images of this split: {', '.join(f'{n} {c:,}' for n, c in found.items() if c)}."
        for what, found in groups
        if any(found.values())
    ]


def numbers(labels: Labels, columns: tuple[str, ...]) -> Targets:
    """Return targets of numbers, as they are."""
    names, values, known = _taken(labels, columns, "number")
    return Targets(names, np.where(known, values, 0).astype(np.float32), known)


def the_column(labels: Labels, columns: tuple[str, ...]) -> str:
    """Return the label whose categories are the classes.

    Raises
    ------
    ArgumentError
        Where that is not clear.
    """
    there = columns or tuple(name for name in labels.columns if labels.kinds[name] == "category")
    if len(there) == 1:
        return there[0]
    if not there:
        raise ArgumentError(f"there is no label with categories: choose {_kinds(labels, 'category')}")
    raise ArgumentError(
        f"a multiclass task is of the categories of one label: choose one by --objective.columns, of {', '.join(there)}"
    )


def check_names(option: str, named: Sequence[str] | Mapping[str, str], there: Sequence[str]) -> None:
    """Refuse names that are none of those that there are.

    Raises
    ------
    ArgumentError
        Says which there are.
    """
    for name in named:
        if name not in there:
            raise ArgumentError(f"{option} names {name}, which is none of {', '.join(there)}")


def _taken(
    labels: Labels, columns: tuple[str, ...], kind: str, may_lack: bool = False
) -> tuple[tuple[str, ...], Floats, Mask]:
    names = columns or tuple(name for name in labels.columns if labels.kinds[name] == kind and not may_lack)
    if not names and not may_lack:
        raise ArgumentError(f"there is no {kind} label: choose {_kinds(labels, kind)}")
    for name in names:
        if labels.kinds.get(name) != kind:
            what = f"{name} is no {kind} label" if name in labels.kinds else f"there is no label {name}"
            raise ArgumentError(f"{what}: choose {_kinds(labels, kind)}")
    at = [labels.columns.index(name) for name in names]
    return names, labels.values[:, at], labels.known[:, at]


_FITTING = {"binary": "multilabel", "category": "multiclass", "number": "regression"}


def _kinds(labels: Labels, kind: str) -> str:
    """Return what could be chosen instead, for the end of a sentence."""
    parts = [
        f"{'' if own == kind else f'--objective.kind {task} and '}--objective.columns of {', '.join(names)}"
        for own, task in _FITTING.items()
        if (names := [name for name in labels.columns if labels.kinds[name] == own])
    ]
    if kind == "category" and (names := [name for name in labels.columns if labels.kinds[name] == "binary"]):
        parts.append(f"--objective.columns of one binary label, whose classes are 0 and 1: {', '.join(names)}")
    return ", or ".join(parts) or "another --labels: this one has no labels, but a split or boxes only"
