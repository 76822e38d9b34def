"""What a newcomer adds in one file works everywhere, with a line in its registry and no other change."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Self, get_args

import numpy as np
import pytest
from torch import Tensor

from shardkit import Batch, Batching, Loader, Packed, codecs, config, formats, from_text
from shardkit.build.transcode import Target, transcode
from shardkit.dataset import contents
from shardkit.dataset.rounding import ceil_div
from shardkit.dataset.verify import Summary, verify
from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchItem, BatchPosition, Canvas
from shardkit.loader.collate import BATCHES
from shardkit.loader.replay import replay
from shardkit.plan import BatchShape, Crops, MicroBatch, Samples, batching
from shardkit.plan.batchers import Batcher
from shardkit.plan.samples import Ints
from shardkit.storage import Store
from shardkit.testing.batchings import assert_batching
from shardkit.testing.codecs import assert_codec
from shardkit.testing.formats import assert_shard_format
from shardkit.testing.resume import assert_resumes_exactly

DEFLATED = '''
"""A codec in one file: rows of pixels, deflated."""
import zlib

import numpy as np

from shardkit.codecs import raw
from shardkit.errors import IntegrityError

NAME, EXTENSION, LEVELS_IN_STREAM, NEEDS_FRAME = "deflated", "npz1", (0, 0), False


def encode(pixels, frame=None):
    return zlib.compress(raw.encode(pixels), 1)


def prefixes(data):
    return [len(data)]


def check(data, frame):
    raw.check(_inflated(data), frame)


def decode(data, level=0, bits=16, frame=None):
    return raw.decode(_inflated(data), level, bits, frame)


def _inflated(data):
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise IntegrityError(f"not a deflated image ({error})") from None
'''


@pytest.fixture
def deflated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """A codec of one file, registered."""
    (tmp_path / "deflated.py").write_text(DEFLATED)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "deflated", raising=False)
    module = importlib.import_module("deflated")
    monkeypatch.setitem(codecs.CODECS, module.NAME, module)
    return module


def test_a_codec_of_one_file_keeps_the_contract_and_is_one_that_tars_take(deflated: Any, tmp_path: Path) -> None:
    assert_codec(deflated)
    assert formats.codecs_of(formats.FORMATS["webdataset"])[-1] == "deflated"
    assert "deflated" not in formats.codecs_of(formats.FORMATS["zarr"])


def test_a_dataset_in_a_codec_of_one_file_is_made_verified_shown_and_loaded(
    deflated: Any, dataset_folder: Path, tmp_path: Path
) -> None:
    done = transcode(str(dataset_folder), Target(str(tmp_path / "new"), "webdataset", "deflated", 0, None), 1)
    assert done.samples > 10
    store, before = Store(str(tmp_path / "new")), Store(str(dataset_folder))
    facts, rows = contents.description(store), contents.samples(store).to_pylist()
    assert (facts["codec"], facts["extension"], facts["transfer_syntax"]) == ("deflated", "npz1", None)
    *problems, summary = verify(store.url, True, 1)
    assert problems == []
    assert isinstance(summary, Summary)
    was = {row["key"]: row for row in contents.samples(before).to_pylist()}
    images = {row["key"]: contents.image(store, row, facts) for row in rows}
    for key in list(images)[:3]:
        np.testing.assert_array_equal(images[key], contents.image(before, was[key], contents.description(before)))
    seen = 0
    packed = Packed(tokens=1 << 14, patch=16, level=0, per_step=1)
    for batch in Loader(store.url, batching=packed, split=None, normalise="none", device="cpu"):
        for at, row in enumerate(batch.rows.tolist()):
            if row >= 0:
                np.testing.assert_array_equal(batch.pixels(at).float().numpy(), images[rows[row]["key"]])
                seen += 1
        if seen > 5:
            break
    with pytest.raises(ArgumentError, match="decoder=dali decodes htj2k"):
        Loader(store.url, batching=packed, split=None, device="cpu", decoder="dali")


def test_a_format_of_one_file_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    form = ModuleType("boxes")
    form.__dict__.update(
        {name: value for name, value in vars(formats.FORMATS["webdataset"]).items() if not name.startswith("__")},
        NAME="boxes",
    )
    with pytest.raises(ArgumentError, match="unknown format 'boxes'"):
        formats.shard_format("boxes")
    monkeypatch.setitem(formats.FORMATS, "boxes", form)
    assert formats.form_of({"shard_format": "boxes"}) is form
    assert_shard_format(formats.shard_format("boxes"), tmp_path)


def test_the_command_line_offers_every_codec_there_is() -> None:
    assert get_args(config.Codec) == tuple(codecs.CODECS)


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
    def collate(
        cls,
        micro: MicroBatch,
        items: list[BatchItem | None],
        images: list[Tensor],
        position: BatchPosition,
        canvas: Canvas,
    ) -> Self:
        shape, left = micro.shape, 0
        assert isinstance(shape, StripShape)
        strip = canvas.empty((shape.height, shape.width))
        boxes, seeds = np.zeros((shape.images, 3), np.int64), np.zeros(shape.images, np.int64)
        rows = np.full(shape.images, -1, np.int64)
        shown = (item for item in items if item is not None)
        for slot, (item, image) in enumerate(zip(shown, images, strict=True)):
            canvas.put(strip[:, left : left + image.shape[2]], image[0])
            boxes[slot] = left, micro.crops.out_height[item.crop], micro.crops.out_width[item.crop]
            rows[slot], seeds[slot] = item.row, micro.crops.seed[item.crop].astype(np.int64)
            left += image.shape[2]
        strip[:, left:] = 0
        return cls(strip, canvas.send(boxes), canvas.send(rows), canvas.send(seeds), position)

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


def test_a_batch_shape_of_one_file_resumes_exactly(strip: str, dataset_folder: Path) -> None:
    assert_resumes_exactly(lambda: Loader(dataset_folder, batching=strip, normalise="none", device="cpu"), steps=2)
