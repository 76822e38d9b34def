"""The runs that weights went through: from a run to the one that it began with, and so on to the first."""

from dataclasses import dataclass
from pathlib import Path

from shardkit.errors import ShardkitError
from shardkit.storage import is_remote
from trainer.models.initial import RANDOM, facts_of
from trainer.runs import checkpoint, places
from trainer.runs.folder import Facts

_ELSEWHERE, _TOLD = "weights are those of ", "pre-trained on"  # what is said of weights of timm's


@dataclass(frozen=True, slots=True)
class Lineage:
    """What runs say of themselves through which weights went.

    Attributes
    ----------
    runs : tuple of dict
        The last run first; each began with the one behind it.
    whole : bool
        Whether the first of them began at random, so that there is nothing before.
    before : str
        Name of the weights that the first of them began with, where nothing tells what these had seen: they are no
        run's, or the run is gone. Empty where nothing is before, or words tell it, as of timm's weights.
    """

    runs: tuple[Facts, ...]
    whole: bool
    before: str


def lineage(facts: Facts) -> Lineage:
    """Return the runs that a run's weights went through, as far as they are there.

    Parameters
    ----------
    facts
        What `run.json` says of the run.
    """
    runs, done = [facts], set[str]()
    while (source := runs[-1].get("init")) is not None and source not in done and (earlier := facts_at(source)):
        done.add(source)
        runs.append(earlier)
    weights = str(runs[-1].get("weights", RANDOM))
    whole = source is None and weights == RANDOM
    told = weights.startswith(_ELSEWHERE) and _TOLD in weights
    return Lineage(tuple(runs), whole, "" if whole or told else Path(source).name if source else "their file")


def facts_at(source: str) -> Facts:
    """Return what a run says of itself; nothing of weights that are no run's, or of one that is gone.

    Parameters
    ----------
    source
        A run's folder or url, one of its checkpoints, or whatever else weights begin with.
    """
    if is_remote(source):
        return places.facts_at(source)
    try:
        return facts_of(checkpoint.named(Path(source))) if Path(source).is_dir() else {}
    except ShardkitError:
        return {}
