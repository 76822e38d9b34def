"""What a batch is: tensors of images, which samples they are of, and where the batch stands in the plan."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit.loader.canvas import Canvas, send
from shardkit.plan.shapes import MicroBatch
from shardkit.terminal import reprs


@dataclass(frozen=True, slots=True)
class BatchPosition:
    """Where a batch stands in the plan. Of a step's micro-batches, a rank has every world-size-th.

    Attributes
    ----------
    epoch, step : int
        Epoch, and global step of the epoch, from 0.
    micro : int
        Micro-batch of the step, from 0.
    micros : int
        Micro-batches of the step, on all ranks together.
    last : bool
        Whether this is the rank's last one of the step: time to update weights.
    ends : bool
        Whether the step is the epoch's last.
    """

    epoch: int
    step: int
    micro: int
    micros: int
    last: bool
    ends: bool = False

    @property
    def following(self) -> tuple[int, int]:
        """Epoch and step that a run goes on at after this batch; within a step, that step, which runs again."""
        if not self.last:
            return self.epoch, self.step
        return (self.epoch + 1, 0) if self.ends else (self.epoch, self.step + 1)

    def __str__(self) -> str:
        """Say it in words."""
        return f"epoch {self.epoch}, step {self.step:,}, micro-batch {self.micro + 1} of {self.micros}"


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An image that made it into a batch.

    Attributes
    ----------
    crop : int
        Index of its crop in the micro-batch; a substitute shows its own crop.
    row : int
        Manifest row of the sample.
    """

    crop: int
    row: int


@dataclass(frozen=True, slots=True)
class Slots:
    """Which images the slots of a batch hold, in the CPU's memory: asking a GPU for it would be waiting for the GPU.

    Attributes
    ----------
    rows, seeds : ndarray of int64, (S,)
        As of `Batch`.
    """

    rows: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.int64]

    @property
    def there(self) -> npt.NDArray[np.bool_]:
        """Whether there is an image in each slot: bool (S,)."""
        return self.rows >= 0

    def at(self, slots: Any) -> "Slots":
        """Return some of the slots, by what NumPy takes as an index."""
        return Slots(self.rows[slots], self.seeds[slots])

    @staticmethod
    def joined(of: "Sequence[Slots]") -> "Slots":
        """Put the slots of batches after one another."""
        return Slots(np.concatenate([one.rows for one in of]), np.concatenate([one.seeds for one in of]))


class Batch(ABC):
    """Tensors of one micro-batch. `batch["rows"]` is `batch.rows`, and `{**batch}` a plain dictionary.

    A new kind is a dataclass, frozen, with slots and without a repr of its own, whose fields are tensors but for
    `position`, plain numbers and, where it has one, `kept` (see `slots`). It owns how images are laid out: `lay_out`
    says where each goes, `pixels` takes one out. `shardkit.loader.collate.BATCHES` says which kind belongs to which
    `shardkit.plan.BatchShape`.

    What a model needs of any batch are `rows` and `weight`, so that a slot without an image counts for nothing, and
    `seeds` for what is random (masks). The trainer's models read `PackedBatch` and `BinnedBatch`: a new kind needs a
    model of its own, or something that turns it into one of these.

    No `Mapping` by type, though: torch, Lightning and Accelerate would rebuild those, and call this one's `to`.

    Attributes
    ----------
    rows : Tensor of int64, (S,)
        Manifest row of the sample in each slot; -1 where there is no image.
    seeds : Tensor of int64, (S,)
        The plan's seed of each crop; 0 where there is no image.
    position : BatchPosition
        Where the batch stands in the plan.
    """

    __slots__ = ()
    __iter__: None = None  # else Python would try batch[0], batch[1] ...
    rows: Tensor
    seeds: Tensor
    position: BatchPosition

    @classmethod
    @abstractmethod
    def lay_out(
        cls, micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
    ) -> tuple[Self, list[Tensor]]:
        """Make the batch of a micro-batch with room for images, before these are there.

        Parameters
        ----------
        micro : MicroBatch
            What the plan says, in a shape that belongs to this kind.
        items : list of BatchItem or None
            What each of the n crops shows; None where nothing could be read. Filled slots follow in this order.
        position : BatchPosition
            Where the batch stands in the plan.
        canvas : Canvas
            Makes the tensors: whatever no image covers must be cleared.

        Returns
        -------
        batch : Batch
            All but the values of its images.
        rooms : list of Tensor
            Where the images of those items that are not None go, in order: parts of the batch's tensors, (rows, cols)
            of the shape's `padded_size`, or the same in blocks, (down, rows, right, cols), adjacent in their last axis.
            Of several views, the first one of all items, then the second, as `MicroBatch.views` has them.
        """

    @abstractmethod
    def pixels(self, slot: int) -> Tensor:
        """Return one image without its padding: (rows, cols), on the device.

        Parameters
        ----------
        slot : int
            Index in `rows`, where that is not -1.
        """

    def every_view(self, slot: int) -> list[Tensor]:
        """Return all that is shown of one sample, in the order of `MicroBatch.views`: as `pixels`, but several views.

        Parameters
        ----------
        slot : int
            Index in `rows`, where that is not -1.
        """
        return [self.pixels(slot)]

    @property
    def weight(self) -> Tensor:
        """Weight of each slot in a loss, float32 (S,): 1 for an image, 0 for none."""
        return (self.rows >= 0).float()

    def slots(self) -> Slots:
        """Return rows and seeds in the CPU's memory.

        A kind of batch with a field `kept`, which `collate` fills, answers without waiting for a GPU.
        """
        kept: Slots | None = getattr(self, "kept", None)
        if kept is not None and self.rows.device.type != "cpu":
            return kept
        return Slots(self.rows.cpu().numpy(), self.seeds.cpu().numpy())

    def send(self, array: npt.NDArray[Any]) -> Tensor:
        """Put a small array where the batch's tensors are, without waiting for a GPU."""
        return send(array, self.rows.device)

    def keys(self) -> tuple[str, ...]:
        """List the names that can be asked for: the fields but for `kept`, and weight."""
        return (*(f.name for f in fields(self) if f.name != "kept"), "weight")  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        """Return the field of that name, or weight."""
        if name not in self.keys():
            raise KeyError(f"{name!r} is none of {type(self).__name__}'s {', '.join(self.keys())}")
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is a field of that name."""
        return name in self.keys()

    def to(self, device: Any, non_blocking: bool = False) -> Self:
        """Copy the batch to another device.

        Parameters
        ----------
        device : torch.device or str
            Where to.
        non_blocking : bool
            Whether to go on before the copy is done, from pinned memory.
        """
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy the batch to pinned memory, which a GPU reads faster; without a GPU, return it as it is."""
        return self._each(Tensor.pin_memory) if torch.cuda.is_available() else self

    def record_stream(self, stream: Any) -> None:
        """Tell CUDA's allocator that this stream uses the tensors too."""
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor):
                value.record_stream(stream)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def _facts(self) -> reprs.Facts:
        """No pixels: shapes, and how many of the slots hold an image."""
        facts: reprs.Facts = {}
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor):
                facts[f.name] = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        held = int(self.slots().there.sum())
        return {**facts, "holds": f"{held:,} images in {len(self.rows):,} places", "position": self.position}

    def __repr__(self) -> str:
        """Show shapes, and how many slots hold an image."""
        return reprs.line(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return reprs.table(type(self).__name__, self._facts())
