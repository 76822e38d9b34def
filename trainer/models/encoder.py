"""What an encoder is: a network that turns images into features, without a decoder and without a head."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.models.base import Batch, Model


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder makes of a batch with S places for images.

    Attributes
    ----------
    tokens : Tensor
        (N, width), features of the tokens of all images.
    image : Tensor
        int64 (N,), place of each token's image, 0 to S - 1.
    yx : Tensor
        int (N, 2), row and column of each token in the grid of its image's tokens.
    real : Tensor
        bool (N,), whether a token holds a pixel of its image: no padding, no filler.
    places : int
        S.
    stride : int
        Side of a token in pixels.
    class_token : Tensor or None
        (S, width), of encoders that have one.
    own : function or None
        The encoder's own pooling, norm included: tokens -> (S, own width).
    """

    tokens: Tensor
    image: Tensor
    yx: Tensor
    real: Tensor
    places: int
    stride: int
    class_token: Tensor | None = None
    own: Callable[[Tensor], Tensor] | None = None

    @property
    def there(self) -> Tensor:
        """Whether there is an image in each place: bool (S,)."""
        return self.real.new_zeros(self.places, dtype=torch.int64).index_add(0, self.image, self.real.long()) > 0

    def mean(self) -> Tensor:
        """Return the mean over each image's real tokens: (S, width), 0 where there is no image."""
        real = self.real.to(self.tokens.dtype)[:, None]
        total = self.tokens.new_zeros(self.places, self.tokens.shape[1]).index_add(0, self.image, self.tokens * real)
        number = self.tokens.new_zeros(self.places, 1).index_add(0, self.image, real)
        return total / number.clamp(min=1)


class Encoder(Model, ABC):
    """A model that gives features; a task puts a head on them, see `trainer.models.classifier`."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Channels of a feature."""

    @property
    def own_width(self) -> int:
        """Channels of what its own pooling gives."""
        return self.width

    def own_pooling(self, how: Literal["mean", "token"]) -> Sequence[nn.Parameter]:
        """Return the parameters that take no part where `how` is pooled, and only do in its own pooling."""
        return ()

    @abstractmethod
    def features(self, batch: Batch) -> Features:
        """Run a batch, all of every image."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """Number of the last layer that `layer_of` knows; 0 is the patch embedding."""

    @abstractmethod
    def layer_of(self, name: str) -> int:
        """Return the layer that a parameter belongs to, for learning rates that decay towards the first.

        Parameters
        ----------
        name
            Of a parameter of the encoder.
        """


def real_tokens(yx: Tensor, sizes: Tensor, stride: int) -> Tensor:
    """Return whether tokens hold a pixel of their image: bool (N,).

    Parameters
    ----------
    yx
        int (N, 2), row and column of each token.
    sizes
        int (N, 2), height and width in pixels of each token's image; 0 for none.
    stride
        Side of a token in pixels.
    """
    return torch.all(yx * stride < sizes, dim=1)
