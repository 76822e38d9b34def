"""What would make scores too good, told before anything is trained: patients on both sides of a split, and the like."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shardkit import Loader
from shardkit.labels.split_names import PARTS, Split
from shardkit.terminal.words import counted
from trainer.runs.training_data import split_rows

_WHAT = {
    "patient": ("patient", "patients"),
    "group": ("group of near-duplicates", "groups of near-duplicates"),
}

Words = npt.NDArray[np.object_]


def split_name(loader: Loader) -> str:
    """Return the loader's split as it is typed."""
    return loader.plan_spec.split or "all"


def warnings(loader: Loader, labels: str, official: Words) -> list[str]:
    """Return sentences on a split that is not the official one, and on what is on both of its sides.

    Parameters
    ----------
    loader
        Of the training split.
    labels
        Name of the labels.
    official
        Their official split of each row, None where there is none.
    """
    split, found = Split.read(split_name(loader)), []
    if labels not in split.tables and any(word is not None for word in official):
        found.append(
            f"the labels {labels} have an official split, and --loader.split {split} is another one: published scores"
            f" are of the official one, --loader.split {labels}:train"
        )
    columns, rows = loader.columns("patient", "group", "split"), split_rows(loader)
    sides = _sides(loader, split, columns["split"])
    for what, names in _WHAT.items():
        of = columns[what].to_numpy()
        trained = {value for value in of[rows] if value is not None}
        for word in [word for word in dict.fromkeys(sides.tolist()) if word is not None]:
            there = np.setdiff1d(np.flatnonzero(sides == word), rows)
            if both := trained & {value for value in of[there] if value is not None}:
                found.append(
                    f"{counted(len(both), *names)} {'has' if len(both) == 1 else 'have'} images both in the training"
                    f" split {split} and in {word}: scores of {word} are too good"
                )
    return found


def _sides(loader: Loader, split: Split, own: pa.ChunkedArray) -> Words:
    """Return the split of each row by the loader's own choice of labels tables, by the dataset's elsewhere."""
    sides: Words = own.to_numpy().astype(np.object_).copy()
    for choice in reversed(split.choices):
        if choice.table:
            words = loader.labels(choice.table).split
            if len(loader.members) == 1:
                sides[:] = None  # what the official split leaves out is in none
            for word in {word for word in words if word is not None}:
                parts = [choice.called(part) for part in PARTS] if choice.part and word == choice.word else []
                for name in parts or [choice.called(word)]:
                    sides[(words == word) & name.of_part(own)] = str(name)
    return sides
