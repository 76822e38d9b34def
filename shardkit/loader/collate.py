"""What a loader hands out: packed or binned batches as torch tensors, and how images become them."""

import math
from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from shardkit.loader.buffers import Buffers
from shardkit.plan.batchers import MicroBatch, Pack
from shardkit.terminal import reprs

B = TypeVar("B", bound="_Tensors")


@dataclass(frozen=True, slots=True)
class BatchPosition:
    """Where a batch stands in the plan: micro-batch `micro` of the `micros` in global step `step` of an epoch.

    Of those, a rank has every world-size-th; `last` tells that this is its last of the step: time to update weights.
    `ends` tells that the step is the epoch's last.
    """

    epoch: int
    step: int
    micro: int
    micros: int
    last: bool
    ends: bool = False

    @property
    def following(self) -> tuple[int, int]:
        """(epoch, step) that a run goes on at after this batch; within a step, at that step, which runs again."""
        if not self.last:
            return self.epoch, self.step
        return (self.epoch + 1, 0) if self.ends else (self.epoch, self.step + 1)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.step:,}, micro-batch {self.micro + 1} of {self.micros}"


class _Tensors(ABC):
    """What both kinds of batches can do. `batch["rows"]` is `batch.rows`, and `{**batch}` a plain dictionary.

    No `Mapping` by type, though: torch, Lightning and Accelerate would rebuild those, and call this one's `to`.
    """

    __slots__ = ()
    __iter__: None = None  # else Python would try batch[0], batch[1] ...
    rows: Tensor
    place: BatchPosition

    @property
    def weight(self) -> Tensor:
        """float32, one an entry of `rows`: 1 for an image, 0 for none."""
        return (self.rows >= 0).float()

    def keys(self) -> tuple[str, ...]:
        """Names that can be asked for: the fields, and weight."""
        return (*(f.name for f in fields(self)), "weight")  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(f"{name!r} is none of {type(self).__name__}'s {', '.join(self.keys())}")
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self.keys()

    def to(self: B, device: Any, non_blocking: bool = False) -> B:
        """A copy on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: B) -> B:
        """A copy in pinned memory, which a GPU reads faster; itself where there is no GPU."""
        return self._each(Tensor.pin_memory) if torch.cuda.is_available() else self

    def record_stream(self, stream: Any) -> None:
        """Tell CUDA's allocator that this stream uses the tensors too."""
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor):
                value.record_stream(stream)

    def _each(self: B, change: Callable[[Tensor], Tensor]) -> B:
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return type(self)(**{k: change(v) if isinstance(v, Tensor) else v for k, v in values.items()})

    def _facts(self) -> reprs.Facts:
        """No pixels: shapes, and how many of the places hold an image."""
        facts: reprs.Facts = {}
        for f in fields(self):  # type: ignore[arg-type]
            if isinstance(value := getattr(self, f.name), Tensor):
                facts[f.name] = f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
        held = int((self.rows >= 0).sum())
        return {**facts, "holds": f"{held:,} images in {len(self.rows):,} places", "place": self.place}

    def __repr__(self) -> str:
        return reprs.line(type(self).__name__, self._facts())

    def _repr_html_(self) -> str:
        return reprs.table(type(self).__name__, self._facts())


@dataclass(frozen=True, slots=True, repr=False)
class BinnedBatch(_Tensors):
    """Images of one size.

    images: float (B, 1, H, W), padded with 0 at the bottom and right. sizes: int64 (B, 2), true rows and columns; 0 x 0
    for a place that holds no image. rows: int64 (B,), manifest rows, -1 without an image. seeds: int64 (B,), one a
    crop, from the plan.
    """

    images: Tensor
    sizes: Tensor
    rows: Tensor
    seeds: Tensor
    place: BatchPosition


@dataclass(frozen=True, slots=True, repr=False)
class PackedBatch(_Tensors):
    """Images of any size as one sequence of T patches; T and S are the same in every batch.

    patches: float (T, p * p), row by row; an image's edge patches are padded with 0. yx: int32 (T, 2), row and column
    of a patch in its image. image: int32 (T,), sequence it belongs to. cu_seqlens: int32 (S + 1,), where sequences
    begin, ending in T. hw: int32 (S, 2), pixels of each image. rows, seeds: int64 (S,), manifest rows and the plan's
    seeds. Tokens left over form a sequence of their own after the images; it and the empty ones after it have
    hw 0 x 0, row -1 and weight 0.
    """

    patches: Tensor
    yx: Tensor
    image: Tensor
    cu_seqlens: Tensor
    hw: Tensor
    rows: Tensor
    seeds: Tensor
    place: BatchPosition

    def unpacked(self, sequence: int) -> Tensor:
        """(rows, cols) pixels of one image, without its padding."""
        start, end = self.cu_seqlens[sequence : sequence + 2].tolist()
        height, width = self.hw[sequence].tolist()
        side = math.isqrt(self.patches.shape[1])
        high, wide = -(-height // side), -(-width // side)
        grid = self.patches[start:end].view(high, wide, side, side)
        return grid.permute(0, 2, 1, 3).reshape(high * side, wide * side)[:height, :width]


@dataclass(frozen=True, slots=True)
class BatchItem:
    """An image that made it into a batch: which place's crop it shows, and the sample's row (a substitute's, maybe)."""

    crop: int
    row: int


def assemble(
    micro: MicroBatch,
    shown: list[BatchItem | None],
    images: list[Tensor],
    place: BatchPosition,
    *,
    dtype: torch.dtype,
    clip: bool,
    buffers: Buffers,
    device: torch.device,
) -> BinnedBatch | PackedBatch:
    """A batch from float32 (1, rows, cols) images; `shown` has an entry for each of the micro-batch's crops.

    Where it is None there is no image, and `images` holds those of the others, in order. On a CPU the memory comes
    from `buffers`.
    """

    def empty(shape: tuple[int, ...]) -> Tensor:
        if device.type == "cpu":
            return buffers.empty(shape, dtype)
        return torch.empty(shape, dtype=dtype, device=device)

    if isinstance(micro.layout, Pack):
        return _packed(micro, shown, images, place, clip, empty, device)
    return _binned(micro, shown, images, place, clip, empty, device)


def _place_in(target: Tensor, image: Tensor, clip: bool) -> None:
    """Copy, cut off and convert; the image is not needed afterwards."""
    if target.device.type == "cpu" and target.dtype == torch.float32:
        # By NumPy: torch would start threads that spin, on cores that decode.
        np.clip(image.numpy(), 0.0, 1.0, out=target.numpy()) if clip else np.copyto(target.numpy(), image.numpy())
    else:
        target.copy_(image.clamp_(0.0, 1.0) if clip else image)


def _binned(
    micro: MicroBatch,
    shown: list[BatchItem | None],
    images: list[Tensor],
    place: BatchPosition,
    clip: bool,
    empty: Callable[[tuple[int, ...]], Tensor],
    device: torch.device,
) -> BinnedBatch:
    layout = micro.layout
    assert not isinstance(layout, Pack)
    out = empty((layout.images, 1, layout.height, layout.width))
    sizes = np.zeros((layout.images, 2), np.int64)
    rows = np.full(layout.images, -1, np.int64)
    seeds = np.zeros(layout.images, np.int64)
    following = iter(images)
    for slot in range(layout.images):
        item = shown[slot] if slot < len(shown) else None
        if item is None:
            out[slot].zero_()
            continue
        _place_in(out[slot], next(following), clip)
        sizes[slot] = micro.crops.out_height[item.crop], micro.crops.out_width[item.crop]
        rows[slot], seeds[slot] = item.row, micro.crops.seed[item.crop].astype(np.int64)
    send = _sender(device)
    return BinnedBatch(out, send(sizes), send(rows), send(seeds), place)


def _packed(
    micro: MicroBatch,
    shown: list[BatchItem | None],
    images: list[Tensor],
    place: BatchPosition,
    clip: bool,
    empty: Callable[[tuple[int, ...]], Tensor],
    device: torch.device,
) -> PackedBatch:
    layout, patch = micro.layout, micro.patch
    assert isinstance(layout, Pack)
    tokens, sequences = layout.tokens, layout.images + 1
    patches = empty((tokens, patch * patch))
    yx = np.zeros((tokens, 2), np.int32)
    hw = np.zeros((sequences, 2), np.int32)
    rows = np.full(sequences, -1, np.int64)
    seeds = np.zeros(sequences, np.int64)
    ends = list[int]()
    at = 0
    for item, image in zip((s for s in shown if s is not None), images, strict=True):
        height, width = int(micro.crops.out_height[item.crop]), int(micro.crops.out_width[item.crop])
        high, wide = -(-height // patch), -(-width // patch)
        end, number = at + high * wide, len(ends)
        _place_in(
            patches[at:end].view(high, wide, patch, patch),
            image[0].view(high, patch, wide, patch).permute(0, 2, 1, 3),
            clip,
        )
        yx[at:end, 0], yx[at:end, 1] = np.repeat(np.arange(high), wide), np.tile(np.arange(wide), high)
        hw[number] = height, width
        rows[number], seeds[number] = item.row, micro.crops.seed[item.crop].astype(np.int64)
        ends.append(end)
        at = end
    patches[at:].zero_()
    cu_seqlens = np.full(sequences + 1, tokens, np.int32)
    cu_seqlens[: len(ends) + 1] = [0, *ends]
    image_of = np.repeat(np.arange(sequences, dtype=np.int32), np.diff(cu_seqlens))
    send = _sender(device)
    return PackedBatch(patches, send(yx), send(image_of), send(cu_seqlens), send(hw), send(rows), send(seeds), place)


def _sender(device: torch.device) -> Any:
    """Puts a small array on the device, without waiting for it."""

    def send(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return send
