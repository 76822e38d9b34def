"""Batches made of images by hand: every place, number and type of them, on memory that was used before."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shardkit import BinnedBatch, PackedBatch
from shardkit.dataset.bins import Bin, Bins
from shardkit.loader.batch import BatchItem, BatchPosition
from shardkit.loader.buffers import Buffers
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import collate
from shardkit.plan import Exact, MicroBatch, Pack, Samples, Shape
from shardkit.plan.crops import crops

PATCH = 4
SIZES = ((8, 5), (3, 12), (9, 4))  # pixels; 4, 3 and 3 patches
HERE = BatchPosition(epoch=2, step=1233, micro=4, micros=8, last=True)
CPU = torch.device("cpu")


class Used(Buffers):
    """Memory as an earlier batch may have left it."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(shape, math.nan, dtype=dtype)


def _micro(layout: Shape | Pack) -> MicroBatch:
    """Manifest rows 0, 10 and 20, of `SIZES`."""
    high, wide = np.array(SIZES, np.int64).T
    samples = Samples("batch", np.array([0, 3]), high, wide, Bins((Bin(64, 64),), PATCH), rows=np.arange(3) * 10)
    shown = crops(samples, np.arange(3), Exact(patch=PATCH).augmentation, 7)
    return MicroBatch(layout, PATCH, shown, np.zeros(3, np.bool_))


def _image(view: int, pad: tuple[int, int]) -> Tensor:
    """Values from -1 to 2, all different, and padding of 0."""
    height, width = SIZES[view]
    out = torch.zeros(1, *pad)
    out[0, :height, :width] = torch.linspace(-1, 2, height * width).view(height, width) + view / 128
    return out


def _assembled(layout: Shape | Pack, shown: list[BatchItem | None], **changes: Any) -> Any:
    images = []
    for item in shown:
        if item is not None:
            height, width = SIZES[item.crop]
            whole = -(-height // PATCH) * PATCH, -(-width // PATCH) * PATCH
            images.append(_image(item.crop, (layout.height, layout.width) if isinstance(layout, Shape) else whole))
    options: dict[str, Any] = {"dtype": torch.float32, "clip": False, "buffers": Used(), "device": CPU}
    return collate(_micro(layout), shown, images, HERE, Canvas(**{**options, **changes}))


def _seed(view: int) -> int:
    return int(_micro(Pack(10, 3)).crops.seed.astype(np.int64)[view])


def _shown(batch: PackedBatch | BinnedBatch, at: int) -> Tensor:
    """The image at a place, without its padding."""
    return batch.pixels(at)


def _devices(batch: PackedBatch | BinnedBatch) -> set[str]:
    return {value.device.type for f in fields(batch) if isinstance(value := getattr(batch, f.name), Tensor)}


# A substitute: the second place shows its own view, of the sample in row 30.
PACK, SHAPE = Pack(tokens=12, images=4), Shape(images=5, height=12, width=16)


def test_a_packed_batch_holds_the_images_one_after_another_and_nought_behind_them() -> None:
    batch = _assembled(PACK, [BatchItem(2, 20), None, BatchItem(1, 30)])
    assert isinstance(batch, PackedBatch)
    assert batch.patches.shape == (12, 16)
    assert batch.patches[6:].eq(0).all()
    assert batch.cu_seqlens.tolist() == [0, 3, 6, 12, 12, 12]
    assert batch.image.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2, 2]
    assert batch.yx.tolist() == [[0, 0], [1, 0], [2, 0], [0, 0], [0, 1], [0, 2], *[[0, 0]] * 6]
    assert batch.hw.tolist() == [[9, 4], [3, 12], [0, 0], [0, 0], [0, 0]]
    assert batch.rows.tolist() == [20, 30, -1, -1, -1]
    assert batch.seeds.tolist() == [_seed(2), _seed(1), 0, 0, 0]
    assert batch.patches[3:6].eq(_image(1, (4, 12)).view(4, 3, 4).permute(1, 0, 2).reshape(3, 16)).all()
    for at, view in ((0, 2), (1, 1)):
        assert batch.pixels(at).equal(_image(view, SIZES[view])[0])
    assert [t.dtype for t in (batch.yx, batch.image, batch.cu_seqlens, batch.hw)] == [torch.int32] * 4
    assert [t.dtype for t in (batch.patches, batch.rows, batch.seeds)] == [torch.float32, torch.int64, torch.int64]
    assert batch.position is HERE
    assert batch.longest == 0, "this shape knows no bound"


def test_the_bound_of_the_plan_goes_with_a_batch_wherever_it_goes() -> None:
    batch = _assembled(Pack(tokens=12, images=4, longest=5), [BatchItem(0, 0), None, BatchItem(1, 30)])
    assert isinstance(batch, PackedBatch)
    for one in (batch, batch.to("meta"), pickle.loads(pickle.dumps(batch))):
        assert one["longest"] == one.longest == 5


def test_a_pack_without_room_to_spare_and_one_without_images() -> None:
    full = _assembled(Pack(10, 3), [BatchItem(0, 0), BatchItem(1, 10), BatchItem(2, 20)])
    assert full.cu_seqlens.tolist() == [0, 4, 7, 10, 10]
    assert full.weight.tolist() == [1, 1, 1, 0]
    assert full.pixels(0).equal(_image(0, SIZES[0])[0])
    empty = _assembled(Pack(10, 3), [None, None, None])
    assert empty.cu_seqlens.tolist() == [0, 10, 10, 10, 10]
    assert empty.patches.eq(0).all()


def test_images_that_no_place_is_for_are_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        collate(
            _micro(PACK), [BatchItem(1, 10)], [_image(1, (4, 12))] * 2, HERE, Canvas(CPU, torch.float32, False, Used())
        )


def test_a_binned_batch_holds_an_image_a_place_and_nought_where_there_is_none() -> None:
    batch = _assembled(SHAPE, [BatchItem(2, 20), None, BatchItem(1, 30)])
    assert isinstance(batch, BinnedBatch)
    assert batch.images.shape == (5, 1, 12, 16)
    assert batch.images[0].equal(_image(2, (12, 16)))
    assert batch.images[2].equal(_image(1, (12, 16)))
    assert batch.images[[1, 3, 4]].eq(0).all()
    assert batch.sizes.tolist() == [[9, 4], [0, 0], [3, 12], [0, 0], [0, 0]]
    assert batch.rows.tolist() == [20, -1, 30, -1, -1]
    assert batch.seeds.tolist() == [_seed(2), 0, _seed(1), 0, 0]
    assert [t.dtype for t in (batch.sizes, batch.rows, batch.seeds)] == [torch.int64] * 3
    assert batch.position is HERE


@pytest.mark.parametrize("layout", [PACK, SHAPE], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("clip", [True, False])
def test_images_are_cut_off_at_nought_and_one_only_where_asked(
    layout: Shape | Pack, dtype: torch.dtype, clip: bool
) -> None:
    batch = _assembled(layout, [BatchItem(0, 0)], clip=clip, dtype=dtype)
    wanted = _image(0, SIZES[0])[0]
    found = _shown(batch, 0)
    assert found.dtype == dtype
    assert found.equal((wanted.clamp(0, 1) if clip else wanted).to(dtype))


def test_on_another_device_there_is_no_memory_of_this_one_and_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, with the device that holds no numbers."""
    sent, real = list[bool](), Tensor.to

    def to(tensor: Tensor, device: torch.device, non_blocking: bool) -> Tensor:
        sent.append(non_blocking)
        return real(tensor, device)

    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    monkeypatch.setattr(Tensor, "to", to)
    for layout in (PACK, SHAPE):
        batch = _assembled(layout, [None], device=torch.device("meta"), buffers=None)
        assert _devices(batch) == {"meta"}
    assert sent == [True] * (6 + 3)


# ------------------------------------------------------------------------------------------------ what batches can do


def test_manifest_row_0_is_an_image_as_any_other() -> None:
    batch = _assembled(SHAPE, [BatchItem(0, 0), BatchItem(1, 10)])
    assert batch.weight.dtype == torch.float32
    assert batch.weight.tolist() == [1, 1, 0, 0, 0]
    assert "holds=2 images in 5 places" in repr(batch)
    assert "images=float32 (5, 1, 12, 16)" in repr(batch)


def test_a_batch_moves_with_all_of_its_tensors() -> None:
    for layout in (PACK, SHAPE):
        batch = _assembled(layout, [BatchItem(0, 0)])
        moved = batch.to("meta", non_blocking=True)
        assert type(moved) is type(batch)
        assert moved.position is batch.position
        assert _devices(moved) == {"meta"}
        assert _devices(batch) == {"cpu"}


@pytest.mark.parametrize("options", [{}, {"non_blocking": True}])
def test_a_batch_waits_for_its_copy_unless_it_is_told_not_to(
    options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[tuple[Any, bool]]()
    batch = _assembled(SHAPE, [BatchItem(0, 0)])

    def to(tensor: Tensor, device: Any, non_blocking: bool) -> Tensor:
        asked.append((device, non_blocking))
        return tensor

    with monkeypatch.context() as patched:
        patched.setattr(Tensor, "to", to)
        batch.to("cuda:3", **options)
    assert asked == [("cuda:3", bool(options))] * 4


def test_a_stream_is_told_of_every_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[Tensor, Any]]()
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: told.append((tensor, stream)))
    batch, stream = _assembled(SHAPE, [BatchItem(0, 0)]), object()
    batch.record_stream(stream)
    assert [id(tensor) for tensor, _ in told] == [id(t) for t in (batch.images, batch.sizes, batch.rows, batch.seeds)]
    assert all(of is stream for _, of in told)


@pytest.mark.parametrize(
    ("last", "ends", "following"),
    [(False, False, (2, 1233)), (False, True, (2, 1233)), (True, False, (2, 1234)), (True, True, (3, 0))],
)
def test_after_a_batch_a_run_goes_on_at_its_step_the_next_or_the_next_epoch(
    last: bool, ends: bool, following: tuple[int, int]
) -> None:
    position = BatchPosition(2, 1233, 4, 8, last, ends)
    assert position.following == following
    assert str(position) == "epoch 2, step 1,233, micro-batch 5 of 8"
    assert not BatchPosition(2, 1233, 4, 8, last).ends
