"""The shipped contract of batchings: ours keep it, every way to break it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from shardkit import Binned, Exact, Fixed, MultiView, Packed, PackedBatch, Resized, View
from shardkit.dataset.bins import Bin, Bins
from shardkit.errors import ArgumentError
from shardkit.loader.collate import collate
from shardkit.plan import Batching, Crops, MicroBatch, Samples
from shardkit.plan import batching as kinds
from shardkit.plan.batchers import Batcher, PackedBatcher
from shardkit.plan.shapes import Pack
from shardkit.testing.batchings import assert_batching

PACKED = Packed(tokens=64, max_images=4, per_step=2)


@pytest.mark.parametrize(
    "batching",
    [
        PACKED,
        Packed(tokens=64, patch=7, remainder="drop", flip=0.5),
        Binned("auto:3", batch_size=4, per_step=4),
        Binned("auto:3", tokens=60, group=2, remainder="repeat"),
        Fixed(80, batch_size=3, remainder="repeat"),
        Exact(per_step=3),
        Resized(64, batch_size=5, fit="pad", per_step=2),
        Resized(64, level="auto", crop=(0.3, 1.0), remainder="drop"),
        MultiView((View(32, (0.4, 1.0), n=2), View(16, (0.05, 0.4), n=3)), batch_size=4, per_step=2),
        MultiView((View(32),), batch_size=3, per_step=3, remainder="repeat", level=1),
    ],
    ids=str,
)
def test_our_batchings_keep_the_contract(batching: Batching) -> None:
    assert_batching(batching)


def test_it_takes_samples_that_a_batching_is_made_for() -> None:
    sides, bins = np.array([300, 17, 33]), Bins((Bin(304, 304),), 16)
    large = Samples("large", np.array([0, 1, 3]), sides, sides[::-1], bins)
    assert_batching(Fixed(304, batch_size=2), large)
    with pytest.raises(ArgumentError, match="above side=80"):
        assert_batching(Fixed(80, batch_size=2), large)


Collate = Callable[[Any], Any]


def _written(batch: PackedBatch) -> PackedBatch:
    patches = batch.patches.clone()
    patches[-1, -1] = 1
    return replace(batch, patches=patches)


def _turned(batch: PackedBatch) -> PackedBatch:
    order = (batch.rows >= 0).nonzero().ravel()
    rows = batch.rows.clone()
    rows[order] = rows[order.flip(0)]
    return replace(batch, rows=rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_written, "what no image covers is not 0"),
        (_turned, "rows are"),
        (lambda batch: replace(batch, rows=batch.rows - (batch.rows >= 0).long()), "rows are"),
        (lambda batch: replace(batch, seeds=batch.seeds * 0), "seeds are not those of the plan"),
        (lambda batch: replace(batch, patches=batch.patches.flip(1)), "shows another image"),
        (lambda batch: replace(batch, yx=batch.yx[: int(batch.cu_seqlens[1])]), "tensors of one shape"),
        (lambda batch: replace(batch, position=replace(batch.position)), "its position is lost"),
        (lambda batch: (batch.patches, batch.rows), "is no Batch"),
    ],
)
def test_what_a_batch_does_wrong_is_named(monkeypatch: pytest.MonkeyPatch, change: Collate, message: str) -> None:
    monkeypatch.setattr("shardkit.testing.batchings.collate", lambda *given: change(collate(*given)))
    with pytest.raises(AssertionError, match=message):
        assert_batching(PACKED)


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("padded_size", lambda shape, height, width, patch: (height, width - 1), "pixels are padded to"),
        ("padded_tokens", lambda shape, patch: 1, "tokens of images, and 1 with padding"),
        ("fitting", lambda shape, crops, at, others: [at], "stands in for itself"),
    ],
)
def test_what_a_shape_says_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., Any], message: str
) -> None:
    monkeypatch.setattr(Pack, name, instead)
    with pytest.raises(AssertionError, match=message):
        assert_batching(PACKED)


class Losing(PackedBatcher):
    def feed(self, crops: Crops) -> list[MicroBatch]:
        return super().feed(crops.take(slice(1, None)))


class Doubling(PackedBatcher):
    def feed(self, crops: Crops) -> list[MicroBatch]:
        return super().feed(Crops.join([crops, crops.take(slice(0, 1))]))


class Ragged(PackedBatcher):
    def finish(self, waiting: list[MicroBatch]) -> list[MicroBatch]:
        return super().finish(waiting)[:-1]


class Moody(PackedBatcher):
    def feed(self, crops: Crops) -> list[MicroBatch]:
        return super().feed(crops.take(np.random.default_rng().permutation(len(crops))))


@pytest.mark.parametrize(
    ("batcher", "message"),
    [
        (Losing, "neither shown nor dropped"),
        (Doubling, "comes twice"),
        (Ragged, "neither shown nor dropped"),
        (Moody, "another one when it is planned again"),
    ],
)
def test_what_a_plan_does_wrong_is_named(
    monkeypatch: pytest.MonkeyPatch, batcher: Callable[..., Batcher], message: str
) -> None:
    monkeypatch.setattr(kinds, "PackedBatcher", batcher)
    with pytest.raises(AssertionError, match=message):
        assert_batching(PACKED)


@dataclass(frozen=True)
class Unwritten(Packed):
    """Its text leaves out what it adds."""

    def __str__(self) -> str:
        return "packed:tokens=64"


def test_a_text_that_names_another_batching_is_named() -> None:
    with pytest.raises(AssertionError, match="its text names another batching"):
        assert_batching(Unwritten(tokens=128))


def test_pixels_that_cannot_be_taken_out_again_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PackedBatch.pixels

    def cut(batch: PackedBatch, slot: int) -> Tensor:
        return whole(batch, slot)[:-1]

    monkeypatch.setattr(PackedBatch, "pixels", cut)
    with pytest.raises(AssertionError, match="shows another image"):
        assert_batching(PACKED)
