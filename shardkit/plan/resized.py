"""Images resized to one square."""

from dataclasses import dataclass
from typing import Literal

from shardkit.plan.base import Batching
from shardkit.plan.batchers import Batcher, DenseBatcher
from shardkit.plan.crops import Augmentation
from shardkit.plan.samples import Samples
from shardkit.plan.shapes import Shape


@dataclass(frozen=True)
class Resized(Batching):
    """`batch_size` images a micro-batch, each resized to one square.

    Attributes
    ----------
    side : int
        Pixels of the square's side, a multiple of `patch`.
    batch_size : int
        Images of a micro-batch.
    fit : {"crop", "pad"}
        What of an image is shown where no random `crop` is asked for: the central square (crop), or all of it in its
        own proportions with padding (pad).

    Other Parameters
    ----------------
    patch, per_step, content, level, crop, ratio, flip, remainder
        See `Batching`.
    """

    side: int
    batch_size: int = 1
    fit: Literal["crop", "pad"] = "crop"

    @property
    def augmentation(self) -> Augmentation:
        """How images become crops."""
        base = (self.patch, self.content, self.level, self.crop, self.ratio, self.flip)
        return Augmentation(*base, side=self.side, fit=self.fit)

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        self.require("side", self.side % self.patch == 0, f"a multiple of patch={self.patch}")
        self.require("fit", self.fit in ("crop", "pad"), "crop or pad")
        return DenseBatcher([Shape(self.batch_size, self.side, self.side)], self.patch, self.per_step, self.remainder)
