"""A score of each class, and the mean over those that can be scored."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.evaluate.kinds import Floats

NO_TARGET, NO_POSITIVE, NO_NEGATIVE = "no known target", "no positive", "no negative"
"""Why a class cannot be scored."""


@dataclass(frozen=True, slots=True)
class ByClass:
    """A score of each class.

    Attributes
    ----------
    values : tuple of float or None
        One a class; None where it cannot be scored.
    reasons : tuple of str
        Why not, one a class; empty where it can.
    """

    values: tuple[float | None, ...]
    reasons: tuple[str, ...]

    @property
    def scored(self) -> int:
        """How many classes could be scored."""
        return sum(value is not None for value in self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the classes that could be scored; a class that cannot be is neither 0 nor 0.5."""
        found = [value for value in self.values if value is not None]
        return math.fsum(found) / len(found) if found else None


def by_class(
    predicted: npt.NDArray[Any],
    targets: Floats,
    score: Callable[[Any, Any], float],
    *,
    needs: Sequence[float] = (),
    undefined: str = "",
) -> ByClass:
    """Score each class on the samples whose target is known.

    Parameters
    ----------
    predicted, targets
        (n, K); a target is NaN where unknown.
    score
        Of a class's known targets and what is predicted for them, both (m,).
    needs
        Values, of 0 and 1, that have to be among the targets for a score to exist.
    undefined
        Why there is none where `score` returns NaN.
    """
    words = {1: NO_POSITIVE, 0: NO_NEGATIVE}
    values: list[float | None] = []
    reasons: list[str] = []
    for said, target in zip(predicted.T, targets.T, strict=True):
        known = ~np.isnan(target)
        actual = target[known]
        missing = [words[int(value)] for value in needs if not (actual == value).any()]
        reason = " and ".join(missing) if len(actual) else NO_TARGET
        value = math.nan if reason else float(score(actual, said[known]))
        reasons.append(undefined if not reason and math.isnan(value) else reason)
        values.append(None if math.isnan(value) else value)
    return ByClass(tuple(values), tuple(reasons))
