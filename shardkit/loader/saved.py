"""A loader's state: five plain fields, and whether they belong to a dataset and its plan.

In the middle of a large epoch there is a sixth: what the plan needs to know to go on without the steps before.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shardkit.errors import ArgumentError, StateError
from shardkit.plan.resuming import Mark

FIELDS = ("format", "manifest_digest", "seed", "epoch", "step")
MARK = "mark"
"""Left out of small epochs and of states of before there was one: then the steps before are planned again."""


def make(plan_spec: str, digest: str, seed: int, epoch: int, step: int, mark: Mark | None = None) -> dict[str, Any]:
    """Put a state together as a plain dictionary.

    Parameters
    ----------
    plan_spec : str
        What decides the plan, besides dataset, seed and epoch.
    digest : str
        Names the dataset.
    seed, epoch, step : int
        Seed of the run, and the step that comes next.
    mark : Mark, optional
        Where the plan goes on.
    """
    state = dict(zip(FIELDS, (plan_spec, digest, seed, epoch, step), strict=True))
    return state if mark is None else state | {MARK: mark.plain()}


@contextmanager
def sound() -> Iterator[None]:
    """Translate what a mark of no plan leads to.

    Raises
    ------
    StateError
        Says how to go on.
    """
    try:
        yield
    except (ValueError, ArgumentError) as error:
        raise StateError(
            f"the state's {MARK} is damaged ({error}): leave that field out, and the steps before are planned again"
        ) from None


def _without_labels(plan_spec: str) -> str:
    return re.sub(" labels=[0-9a-f]+ ", " ", plan_spec)


def read(state: dict[str, Any], plan_spec: str, digest: str, url: str) -> tuple[int, int, int, Mark | None]:
    """Take a state apart.

    Parameters
    ----------
    state : dict
        What `make` gave.
    plan_spec, digest, url : str
        Those of the loader that is to go on.

    Returns
    -------
    seed, epoch, step : int
        Seed of the run, and the step that comes next.
    mark : Mark or None
        Where the plan goes on, where the state says so.

    Raises
    ------
    StateError
        For a state of another dataset or plan.
    """
    if set(state) - {MARK} != set(FIELDS):
        raise StateError(f"this is no loader's state: it has the fields {sorted(state)}, not {sorted(FIELDS)}")
    if (named := str(state["manifest_digest"])) != digest:
        raise StateError(
            f"the state belongs to the dataset {named[:12]}, and {url} is {digest[:12]}: samples were added or it is"
            " another one; give it as it was, or start an epoch anew"
        )
    if _without_labels(str(state["format"])) == _without_labels(plan_spec) and state["format"] != plan_spec:
        raise StateError(
            f"the labels that say which samples of {url} are in this split have changed since the state was saved: put"
            " the table back as it was, or start an epoch anew"
        )
    if state["format"] != plan_spec:
        raise StateError(
            f"the state was saved with {state['format']!r} and this loader has {plan_spec!r}: use the same"
        )
    seed, epoch, step = (state[name] for name in FIELDS[2:])
    if not all(isinstance(number, int) for number in (seed, epoch, step)) or min(epoch, step) < 0:
        raise StateError(
            f"this is no loader's state: seed={seed}, epoch={epoch}, step={step} are not all whole numbers"
        )
    with sound():
        mark = Mark.read(state[MARK]) if MARK in state else None
    return seed, epoch, step, mark
