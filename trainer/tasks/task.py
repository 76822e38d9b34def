"""A task through the loop: scores of a batch, the loss of each image, and what validation makes of all scores."""

from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.evaluate.scores import summary
from trainer.metrics import mean_of
from trainer.models.base import Batch
from trainer.models.classifier import Classifier
from trainer.models.output import Output
from trainer.objectives.base import Objective
from trainer.tasks.targets import Targets
from trainer.tasks.training_targets import Floats, TrainingTargets

_LOSSES = {
    "multilabel": "Binary cross-entropy, the mean over an image's known labels",
    "multiclass": "Cross-entropy of the categories",
    "regression": "Squared error in standard deviations of the training split, the mean over an image's known numbers",
}


@final
class Task(Objective):
    """Minimises the error of scores; images of which nothing is known have weight 0.

    Parameters
    ----------
    model
        Gives the scores.
    of
        Targets by row of the manifest.
    trained
        Those of the training split.
    weights
        float32 (K,) both, how much a positive and a negative of each class count.
    notes
        What a user has to know of labels and split.
    columns
        The labels that the targets are made of.
    """

    def __init__(
        self,
        model: Classifier,
        of: Targets,
        trained: TrainingTargets,
        weights: tuple[Floats, Floats],
        notes: tuple[str, ...] = (),
        columns: tuple[str, ...] = (),
    ) -> None:
        super().__init__(model)
        self.of, self.kind, self.head = of, trained.kind, model.head
        self.values, self.known = torch.from_numpy(of.values), torch.from_numpy(of.known)
        self.positive, self.negative = map(torch.from_numpy, weights)
        self._notes, self._facts = notes, {"columns": list(columns), **_facts(of, trained, weights)}

    @property
    def classes(self) -> tuple[str, ...]:
        """See `Objective`."""
        return self.of.classes

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        balanced = ", rare classes counting more" if bool((self.positive != 1).any()) else ""
        return f"{_LOSSES[self.kind]}{balanced}, each image counting the same; images without a known label do not."

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Objective`."""
        return self._notes

    @property
    def facts(self) -> dict[str, Any]:
        """See `Objective`."""
        return self._facts

    @property
    def judged(self) -> tuple[str, ...]:
        """See `Objective`."""
        nothing = np.full((1, len(self.of.classes)), np.nan)
        return tuple(summary(self.kind, np.zeros_like(nothing), nothing))

    def labelled(self, rows: npt.NDArray[np.int64]) -> int:
        """See `Objective`."""
        return int(self.of.known[rows].any(1).sum())

    def unmeasurable(self, rows: npt.NDArray[np.int64]) -> tuple[str, ...]:
        """See `Objective`."""
        any_scores = np.repeat(np.arange(len(rows), dtype=np.float32)[:, None], len(self.of.classes), axis=1)
        return tuple(name for name, value in self.judge(rows, any_scores).items() if value is None)

    def run(self, model: nn.Module, batch: Batch) -> Output:
        """See `Objective`."""
        scores: Tensor = model(batch)
        rows = batch.rows.clamp(min=0)
        known = self.known[rows] & (batch.rows >= 0)[:, None]
        values, counts = self.values[rows], known.any(1).float()
        losses = self._losses(scores.float(), values, known)
        return Output(losses, counts, metrics=self._metrics(scores.detach(), values, known, counts), scores=scores)

    def _losses(self, scores: Tensor, values: Tensor, known: Tensor) -> Tensor:
        if self.kind == "multiclass":
            return -(nn.functional.log_softmax(scores, 1) * values * self.positive).sum(1)
        if self.kind == "multilabel":
            each = nn.functional.binary_cross_entropy_with_logits(scores, values, reduction="none")
            each = each * torch.where(values == 1, self.positive, self.negative)
        else:
            each = ((scores - values) / self.head.scale).square()
        return _mean(each, known)

    def _metrics(self, scores: Tensor, values: Tensor, known: Tensor, counts: Tensor) -> dict[str, Tensor]:
        if self.kind == "regression":
            return {"mae": mean_of(_mean((scores - values).abs(), known), counts)}
        if self.kind == "multiclass":
            right = (scores.argmax(1) == values.argmax(1)).float()
        else:
            right = _mean(((scores > 0) == (values == 1)).float(), known)
        return {"accuracy": mean_of(right, counts)}

    def judge(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """See `Objective`."""
        targets = np.where(self.of.known[rows], self.of.values[rows], np.nan).astype(np.float64)
        return summary(self.kind, scores.astype(np.float64), targets)


def _mean(each: Tensor, known: Tensor) -> Tensor:
    """Return means over known classes: (S,)."""
    return torch.where(known, each, 0.0).sum(1) / known.sum(1).clamp(min=1)


def _facts(of: Targets, trained: TrainingTargets, weights: tuple[Floats, Floats]) -> dict[str, Any]:
    known, positive = trained.counts
    mean, deviation = trained.unit
    about = {"known": known, "mean": mean, "deviation": deviation}
    if trained.kind != "regression":
        about = {"known": known, "positive": positive, "weight": weights[0], "negative_weight": weights[1]}
    return {
        "task": trained.kind,
        "classes": list(of.classes),
        "targets_digest": of.digest,
        "trained": len(trained.values),
        "labelled": trained.labelled,
        **{name: np.asarray(values).tolist() for name, values in about.items()},
    }
