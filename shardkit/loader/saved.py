"""A loader's state: five plain fields, and whether they belong to a dataset and its plan."""

import re
from typing import Any

from shardkit.errors import StateError

FIELDS = ("format", "manifest_digest", "seed", "epoch", "step")


def make(plan_spec: str, digest: str, seed: int, epoch: int, step: int) -> dict[str, Any]:
    """Put a state together as a plain dictionary.

    Parameters
    ----------
    plan_spec : str
        What decides the plan, besides dataset, seed and epoch.
    digest : str
        Names the dataset.
    seed, epoch, step : int
        Seed of the run, and the step that comes next.
    """
    return dict(zip(FIELDS, (plan_spec, digest, seed, epoch, step), strict=True))


def _without_labels(plan_spec: str) -> str:
    return re.sub(" labels=[0-9a-f]+ ", " ", plan_spec)


def read(state: dict[str, Any], plan_spec: str, digest: str, url: str) -> tuple[int, int, int]:
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

    Raises
    ------
    StateError
        For a state of another dataset or plan.
    """
    if set(state) != set(FIELDS):
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
    return seed, epoch, step
