"""A run asked about a split: what it says of each sample, once, beside what the labels say."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.terminal.words import counted
from trainer import parallel
from trainer.evaluate import predictions
from trainer.evaluate.groups import years
from trainer.evaluate.kinds import Floats
from trainer.evaluate.predictions import FACTS, UNREAD, Predictions, PredictionsAbout
from trainer.runs.training_data import Rows, split_rows

_NAMED = 5  # samples that a note names


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a network.

    Attributes
    ----------
    about : PredictionsAbout
        What the predictions will say of themselves.
    loader : Loader
        The split, without augmentation, its last batches filled up with empty places.
    targets : ndarray
        float64 (rows, K) by row of the manifest, NaN where unknown.
    """

    about: PredictionsAbout
    loader: Loader
    targets: Floats


def predict(
    question: Question, network: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]
) -> Predictions | None:
    """Ask a network about all samples of a split. All processes call it together, each with its share.

    An image that cannot be read has a substitute in its place, which is a sample of the split itself: what is said of
    it counts once, and the one that is missing is named in the notes.

    Parameters
    ----------
    question
        What is asked.
    network
        Gives scores, (S, K), of a batch with S places.
    autocast
        Makes the context that batches are run in.

    Returns
    -------
    Predictions or None
        On the first process; None on others.

    Raises
    ------
    ArgumentError
        No sample of the split could be read.
    """
    found, scores = _asked(question.loader, network, autocast)
    everybody = parallel.gathered((found, scores))
    if question.loader.rank:
        return None
    rows, scores = each_once(everybody)
    loader, about = question.loader, question.about
    columns = loader.columns("key", "patient", *FACTS)
    unread = np.setdiff1d(split_rows(loader), rows)
    if not len(rows):
        raise ArgumentError(f"no image of the split {about.split} of {about.data} could be read: run shardkit verify")
    if len(unread):
        about = replace(about, notes=(*about.notes, _unread(columns["key"].take(pa.array(unread)).to_pylist())))
    here = columns.take(pa.array(rows))
    facts = {name: here[name].to_pylist() for name in ("patient", *FACTS)}
    facts["age"] = [years(text) for text in facts["age"]]
    table = predictions.table_of(about, here["key"].to_pylist(), scores, question.targets[rows], facts)
    return Predictions(about, table)


@torch.no_grad()
def _asked(
    loader: Loader, network: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]
) -> tuple[Rows, npt.NDArray[np.float32]]:
    """Return rows and scores of this process's share of a split."""
    network.eval()
    rows: list[Rows] = [np.zeros(0, np.int64)]
    scores: list[npt.NDArray[np.float32]] = []
    for batch in loader:
        with autocast():
            said = network(batch)
        there = batch.rows >= 0
        rows.append(batch.rows[there].cpu().numpy())
        scores.append(said.float()[there].cpu().numpy())
    return np.concatenate(rows), np.concatenate(scores) if scores else np.zeros((0, 0), np.float32)


def each_once(parts: Sequence[tuple[Rows, npt.NDArray[Any]]]) -> tuple[Rows, npt.NDArray[Any]]:
    """Return rows that several processes saw, ascending and each once, and their scores."""
    parts = [part for part in parts if len(part[0])] or list(parts[:1])
    rows, scores = (np.concatenate([part[at] for part in parts]) for at in (0, 1))
    found, first = np.unique(rows, return_index=True)  # a substitute's row is there twice
    return found, scores[first]


def _unread(keys: list[str]) -> str:
    named = ", ".join(key[:12] for key in sorted(keys)[:_NAMED])
    more = f" and {len(keys) - _NAMED:,} more" if len(keys) > _NAMED else ""
    return f"{counted(len(keys), 'image')} {UNREAD}, and what stood in its place is not scored: {named}{more}."
