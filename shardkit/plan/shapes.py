"""What one rank decodes and runs at once: a micro-batch, and the shape that its batch will have.

A shape is two classes: a `BatchShape` here, which says sizes only, and a `shardkit.loader.batch.Batch`, which holds the
tensors.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div
from shardkit.plan.crops import Crops
from shardkit.plan.samples import Ints


class BatchShape(ABC):
    """How much a batch holds. A frozen dataclass: two batches have equal shapes if they compile to one program.

    Attributes
    ----------
    images : int
        Images that a batch holds at most: the length of its `rows`, or one less.
    """

    __slots__ = ()
    images: int

    @abstractmethod
    def padded_tokens(self, patch: int) -> int:
        """Return the tokens that the model is given: those of images and those of padding.

        Parameters
        ----------
        patch : int
            Side of a patch in pixels.
        """

    @abstractmethod
    def padded_size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """Return the rows and columns that a crop is padded to, at the bottom and right, before it is collated.

        Parameters
        ----------
        height, width : int
            Pixels of the crop.
        patch : int
            Side of a patch in pixels.
        """

    @abstractmethod
    def fitting(self, crops: Crops, at: int, others: list[int]) -> list[int]:
        """Choose what may stand in for an image that cannot be read: it has to fit in the room that is there.

        The choice depends on the arguments alone, so that a replay on another machine shows the same.

        Parameters
        ----------
        crops : Crops
            Those of the micro-batch.
        at : int
            Index of the crop that cannot be read.
        others : list of int
            Indices of the crops of other samples.

        Returns
        -------
        list of int
            Those of `others` that fit, best first.
        """

    def views_of(self, crops: Crops, patch: int) -> list[Crops]:
        """Return the crops of each view that is shown of samples: one, those of the micro-batch, in most shapes.

        Parameters
        ----------
        crops : Crops
            Those of the micro-batch.
        patch : int
            Side of a patch in pixels.
        """
        return [crops]


@dataclass(frozen=True, slots=True)
class Shape(BatchShape):
    """A dense batch: images that are all padded to one size.

    Attributes
    ----------
    images : int
        Images of the batch, padding included.
    height, width : int
        Pixels that each is padded to, in whole patches.
    """

    images: int
    height: int
    width: int

    def padded_tokens(self, patch: int) -> int:
        """See `BatchShape`."""
        return self.images * (self.height // patch) * (self.width // patch)

    def padded_size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """See `BatchShape`. The same for every image."""
        return self.height, self.width

    def fitting(self, crops: Crops, at: int, others: list[int]) -> list[int]:
        """See `BatchShape`. All fit; the next in turn comes first."""
        return sorted(others, key=lambda i: (i - at) % len(crops))


@dataclass(frozen=True, slots=True)
class Pack(BatchShape):
    """A packed batch: images one after another in a sequence of patches.

    Attributes
    ----------
    tokens : int
        Patches of the sequence.
    images : int
        Images that it holds at most.
    longest : int
        A bound on the patches of an image, the same in all packs of a plan; 0 where none but `tokens` is known.
    """

    tokens: int
    images: int
    longest: int = field(default=0, repr=False)  # follows from samples and batching: no part of what a plan is named by

    def padded_tokens(self, patch: int) -> int:
        """See `BatchShape`."""
        return self.tokens

    def padded_size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """See `BatchShape`. Whole patches."""
        return ceil_div(height, patch) * patch, ceil_div(width, patch) * patch

    def fitting(self, crops: Crops, at: int, others: list[int]) -> list[int]:
        """See `BatchShape`. Those with no more tokens fit; the largest comes first."""
        fitting = [i for i in others if crops.tokens[i] <= crops.tokens[at]]
        return sorted(fitting, key=lambda i: (-int(crops.tokens[i]), i))


@dataclass(frozen=True)
class MicroBatch:
    """What one rank decodes and runs at once.

    Attributes
    ----------
    shape : BatchShape
        Shape of its batch, which may hold more images than there are.
    patch : int
        Side of a patch in pixels.
    crops : Crops
        What is shown of each of its n images, in their order; of several views, the region that they lie in.
    repeated : ndarray of bool, (n,)
        Whether the epoch had this sample before.
    """

    shape: BatchShape
    patch: int
    crops: Crops
    repeated: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, shape: BatchShape, patch: int, crops: Crops) -> "MicroBatch":
        """Make one of samples that the epoch has not had yet."""
        return cls(shape, patch, crops, np.zeros(len(crops), np.bool_))

    def views(self) -> list[Crops]:
        """Return the crops of each view, n in each; where there is one view only, `crops`. Made when asked for."""
        return self.shape.views_of(self.crops, self.patch)

    @property
    def padded_tokens(self) -> int:
        """Tokens that the model is given, padding included."""
        return self.shape.padded_tokens(self.patch)

    @property
    def real_tokens(self) -> int:
        """Tokens of images that the epoch had not before."""
        return int(self.crops.tokens[~self.repeated].sum())

    @property
    def repeated_tokens(self) -> int:
        """Tokens of repeated images."""
        return int(self.crops.tokens[self.repeated].sum())

    @cached_property
    def cu_seqlens(self) -> Ints:
        """Where each image begins if they form one sequence of tokens, and its end: int64 (n + 1,)."""
        return np.concatenate([[0], np.cumsum(self.crops.tokens)])

    def substitutes(self, at: int) -> list[int]:
        """Return the crops that may stand in for crop `at`, best first; never one of the same sample."""
        others = np.flatnonzero(self.crops.row != self.crops.row[at]).tolist()
        return self.shape.fitting(self.crops, at, others)
