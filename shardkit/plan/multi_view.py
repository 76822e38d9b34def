"""Several views of each sample: the batching, and the shape of its micro-batches."""

from dataclasses import dataclass, field
from typing import Any

from shardkit.errors import ArgumentError
from shardkit.plan.base import Batching
from shardkit.plan.batchers import Batcher, DenseBatcher
from shardkit.plan.crops import Augmentation, Crops, Level, view_crops
from shardkit.plan.resized import Resized
from shardkit.plan.samples import Samples
from shardkit.plan.shapes import BatchShape
from shardkit.plan.views import View


@dataclass(frozen=True, slots=True)
class ViewsShape(BatchShape):
    """Several views of each sample, those of one `View` in a dense batch.

    Attributes
    ----------
    images : int
        Samples of the batch, padding included.
    views : tuple of View
        What is shown of each.
    """

    images: int
    views: tuple[View, ...]

    def padded_tokens(self, patch: int) -> int:
        """See `BatchShape`."""
        return self.images * sum(view.n * (view.side // patch) ** 2 for view in self.views)

    def padded_size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        """See `BatchShape`. Squares of whole patches need no padding."""
        return height, width

    def fitting(self, crops: Crops, at: int, others: list[int]) -> list[int]:
        """See `BatchShape`. All fit; the next in turn comes first."""
        return sorted(others, key=lambda i: (i - at) % len(crops))

    def views_of(self, crops: Crops, patch: int) -> list[Crops]:
        """See `BatchShape`."""
        return view_crops(crops, self.views, patch)


@dataclass(frozen=True)
class MultiView(Batching):
    """`batch_size` samples a micro-batch, several random crops of each, all from one read and one decode.

    As text, views are joined by `+`: "multiview:views=224:n=2:crop=0.4/1.0+96:n=8:crop=0.05/0.4,batch_size=64".

    Attributes
    ----------
    views : tuple of View
        What is shown of each sample.
    batch_size : int
        Samples of a micro-batch.
    level : int or "auto"
        Halvings of every image; "auto", the default, the most whose smallest possible crop covers its view, for all
        views.

    Other Parameters
    ----------------
    patch, per_step, content, remainder
        See `Batching`.
    crop, ratio, flip
        Left out: views have their own.
    """

    views: tuple[View, ...]
    batch_size: int = 1
    level: Level = field(default="auto", kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields."""
        sound = isinstance(self.views, tuple) and self.views and all(isinstance(view, View) for view in self.views)
        self.require("views", bool(sound), "a tuple of one View or more")
        super().__post_init__()
        for name in ("crop", "ratio", "flip"):
            self.require(name, getattr(self, name) == getattr(Batching, name), "left out: each View has its own")

    @property
    def augmentation(self) -> Augmentation:
        """How images become crops. Without views it is that of the largest one, of all of an image."""
        side = max(view.side for view in self.views)
        return Augmentation(self.patch, self.content, self.level, None, self.ratio, 0.0, side=side, views=self.views)

    def batcher(self, samples: Samples) -> Batcher:
        """See `Batching`."""
        for view in self.views:
            if view.side % self.patch:
                raise ArgumentError(f"side={view.side} of a View must be a multiple of patch={self.patch}")
        shape = ViewsShape(self.batch_size, self.views)
        return DenseBatcher([shape], self.patch, self.per_step, self.remainder)

    def plain(self) -> Batching:
        """See `Batching`: the central square, resized to the largest view."""
        of = self.augmentation
        shared: dict[str, Any] = {
            "patch": self.patch,
            "per_step": self.per_step,
            "content": self.content,
            "level": self.level,
        }
        return Resized(side=of.side or 0, batch_size=self.batch_size, **shared)

    @classmethod
    def read(cls, name: str, text: str) -> Any:
        """See `Batching`."""
        return tuple(map(View.read, text.split("+"))) if name == "views" else super().read(name, text)
