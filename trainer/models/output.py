"""What becomes of a batch: a loss an image, whatever else is measured, and, of a masked autoencoder, a prediction."""

from dataclasses import dataclass, field

from torch import Tensor

from trainer.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Output:
    """What became of a batch with S places for images.

    Parameters
    ----------
    losses
        float32 (S,), what is minimised, of each image; finite where the weight is 0, too.
    weight
        float32 (S,), 1 for an image that counts, 0 where there is none, or none with a label.
    metrics
        What else is measured, by name: (2,), a sum and how many values it is of; `Later`, where a device would have to
        be waited for. They are added up over micro-batches and processes, and their quotients logged; so every batch
        has to give the same names. See `trainer.metrics`.
    scores
        (S, K), what a task says of each image; validation hands those of a whole split to `Objective.judge`.
    """

    losses: Tensor
    weight: Tensor
    metrics: Metrics = field(default_factory=dict, kw_only=True)
    scores: Tensor | None = field(default=None, kw_only=True)

    @property
    def loss(self) -> Tensor:
        """Loss summed over images, to be divided by the number of images that count in the global step."""
        return (self.losses * self.weight).sum()

    @property
    def images(self) -> Tensor:
        """Number of images that count."""
        return self.weight.sum()


@dataclass(frozen=True, slots=True)
class MaskedOutput(Output):
    """What became of a batch with T patches, in the order of its `Sequences`.

    Parameters
    ----------
    prediction
        (T, p * p), as the model's targets are.
    masked
        bool (T,), whether a patch was hidden.
    """

    prediction: Tensor
    masked: Tensor
