"""The loss on images that are not trained on: every image of the split once, the same crops and masks each time."""

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shardkit import Loader
from trainer import metrics, parallel
from trainer.bins import BinLosses
from trainer.models.base import Batch
from trainer.models.output import Output
from trainer.objectives.base import Objective
from trainer.parallel import World


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured on a split.

    Attributes
    ----------
    loss : float
        Mean over the images that count; not a number where none does.
    images : int
        How many images that is.
    by_bin : dict of str to float
        The same loss by the bin that images are stored in.
    metrics : dict of str to float or None
        The objective's other metrics.
    seconds : float
        Seconds that it took.
    shown : tuple of Batch and Output
        A batch, and what became of it, for a picture.
    split : str
        Of which split.
    """

    loss: float
    images: int
    by_bin: dict[str, float]
    metrics: dict[str, float | None]
    seconds: float
    shown: tuple[Batch, Output]
    split: str = "val"


class Validation:
    """Measures the loss on a split.

    Parameters
    ----------
    objective
        What is measured.
    loader
        Batches of the split, without augmentation, the last ones filled up with empty places.
    world
        Which process this is.
    split
        Which one it is: val, or test.
    """

    def __init__(self, objective: Objective, loader: Loader, world: World, split: str = "val") -> None:
        self._objective, self._loader, self._split = objective, loader, split
        self._bins = BinLosses(loader, world.device)

    @property
    def measured_on(self) -> str:
        """Names images and targets: values compare where it is the same."""
        digest = self._loader.state_dict()["manifest_digest"]
        said = digest, self._loader.plan_spec.labels, self._objective.facts.get("targets_digest", "")
        return hashlib.sha256(" ".join(said).encode()).hexdigest()[:16]

    @torch.no_grad()
    def measure(self, model: nn.Module, autocast: Callable[[], AbstractContextManager[Any]]) -> Measured:
        """Measure all images of the split. All processes call it together, each with its share of the images.

        Parameters
        ----------
        model
            The objective's, or what wraps it; left in training mode.
        autocast
            Makes the context that batches are run in.
        """
        started, by_bin, shown = time.monotonic(), self._bins.zeros(), None
        said: list[tuple[Tensor, Tensor]] = []
        found: metrics.Sums = {"loss_by_bin": by_bin}
        later: list[tuple[str, metrics.Later]] = []
        self._loader.load_state_dict({**self._loader.state_dict(), "epoch": 0, "step": 0})
        model.eval()
        for batch in self._loader:
            with autocast():
                output = self._objective.run(model, batch)
            self._bins.add(by_bin, batch.rows, output)
            metrics.add(found, metrics.named(output.metrics))
            if waiting := metrics.for_later(output.metrics):
                later += metrics.on_cpu({}, waiting)[1]
            if output.scores is not None:
                said.append((batch.rows.cpu(), output.scores.float().cpu()))
            shown = shown or (batch, output)
        model.train()
        assert shown is not None  # a loader without a step refuses to iterate
        found, _ = metrics.on_cpu(metrics.over_processes(found))
        found |= metrics.finished(later)
        sums, counts = found["loss_by_bin"].tolist()
        return Measured(
            loss=sum(sums) / sum(counts) if sum(counts) else math.nan,  # no image of the split has a label
            images=round(sum(counts)),
            by_bin={n: loss / count for n, loss, count in zip(self._bins.names, sums, counts, strict=True) if count},
            metrics={**metrics.means(found), **(self._objective.judge(*_each_once(said)) if said else {})},
            seconds=time.monotonic() - started,
            shown=shown,
            split=self._split,
        )


def _each_once(said: list[tuple[Tensor, Tensor]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Return the rows that all processes saw, ascending and each once, and their scores."""
    own = torch.cat([rows for rows, _ in said]).numpy(), torch.cat([scores for _, scores in said]).numpy()
    everybody = parallel.gathered(own)
    rows = np.concatenate([rows for rows, _ in everybody])
    scores = np.concatenate([scores for _, scores in everybody])
    found, first = np.unique(rows, return_index=True)  # a substitute's row is there twice
    return found[found >= 0], scores[first[found >= 0]]
