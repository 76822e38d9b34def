"""Maps in pixels of level 0: at levels, cropped, resized, and at the edge; boxes of maps, and how they fit others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import shardkit
from shardkit import Dataset, Loader
from trainer.explain.boxes import Box, by_mask, iou, largest
from trainer.explain.maps import Frame, Map, fine, frames
from trainer.explain.protocols import THRESHOLDS


def grid(values: list[list[float]], step: float = 10.0) -> Map:
    array = np.array(values, np.float64)
    ys, xs = (np.arange(count + 1, dtype=np.float64) * step for count in array.shape)
    return Map(array, ys, xs)


def test_a_fine_map_ends_where_its_picture_does() -> None:
    frame = Frame(top=0, left=0, down=1, across=1, height=41, width=16)
    found = fine(torch.tensor([[0.0], [1.0], [0.5]]), 16, frame)
    assert found.values.shape == (41, 16)
    assert (found.ys[0], found.ys[-1], found.xs[-1]) == (0, 41, 16)
    assert (found.values.min(), found.values.max()) == (0, 1)
    coarse = fine(torch.rand(300, 3), 16, Frame(0, 0, 1, 1, 4790, 48))
    assert coarse.values.shape == (300, 3)
    assert coarse.ys[-1] == 4790, "the last cell is cut"
    assert not fine(torch.ones(2, 2), 16, frame).values.any(), "nothing to see"


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_a_blob_of_a_halved_level_is_where_it_is_in_level_0(dataset_folder: Path, level: int) -> None:
    """A bright square is put into a map of the level's pixels; its box has to be what these pixels stand for."""
    batching = f"packed:patch=8,level={level},tokens=4096,per_step=1,content=true"
    loader = Loader(dataset_folder, batching=batching, split=None, device="cpu", rank=0, world_size=1)
    plan, batch = loader.plan, next(iter(loader))
    data = Dataset(str(dataset_folder))
    for slot, frame in frames(batch, plan, resized=False).items():
        facts = (
            data.table(["box_top", "box_left", "box_height", "box_width"]).slice(int(batch.rows[slot]), 1).to_pylist()
        )
        step = 2**level
        ys, xs = frame.lines((frame.height, frame.width), 1)
        # Pixel i of the level lies on pixel i * step: the middle of its cell is the middle of that pixel.
        middles = (ys[:-1] + ys[1:]) / 2
        first = facts[0]["box_top"] // step
        assert middles[0] == first * step + 0.5
        assert (frame.left + frame.across / 2 - 0.5) % step == 0
        assert middles[-1] <= facts[0]["box_top"] + facts[0]["box_height"] + step
        assert np.allclose(np.diff(ys), step)
        assert (xs[-1] - xs[0]) == frame.width * step


def test_levels_agree_with_pixels_that_a_dataset_reads(dataset_folder: Path) -> None:
    """What a level shows at its pixel i is what level 0 shows at i * 2**level, as the frame says."""
    sample = shardkit.Dataset(str(dataset_folder))[0]
    whole, half = sample.pixels().astype(np.float64), sample.pixels(level=1).astype(np.float64)
    at_frame = whole[::2, ::2][: half.shape[0], : half.shape[1]]
    between = whole[1::2, 1::2][: half.shape[0] - 1, : half.shape[1] - 1]
    near = np.abs(half - at_frame)[:-1, :-1].mean()
    assert near < np.abs(half[:-1, :-1] - between).mean(), "not half a pixel beside it"


@pytest.mark.parametrize("options", ["level=0", "level=1", "level=auto", "level=1,fit=pad"])
def test_a_resized_pictures_edges_are_those_of_what_it_shows(dataset_folder: Path, options: str) -> None:
    loader = Loader(
        dataset_folder,
        batching=f"resized:side=64,patch=8,batch_size=4,per_step=1,{options}",
        split=None,
        device="cpu",
        rank=0,
        world_size=1,
    )
    plan, batch = loader.plan, next(iter(loader))
    heights = Dataset(str(dataset_folder)).table(["height", "width"]).to_pylist()
    for slot, frame in frames(batch, plan, resized=True).items():
        height, width = heights[int(batch.rows[slot])].values()
        ys, xs = frame.lines((8, 8), 8)
        if "pad" in options:
            assert np.allclose((ys[0], ys[-1], xs[0], xs[-1]), (0, height, 0, width))
        else:
            side = min(height, width)
            assert (ys[0], xs[0]) == ((height - side) // 2, (width - side) // 2)
            assert np.allclose((ys[-1] - ys[0], xs[-1] - xs[0]), side)


def test_the_box_is_that_of_the_largest_component_and_not_of_all() -> None:
    of = grid([[1, 0, 0, 0, 0], [0, 1, 1, 0, 1], [0, 1, 0, 0, 1]])
    assert largest(of, 0.5) == Box(10, 10, 20, 20)
    assert largest(of, 1.0) is None
    assert largest(grid([[1, 0], [0, 1]]), 0.5) == Box(0, 0, 10, 10), "a corner does not connect; the first of equals"


def test_intersection_over_union_of_boxes() -> None:
    assert iou(Box(0, 0, 10, 10), Box(5, 5, 10, 10)) == pytest.approx(25 / 175)
    assert iou(Box(0, 0, 10, 10), Box(10, 0, 10, 10)) == 0
    assert iou(Box(1, 2, 3, 4), Box(1, 2, 3, 4)) == 1


def test_a_mask_fits_as_if_pixels_of_a_hundredth_were_counted() -> None:
    rng = np.random.default_rng(0)
    of = Map(rng.random((4, 5)), np.array([0.5, 2.5, 4.5, 6.5, 7.5]), np.array([-1.0, 1, 3, 5, 7, 8]))
    box = Box(1.2, 2.3, 4.0, 3.5)
    y, x = np.arange(0.5, 7.5, 0.01) + 0.005, np.arange(-1, 8, 0.01) + 0.005
    rows, cols = np.searchsorted(of.ys, y) - 1, np.searchsorted(of.xs, x) - 1
    inside = np.outer((y > 1.2) & (y < 5.2), (x > 2.3) & (x < 5.8))
    found = by_mask(of, box, THRESHOLDS)
    for at in (0, 19, 49, 79):
        mask = (of.values > THRESHOLDS[at])[np.ix_(rows, cols)]
        assert found[at] == pytest.approx((mask & inside).sum() / (mask | inside).sum(), abs=2e-3)
    assert (np.diff(found) != 0).any()


def test_what_of_a_box_lies_outside_the_picture_is_missed() -> None:
    of = grid([[1.0, 1.0], [1.0, 1.0]])
    assert by_mask(of, Box(0, 0, 40, 20), THRESHOLDS)[0] == pytest.approx(0.5)
