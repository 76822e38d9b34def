"""Which images weights have been trained on: by their run, and by those that it began with, one after another."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from shardkit import Loader
from shardkit.errors import ShardkitError
from trainer.assess.weights import loader_of
from trainer.commands.training import open_loader
from trainer.config import LoaderConfig
from trainer.recipes.registry import RECIPES
from trainer.runs import folder
from trainer.runs.lineage import facts_at, lineage
from trainer.runs.training_data import keys_of
from trainer.tasks import trained


@dataclass(frozen=True, slots=True)
class Seen:
    """What weights have been trained on.

    Attributes
    ----------
    plain, labelled : frozenset of str
        Keys of samples, without labels and with them.
    whole : bool
        Whether that is all; else there may be more that nobody knows.
    """

    plain: frozenset[str] = frozenset()
    labelled: frozenset[str] = frozenset()
    whole: bool = False


def seen_by(source: str, open_data: Callable[[LoaderConfig, str], Loader]) -> Seen:
    """Return what weights have been trained on, as far as the runs that they went through are there.

    Parameters
    ----------
    source
        A run's folder, one of its checkpoints, or whatever else weights begin with: of that nothing is known.
    open_data
        Opens a run's dataset with its split.
    """
    keys: dict[bool, frozenset[str]] = {False: frozenset(), True: frozenset()}
    if not (last := facts_at(source)):
        return Seen()
    line = lineage(last)
    whole = line.whole
    for facts in line.runs:
        if not facts["config"].get("objective.freeze"):
            own, all_of = _own(facts, open_data)
            keys[trained.has_task(facts)] |= own
            whole &= all_of
    return Seen(keys[False], keys[True], whole)


def _own(facts: folder.Facts, open_data: Callable[[LoaderConfig, str], Loader]) -> tuple[frozenset[str], bool]:
    """Return the keys of what a run was trained on itself, and whether that is all; nothing of data that is gone."""
    try:
        return keys_of(facts, open_data(loader_of(facts), str(facts["data"])))
    except ShardkitError:
        return frozenset(), False


def open_plain(config: LoaderConfig, data: str, weighted: bool = True) -> Loader:
    """Open a dataset as a run has it, without its training; unless `weighted`, a mixture shows each image once."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = RECIPES["tiny"].config  # of which nothing remains but how images come in
    config = replace(config, decoder="auto")  # the dataset may have got another codec since
    return open_loader(replace(recipe, loader=config), data, device, 0, 1, weighted=weighted)
