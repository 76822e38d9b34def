"""Whether a run's dataset, or its labels, are others than those that it learnt from."""

import re
from pathlib import Path

from shardkit import Loader
from shardkit.storage import shown
from shardkit.terminal.words import listed
from trainer.objectives.base import Objective
from trainer.runs.folder import Facts

Data = tuple[str | None, list[str]]
"""Digest of a manifest, and what a plan says of the labels that chose samples of it."""


def data_of(state: Facts) -> Data:
    """Return which data a loader's state is of."""
    return state.get("manifest_digest"), _labels(str(state.get("format")))


def data_of_run(facts: Facts) -> Data:
    """Return which data a run's record is of."""
    return facts["digest"], _labels(facts.get("plan", ""))


def other_targets(before: Facts | None, objective: Objective) -> bool:
    """Return whether labels say something else than a run learnt; of runs without labels, or older ones, nothing."""
    was = (before or {}).get("objective", {}).get("targets_digest")
    return was not in (None, objective.facts.get("targets_digest"))


def changed_since(
    before: Facts | None, last: Facts, loader: Loader, objective: Objective, data: str, out: Path
) -> list[str]:
    """Say that a finished run has not seen its data, or its labels, as they are now: nothing is trained on them.

    Parameters
    ----------
    before, last
        What the run, and its last checkpoint, say of themselves.
    loader, objective
        As they are now.
    data, out
        Folder or url of the dataset, and folder of the run.
    """
    changed = {
        "dataset": data_of(loader.state_dict()) != data_of(last["loader"]),
        "labels": other_targets(before, objective),
    }
    what = [name for name, other in changed.items() if other]
    if not what:
        return []
    verb = "has" if what == ["dataset"] else "have"
    told = (
        f"the {listed(what)} of {shown(data)} {verb} changed since {out} was trained, and it has not learnt from what"
        " is there now: name another --out for a run that does, or train on with a greater --run.steps and"
        " --run.on-new-data restart-epoch"
    )
    return [told]


def _labels(plan: str) -> list[str]:
    return re.findall(" labels=([0-9a-f]+) ", plan)
