"""Why a run is not validated, and what can be done where a checkpoint has to be chosen by validation."""

from dataclasses import dataclass
from typing import Final

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.labels.split_names import Split
from shardkit.storage import shown
from trainer.config import Config
from trainer.objectives.base import Objective
from trainer.selection import LOSS

SPLITS: Final = ("val", "test")
_OWN = "train on our own split by patient, --loader.split train, beside which there mostly is one"


@dataclass(frozen=True, slots=True)
class Lacking:
    """What a validation lacks.

    Attributes
    ----------
    why
        Words for a sentence.
    instead
        What to do, beside choosing no checkpoint.
    """

    why: str
    instead: str

    def refuse(self, metric: str) -> None:
        """Raise ArgumentError where a checkpoint is to be chosen by a metric; do nothing where the metric is empty."""
        if metric:
            raise ArgumentError(
                f"--select.metric {metric} has nothing to choose by, {self.why}: {self.instead}, or give"
                " --select.metric '' to choose no checkpoint"
            )


def beforehand(config: Config, data: str, loader: Loader, split: str) -> Lacking | None:
    """Return why nothing is measured on a split, as far as the command and the dataset say; None where it is.

    Parameters
    ----------
    config
        Of the run.
    data
        Folder or url of the dataset.
    loader
        Of the training split.
    split
        The one to measure on, as it is typed.
    """
    trained = config.loader.split
    if not config.val.every:
        return Lacking("as --val.every is 0", "give a --val.every above 0")
    if trained in ("all", split):
        return Lacking(f"--loader.split {trained} trains on the {config.select.split} split", _OWN)
    if not any(map(loader.splits.get, split.split(","))) and (split in SPLITS or len(loader.members) == 1):
        why = f"{shown(data)} has no image in the {split} split, so that over-fitting will not show"
        return Lacking(why, _other_split(Split.read(trained), config.select.split))
    return None


def _other_split(trained: Split, wanted: str) -> str:
    """Say on what else to train, where there is no split to measure on beside it."""
    parts = [f"{each}/train" if each.table and not each.part else f"{each}" for each in trained.choices]
    if wanted == "val" and parts != [*map(str, trained.choices)]:
        return f"give --loader.split {','.join(parts)}, which holds out a part of it, or {_OWN}"
    if trained.official:
        return _OWN
    return "train on a dataset of more patients, of whom some fall into it"


def unlabelled(split: str) -> Lacking:
    """Return that labels know no image of a split."""
    why = f"the labels know no image of the {split} split"
    return Lacking(why, "choose --labels, or a --loader.split, with labelled images there")


def unmeasured(objective: Objective, split: str, unmeasurable: tuple[str, ...]) -> Lacking:
    """Return that the labels of a split give some metrics no value, and which metrics have one.

    Parameters
    ----------
    objective
        What is trained.
    split
        The split.
    unmeasurable
        The metrics without a value.
    """
    names = objective.classes
    of = f" of {names[0]}" if len(names) == 1 else ""
    why = f"the labels{of} of the {split} split are too few, or all the same, to measure it"
    there = [name for name in (LOSS, *(objective.judged or ())) if name not in unmeasurable]
    more = "" if names and len(names) > 1 else ", or more classes with --objective.columns"
    return Lacking(why, f"choose by a metric that they do give, --select.metric {' or '.join(there)}{more}")
