"""What becomes of a batch: a loss an image, whatever else is measured, and, of a masked autoencoder, a prediction."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Output:
    """Of a batch with S images' places.

    Parameters
    ----------
    losses
        float32 (S,), what is minimised, of each image; finite where the weight is 0, too.
    weight
        float32 (S,), 1 for an image that counts, 0 where there is none, or none with a label.
    metrics
        What else is measured, by name: (2,), a sum and how many it is of. They are added up over micro-batches and
        processes, and their quotients logged; so every batch has to give the same names. See `trainer.metrics`.
    """

    losses: Tensor
    weight: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict, kw_only=True)

    @property
    def loss(self) -> Tensor:
        """Summed over images; divide by the global step's count of those that count."""
        return (self.losses * self.weight).sum()

    @property
    def images(self) -> Tensor:
        """How many images count."""
        return self.weight.sum()


@dataclass(frozen=True, slots=True)
class MaskedOutput(Output):
    """Of a batch with T patches, in the order of its `Sequences`.

    Parameters
    ----------
    prediction
        (T, p * p).
    masked
        bool (T,), which patches were hidden.
    """

    prediction: Tensor
    masked: Tensor
