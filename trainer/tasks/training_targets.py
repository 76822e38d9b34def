"""What the labels say of the training split: whether a task can be learnt, class weights, the unit of a regression."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from trainer.evaluate.kinds import Kind
from trainer.tasks.targets import Targets

Floats = npt.NDArray[np.float32]
_NAMED = 5  # classes that a sentence names


@dataclass(frozen=True)
class TrainingTargets:
    """Targets of the training split.

    Attributes
    ----------
    classes : tuple of str
        As of `Targets`.
    values, known : ndarray
        (n, K), of the n samples that are trained on.
    kind : Kind
        Of the task.
    """

    classes: tuple[str, ...]
    values: Floats
    known: npt.NDArray[np.bool_]
    kind: Kind

    @classmethod
    def of(cls, targets: Targets, rows: npt.NDArray[np.int64], kind: Kind) -> "TrainingTargets":
        """Take the rows that are trained on."""
        return cls(targets.classes, targets.values[rows], targets.known[rows], kind)

    @property
    def labelled(self) -> int:
        """Samples of which anything is known."""
        return int(self.known.any(1).sum())

    @property
    def counts(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Known targets of each class, and how many of them are positive."""
        return self.known.sum(0), (self.known & (self.values == 1)).sum(0)

    def check(self, labels: str, split: str) -> list[str]:
        """Return what a user has to know of the targets, in sentences.

        Raises
        ------
        ArgumentError
            Where there is nothing to learn.
        """
        if not self.labelled:
            raise ArgumentError(
                f"the labels {labels} know none of the {len(self.values):,} images of the split {split}: choose other"
                " --labels, or another --loader.split"
            )
        if self.kind == "multiclass" and len(self.classes) < 2:
            raise ArgumentError(
                f"the labels {labels} have one category only, {self.classes[0]}: there is nothing to tell apart"
            )
        if self.kind == "regression":
            return self._check_numbers(labels)
        known, positive = self.counts
        lacking = [name for name, one in zip(self.classes, positive, strict=True) if not one]
        full = [name for name, one, all_ in zip(self.classes, positive, known, strict=True) if one and one == all_]
        learnt = len(self.classes) - len(lacking) - len(full)
        if learnt == 0:
            raise ArgumentError(
                f"the labels {labels} say the same of all {self.labelled:,} images of the split {split} that they know:"
                " there is nothing to tell apart"
            )
        found = []
        if lacking:
            found.append(f"no image of the training split {split} has {_named(lacking)}: it cannot be learnt")
        if full:
            found.append(f"all images of the training split {split} that are known have {_named(full)}")
        return found

    def _check_numbers(self, labels: str) -> list[str]:
        """Refuse numbers that are all the same."""
        for name, deviation in zip(self.classes, self.unit[1], strict=True):
            if not deviation > 0:
                raise ArgumentError(
                    f"the labels {labels} give all images of the training split the same {name}, or none:"
                    " there is nothing to learn"
                )
        return []

    @property
    def unit(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each number of a regression; 0 and 1 of other tasks."""
        if self.kind != "regression":
            return np.zeros(len(self.classes), np.float32), np.ones(len(self.classes), np.float32)
        values = np.where(self.known, self.values, np.nan).astype(np.float64)
        there = np.flatnonzero(self.known.any(0))
        mean, deviation = np.zeros(len(self.classes)), np.zeros(len(self.classes))
        mean[there], deviation[there] = np.nanmean(values[:, there], 0), np.nanstd(values[:, there], 0)
        return mean.astype(np.float32), deviation.astype(np.float32)

    def weights(self, how: Literal["none", "balanced"]) -> tuple[Floats, Floats]:
        """Return how much a positive and a negative of each class count: float32 (K,) both.

        Balanced, positives and negatives of a class count the same in sum, and the mean over known targets is 1: of n
        known targets with p positives, n / 2p and n / 2(n - p). Of c categories with n_k images each, n / (c n_k). A
        class without one of both sides, and a category without an image, counts 1.

        Raises
        ------
        ArgumentError
            For a regression, which has no classes.
        """
        ones = np.ones(len(self.classes), np.float32)
        if how == "none":
            return ones, ones
        if self.kind == "regression":
            raise ArgumentError("--objective.weights balanced is for classes, and a regression has none: leave it out")
        known, positive = (count.astype(np.float64) for count in self.counts)
        if self.kind == "multiclass":
            there = positive > 0
            return np.where(there, known / (there.sum() * np.maximum(positive, 1)), 1).astype(np.float32), ones
        both = (positive > 0) & (positive < known)
        sides = (np.where(both, known / (2 * np.maximum(n, 1)), 1) for n in (positive, known - positive))
        one, zero = (side.astype(np.float32) for side in sides)
        return one, zero


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
