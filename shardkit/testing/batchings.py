"""The contract of batchings and their batches, as a check for any: every image is there once, whole, and else nothing.

def test_my_batching():
    assert_batching(MyBatching(patch=16, per_step=2))
"""

import math
from collections.abc import Iterator
from dataclasses import fields
from itertools import product, zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shardkit.dataset.bins import Bin, Bins
from shardkit.loader.batch import Batch, BatchItem, BatchPosition
from shardkit.loader.buffers import Buffers
from shardkit.loader.canvas import Canvas
from shardkit.loader.collate import collate, lay_out
from shardkit.plan import Batching, Crops, EpochPlan, MicroBatch, Samples, from_text

_SAMPLES, _PATCHES = 50, 5
_POSITION = BatchPosition(epoch=0, step=0, micro=0, micros=1, last=True)


def assert_batching(batching: Batching, samples: Samples | None = None) -> None:
    """Check that a batching and its batches do all that `shardkit.plan.base` and `shardkit.loader.batch` say.

    Its text names it; every sample is in an epoch once, or counted; shapes hold what is put into them; what is collated
    comes out again, with images missing too, and the rest is 0. Needs no dataset.

    Parameters
    ----------
    batching : Batching
        One that holds images of up to 5 x 5 patches, or any of `samples`.
    samples : Samples, optional
        What to plan for; by default 50 images of many sizes.

    Raises
    ------
    AssertionError
        Says what is wrong.
    """
    name = str(batching)
    assert from_text(name) == batching, f"{name}: its text names another batching"
    plan = EpochPlan(_many_sizes(batching.patch) if samples is None else samples, 0, 0, batching, window=2)
    steps = list(plan)
    _assert_plan(plan, steps, name)
    forms: dict[Any, list[Any]] = {}
    for micro in (micro for step in steps for micro in step):
        _assert_shape(plan, micro, name)
        for missing in (set[int](), {0}, set(range(len(micro.crops)))):
            form = _assert_batch(
                micro, missing, f"{name}, micro-batch of {len(micro.crops)} less {len(missing)} images"
            )
            assert forms.setdefault(micro.shape, form) == form, f"{name}: tensors of one shape have different sizes"


def _many_sizes(patch: int) -> Samples:
    rng, most = np.random.default_rng(0), _PATCHES * patch
    height, width = rng.integers(1, most + 1, (2, _SAMPLES))
    height[:2], width[:2] = (1, most), (1, most)
    starts = np.append(np.arange(0, _SAMPLES, 8), _SAMPLES)
    return Samples("many sizes", starts, height, width, Bins((Bin(most, most),), patch), rows=np.arange(_SAMPLES) * 3)


def _assert_plan(plan: EpochPlan, steps: list[list[MicroBatch]], name: str) -> None:
    per_step = plan.batching.per_step
    assert all(len(step) == per_step for step in steps), f"{name}: a step is not {per_step} micro-batches"
    fresh = [micro.crops.index[~micro.repeated] for step in steps for micro in step]
    shown = np.concatenate([np.zeros(0, np.int64), *fresh]).tolist()
    stats = plan.account()
    assert len(set(shown)) == len(shown), f"{name}: a sample comes twice, and is not said to be repeated"
    assert len(shown) + stats.samples_dropped == len(plan.samples), f"{name}: samples are neither shown nor dropped"
    again = EpochPlan(plan.samples, plan.seed, plan.epoch, plan.batching, plan.order.window)
    for number in reversed(range(len(steps))):  # from the middle of an epoch, as a run that resumes
        for one, other in zip_longest(steps[number], again[number]):
            same = one.shape == other.shape and np.array_equal(one.crops.seed, other.crops.seed)
            assert same, f"{name}: step {number} is another one when it is planned again"


def _assert_shape(plan: EpochPlan, micro: MicroBatch, name: str) -> None:
    shape, crops = micro.shape, micro.crops
    assert len(crops) <= shape.images <= plan.images, f"{name}: {len(crops)} images, {shape.images}, {plan.images}"
    tokens = micro.real_tokens + micro.repeated_tokens
    assert tokens <= micro.padded_tokens, f"{name}: {tokens} tokens of images, and {micro.padded_tokens} with padding"
    views = micro.views()
    of_views = sum(view.tokens for view in views)
    assert np.array_equal(of_views, crops.tokens), f"{name}: {crops.tokens} tokens, and {of_views} in its views"
    for view, at in product(views, range(len(crops))):
        size = int(view.out_height[at]), int(view.out_width[at])
        rows, cols = shape.padded_size(*size, micro.patch)
        assert min(rows - size[0], cols - size[1]) >= 0, f"{name}: {size} pixels are padded to {rows} x {cols}"
    for at in range(len(crops)):
        others = np.flatnonzero(crops.row != crops.row[at]).tolist()
        assert set(micro.substitutes(at)) <= set(others), f"{name}: image {at} stands in for itself"


def _assert_batch(micro: MicroBatch, missing: set[int], what: str) -> list[Any]:
    """Collate images of random values; returns types and sizes of the tensors."""
    crops, n = micro.crops, range(len(micro.crops))
    items = [None if i in missing else BatchItem(i, int(crops.row[i])) for i in n]
    shown = [item for item in items if item is not None]
    views = micro.views()
    images = [_image(micro, view, item.crop) for view in views for item in shown]
    canvas = Canvas(torch.device("cpu"), torch.float32, clip=False, buffers=_Used())
    for room, image in zip(lay_out(micro, items, _POSITION, canvas)[1], images, strict=True):
        sound = room.dim() in (2, 4) and room.stride(-1) == 1 and room.numel() == image.numel()
        assert sound, f"{what}: a room is neither rows and columns nor blocks of adjacent pixels: {tuple(room.shape)}"
    batch = collate(micro, items, [image.clone() for image in images], _POSITION, canvas)
    assert isinstance(batch, Batch), f"{what}: is no Batch"
    assert batch.position is _POSITION, f"{what}: its position is lost"
    slots = (batch.rows >= 0).nonzero().ravel().tolist()
    assert batch.rows[slots].tolist() == [item.row for item in shown], f"{what}: rows are {batch.rows.tolist()}"
    seeds = [int(crops.seed[item.crop].astype(np.int64)) for item in shown]
    assert batch.seeds[slots].tolist() == seeds, f"{what}: seeds are not those of the plan"
    for at, (slot, item) in enumerate(zip(slots, shown, strict=True)):
        wanted = [
            image[0, : view.out_height[item.crop], : view.out_width[item.crop]]
            for view, image in zip(views, images[at :: len(shown)], strict=True)
        ]
        seen = batch.every_view(slot)
        assert len(seen) == len(wanted), f"{what}: slot {slot} shows {len(seen)} images, and the plan {len(wanted)}"
        assert all(map(Tensor.equal, seen, wanted)), f"{what}: slot {slot} shows another image"
        assert batch.pixels(slot).equal(wanted[0]), f"{what}: slot {slot} has other pixels"
    tensors = list(_tensors(batch))
    inside = sum(int(image.count_nonzero()) for image in images)
    values = sum(int(tensor.count_nonzero()) for tensor in tensors if tensor.is_floating_point())
    assert values == inside, f"{what}: what no image covers is not 0, or an image is there twice"
    return [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]


def _tensors(batch: Batch) -> Iterator[Tensor]:
    for f in fields(batch):  # type: ignore[arg-type]
        value = getattr(batch, f.name)
        yield from (each for each in (value if isinstance(value, tuple) else (value,)) if isinstance(each, Tensor))


def _image(micro: MicroBatch, view: Crops, at: int) -> Tensor:
    """Random values above 0, and padding of 0, as the graph gives them."""
    height, width = int(view.out_height[at]), int(view.out_width[at])
    out = torch.zeros(1, *micro.shape.padded_size(height, width, micro.patch))
    drawn = torch.rand(height, width, generator=torch.Generator().manual_seed(int(view.seed[at] >> np.uint64(1))))
    out[0, :height, :width] = 1 + drawn
    return out


class _Used(Buffers):
    """Memory as an earlier batch may have left it."""

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a tensor that is full of NaN."""
        return torch.full(shape, math.nan, dtype=dtype)
