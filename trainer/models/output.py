"""What a model says about a batch: an error an image, and a prediction a patch."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Output:
    """Of a batch with S images' places and T patches, in the order of its `Sequences`.

    losses: float32 (S,), mean squared error of each image. weight: float32 (S,), 0 where there is no image.
    prediction: (T, p * p). masked: bool (T,), which patches were hidden.
    """

    losses: Tensor
    weight: Tensor
    prediction: Tensor
    masked: Tensor

    @property
    def loss(self) -> Tensor:
        """Summed over images; divide by the global step's count of them."""
        return (self.losses * self.weight).sum()

    @property
    def images(self) -> Tensor:
        """How many images it holds."""
        return self.weight.sum()
