"""A batch shape that a newcomer adds in one file is planned, loaded, counted and resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from torch import Tensor

from shardkit import Batch, Batching, Loader, from_text
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchItem, BatchPosition
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import BATCHES
from shardkit.loader.replay import replay
from shardkit.plan import BatchShape, Crops, MicroBatch, Samples, batching
from shardkit.plan.batchers import Batcher
from shardkit.plan.samples import Ints
from shardkit.testing.batchings import assert_batching
from shardkit.testing.resume import assert_resumes_exactly


@dataclass(frozen=True, slots=True)
class StripShape(BatchShape):
    """Images side by side on a strip."""

    images: int
    height: int
    width: int

    def padded_tokens(self, patch: int) -> int:
        return (self.height // patch) * (self.width // patch)

    def padded_size(self, height: int, width: int, patch: int) -> tuple[int, int]:
        return self.height, ceil_div(width, patch) * patch

    def fitting(self, crops: Crops, at: int, others: list[int]) -> list[int]:
        return [i for i in others if crops.out_width[i] <= crops.out_width[at]]


class StripBatcher(Batcher):
    """Fills strips in the epoch's order."""

    def __init__(self, shape: StripShape, patch: int, per_step: int) -> None:
        super().__init__(shape.images, per_step)
        self._shape, self._patch, self._waiting = shape, patch, list[Crops]()

    def feed(self, crops: Crops) -> list[MicroBatch]:
        full = []
        for one in (crops.take(slice(at, at + 1)) for at in range(len(crops))):
            widths = [ceil_div(int(each.out_width[0]), self._patch) * self._patch for each in [*self._waiting, one]]
            if sum(widths) > self._shape.width or len(widths) > self._shape.images:
                full += self._strip()
            self._waiting.append(one)
        return full

    def finish(self, waiting: list[MicroBatch]) -> list[MicroBatch]:
        last = waiting + (self._strip() if self._waiting else [])
        empty = [MicroBatch.of(self._shape, self._patch, micro.crops.take(slice(0))) for micro in last[:1]]
        return last + empty * (-len(last) % self._per_step)

    def _strip(self) -> list[MicroBatch]:
        crops, self._waiting = Crops.join(self._waiting), []
        return [MicroBatch.of(self._shape, self._patch, crops)]


@dataclass(frozen=True)
class Strip(Batching):
    """`height` x `width` pixels with as many whole images side by side as there is room for."""

    height: int
    width: int

    @property
    def size_option(self) -> str:
        return "width"

    def size_needed(self, height: Ints, width: Ints) -> Ints:
        return width

    def batcher(self, samples: Samples) -> Batcher:
        return StripBatcher(StripShape(self.width // self.patch, self.height, self.width), self.patch, self.per_step)


@dataclass(frozen=True, slots=True, repr=False)
class StripBatch(Batch):
    """strip: float (H, W). boxes: int64 (S, 3), the left edge, height and width of each image on it."""

    strip: Tensor
    boxes: Tensor
    rows: Tensor
    seeds: Tensor
    position: BatchPosition

    @classmethod
    def lay_out(
        cls, micro: MicroBatch, items: list[BatchItem | None], position: BatchPosition, canvas: Canvas
    ) -> tuple[Self, list[Tensor]]:
        shape, left = micro.shape, 0
        assert isinstance(shape, StripShape)
        strip = canvas.empty((shape.height, shape.width))
        boxes, seeds = np.zeros((shape.images, 3), np.int64), np.zeros(shape.images, np.int64)
        rows = np.full(shape.images, -1, np.int64)
        rooms = []
        for slot, item in enumerate(item for item in items if item is not None):
            height, width = int(micro.crops.out_height[item.crop]), int(micro.crops.out_width[item.crop])
            right = left + shape.padded_size(height, width, micro.patch)[1]
            rooms.append(strip[:, left:right])
            boxes[slot] = left, height, width
            rows[slot], seeds[slot] = item.row, micro.crops.seed[item.crop].astype(np.int64)
            left = right
        canvas.clear(strip[:, left:])
        return cls(strip, canvas.send(boxes), canvas.send(rows), canvas.send(seeds), position), rooms

    def pixels(self, slot: int) -> Tensor:
        left, height, width = self.boxes[slot].tolist()
        return self.strip[:height, left : left + width]


@pytest.fixture
def strip(monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of a batching whose two classes are registered."""
    monkeypatch.setitem(batching.KINDS, "strip", Strip)
    kinds: dict[Any, Any] = BATCHES
    monkeypatch.setitem(kinds, StripShape, StripBatch)
    return "strip:per_step=2,level=1,height=240,width=480"


def test_a_batch_shape_of_one_file_keeps_the_contract(strip: str) -> None:
    assert_batching(Strip(height=80, width=160, per_step=4))
    assert str(from_text(strip)) == strip


def test_a_batch_shape_of_one_file_is_planned_and_loaded_with_its_padding_counted(
    strip: str, dataset_folder: Path, tmp_path: Path
) -> None:
    loader, again = (Loader(dataset_folder, batching=strip, normalise="none", device="cpu") for _ in range(2))
    packed = Loader(dataset_folder, batching="packed:level=1,tokens=2048", normalise="none", device="cpu")
    images = {row: batch.pixels(at) for batch in packed for at, row in enumerate(batch.rows.tolist()) if row >= 0}
    batches = list(loader)
    seen = []
    for batch in batches:
        assert isinstance(batch, StripBatch)
        assert batch.strip.shape == (240, 480)
        for at in batch.weight.nonzero().ravel().tolist():
            seen.append(int(batch.rows[at]))
            assert batch.pixels(at).equal(images[seen[-1]])
    assert sorted(seen) == sorted(images)
    stats, account = loader.stats(), packed.account()
    assert stats["tokens"] == loader.plan.account().real_tokens == account.real_tokens
    assert stats["padded_tokens"] == len(batches) * (240 // 16) * (480 // 16)
    shown = sum(int(batch.weight.sum()) for batch in batches[:2])
    assert replay(again, 0, tmp_path / "step.png").endswith(f" {shown} images of step 0 of epoch 0")
    narrow = strip.replace("width=480", "width=32")
    with pytest.raises(ArgumentError, match=r"images do not fit width=32, the largest being .+: give width="):
        Loader(dataset_folder, batching=narrow, device="cpu")


@pytest.mark.deep
def test_a_batch_shape_of_one_file_resumes_exactly(strip: str, dataset_folder: Path) -> None:
    assert_resumes_exactly(lambda: Loader(dataset_folder, batching=strip, normalise="none", device="cpu"), steps=2)
