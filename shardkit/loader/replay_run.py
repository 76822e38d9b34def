"""A step of a training run, by the run's own count, as a step of an epoch: `run.json` says all that it takes."""

import json
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError, StorageError
from shardkit.loader.loader import Loader
from shardkit.loader.replay import open_loader
from shardkit.plan import from_text
from shardkit.plan.epoch import WINDOW
from shardkit.plan.spec import PlanSpec
from shardkit.storage import Store, is_remote, local_path, no_folder, shown

_FILE = "run.json"


def at_step(run: str | Path, step: int, dataset: str | None) -> tuple[Loader, int]:
    """Open a loader at the epoch of a run's step.

    Parameters
    ----------
    run : str or Path
        Folder or url of the training run.
    step : int
        As the run's log counts, from 1.
    dataset : str, optional
        Where the dataset lies now, if it has moved.

    Returns
    -------
    loader : Loader
        At that epoch, for the whole world.
    at : int
        That step of the epoch, from 0.

    Raises
    ------
    ArgumentError
        Where there is no such run or step, or where the dataset has changed since.
    """
    facts, run = _facts(str(run)), shown(str(run))
    config, last = facts["config"], facts.get("steps")
    if step < 1 or (last is not None and step > last):
        raise ArgumentError(f"{run} has no step {step}: its steps are 1 to {last or '...'}")
    split = config["loader.split"]
    window = config.get("loader.window", WINDOW)  # runs of before had no other
    plan_spec = PlanSpec(None if split == "all" else split, "", window, from_text(config["loader.batching"]))
    begun, epoch = _since(run, facts, step)
    loader = open_loader(dataset or facts["data"], plan_spec, config["run.seed"], epoch)
    if loader.state_dict()["manifest_digest"] != facts["digest"]:
        raise ArgumentError(
            f"{dataset or facts['data']} is not the dataset that {run} was trained on, {facts['digest'][:12]}: samples"
            " were added since, or it is another one; its steps cannot be shown any more"
        )
    if PlanSpec.read(facts.get("plan") or str(loader.plan_spec)).labels != loader.plan_spec.labels:
        raise ArgumentError(
            f"the labels of {dataset or facts['data']} name another {split} than when {run} was trained: put the table"
            " back as it was to see its steps"
        )
    at = step - 1 - begun
    while not loader.plan.has(at):
        at -= len(loader.plan)
        epoch += 1
        loader.load_state_dict({**loader.state_dict(), "epoch": epoch})
    return loader, at


def _facts(run: str) -> dict[str, Any]:
    if not is_remote(run) and (absent := no_folder(local_path(run))):
        raise ArgumentError(f"--run: {absent}")
    store, run = Store(run), shown(run)
    path = f"{run}/{_FILE}"
    try:
        found = json.loads(store.get(_FILE))
        _ = [found[name] for name in ("data", "digest")]
        _ = [found["config"][name] for name in ("loader.batching", "loader.split", "run.seed")]
        return dict(found)
    except StorageError as error:
        raise ArgumentError(f"--run {run}: {error}") from None
    except (ValueError, KeyError, TypeError):
        raise ArgumentError(f"--run {run}: {path} does not describe a training run") from None


def _since(run: str, facts: dict[str, Any], step: int) -> tuple[int, int]:
    """Find the steps done and the epoch when the run's present dataset came in; ArgumentError for a step before."""
    came = {int(at): change for at, change in facts.get("changes", {}).items() if "digest" in change}
    begun = max(came, default=0)
    if step <= begun:
        raise ArgumentError(f"the dataset of {run} changed after step {begun:,}: step {step:,} cannot be shown")
    return begun, int(came[begun]["epoch"]) if came else 0
