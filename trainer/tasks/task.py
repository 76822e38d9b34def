"""A task through the loop: scores of a batch, the loss of each image, and what validation makes of all scores."""

from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from trainer.models.base import Batch
from trainer.models.classifier import Classifier
from trainer.models.output import Output
from trainer.objectives.base import Objective
from trainer.tasks.targets import Kind, Targets

_LOSSES = {
    "multilabel": "Binary cross-entropy, the mean over an image's known labels",
    "multiclass": "Cross-entropy of the categories",
    "regression": "Squared error, the mean over an image's known numbers",
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
    kind
        What they are.
    """

    def __init__(self, model: Classifier, of: Targets, kind: Kind) -> None:
        super().__init__(model)
        self.of, self.kind = of, kind
        self.values, self.known = torch.from_numpy(of.values), torch.from_numpy(of.known)

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return f"{_LOSSES[self.kind]}, each image counting the same; images without a known label do not count."

    def run(self, model: nn.Module, batch: Batch) -> Output:
        """See `Objective`."""
        scores: Tensor = model(batch)
        rows = batch.rows.clamp(min=0)
        known = self.known[rows] & (batch.rows >= 0)[:, None]
        return Output(self._losses(scores.float(), self.values[rows], known), known.any(1).float(), scores=scores)

    def _losses(self, scores: Tensor, values: Tensor, known: Tensor) -> Tensor:
        if self.kind == "multiclass":
            return -(nn.functional.log_softmax(scores, 1) * values).sum(1)
        if self.kind == "multilabel":
            each = nn.functional.binary_cross_entropy_with_logits(scores, values, reduction="none")
        else:
            each = (scores - values).square()
        return (each * known).sum(1) / known.sum(1).clamp(min=1)

    def judge(self, rows: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> dict[str, float | None]:
        """See `Objective`."""
        return {}
