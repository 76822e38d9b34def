"""What the graph is told of one view: rectangle, sizes, padding, flip, black and white."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch

from shardkit.dataset.bins import Bin, Bins
from shardkit.loader.graph import Graph, GraphConfig
from shardkit.loader.graph_input import Normalise, Prepared, prepared, roi
from shardkit.loader.sample_index import Detail
from shardkit.plan import MicroBatch, Pack, Resized, Samples, Shape
from shardkit.plan.crops import Augmentation, crops

PATCH, BITS = 16, 12
PIXELS = np.zeros((30, 60), np.uint16)
NUMBERS = {"min": 3.0, "max": 4000.0, "p0_5": 20.0, "p99_5": 3020.0, "mean": 900.0, "std": 250.0}


class Numbers:
    """A sample's numeric columns."""

    number = staticmethod(NUMBERS.__getitem__)


def _micro(layout: Shape | Pack, augmentation: Augmentation) -> MicroBatch:
    """Two images; the second shows rows 21 to 50 and columns 40 to 99 at its full size."""
    sides, box = np.array([200, 150]), np.array([[0, 0, 200, 200], [21, 40, 30, 60]])
    samples = Samples("prepared", np.array([0, 2]), sides, sides, Bins((Bin(208, 208),), PATCH), box=box)
    return MicroBatch(layout, PATCH, crops(samples, np.arange(2), augmentation, 0), np.zeros(2, np.bool_))


def _second(layout: Shape | Pack, mode: Normalise = "none", **changes: Any) -> Prepared:
    augmentation = replace(Resized(32, patch=PATCH, content=True, flip=1.0).augmentation, **changes)
    return prepared(PIXELS, _micro(layout, augmentation), 1, cast(Detail, Numbers), BITS, mode)


def test_a_packed_view_is_cut_out_and_padded_to_whole_patches() -> None:
    found = _second(Pack(1000, 4), level=0, side=None)
    assert found.data is PIXELS
    assert (found.top, found.flip) == (4095, True)
    assert (found.start, found.shape) == ((21, 40), (30, 60))
    assert (found.size, found.pad) == ((30, 60), (32, 64))
    assert (found.roi_start, found.roi_end) == ((21.0, 40.0), (51.0, 100.0))


def test_of_a_level_the_rectangle_is_all_that_the_view_touches() -> None:
    found = _second(Pack(1000, 4), level=2, side=None, flip=0.0)
    assert not found.flip
    assert (found.start, found.shape) == ((5, 10), (8, 15))
    assert (found.size, found.pad) == ((8, 15), (16, 16))
    assert (found.roi_start, found.roi_end) == roi((21, 40, 30, 60), 2)


@pytest.mark.parametrize(
    ("fit", "size", "region"), [("crop", (32, 32), (21, 55, 30, 30)), ("pad", (16, 32), (21, 40, 30, 60))]
)
def test_a_resized_view_gets_its_size_and_is_padded_to_the_layout_s(fit: Any, size: Any, region: Any) -> None:
    found = _second(Shape(4, 32, 48), level=0, fit=fit)
    assert (found.size, found.pad) == (size, (32, 48))
    assert (found.roi_start, found.roi_end) == roi(region, 0)


@pytest.mark.parametrize(
    ("mode", "mean", "std"),
    [
        ("none", 0.0, 1.0),
        ("fullscale", 0.0, 4095.0),
        ("minmax", 3.0, 3997.0),
        ("percentile", 20.0, 3000.0),
        ("zscore", 900.0, 250.0),
        ((0.5, 0.25), 2047.5, 1023.75),
    ],
)
def test_black_and_white_follow_from_the_image_s_own_numbers(mode: Normalise, mean: float, std: float) -> None:
    found = _second(Pack(1000, 4), mode)
    assert (found.mean, found.std) == (mean, std)


# ------------------------------------------------------------------------------------------------------- the graph


def test_a_graph_without_images_is_not_built_and_one_that_was_closed_is_built_again() -> None:
    graph = Graph(
        GraphConfig(device_id=None, decode=False, slice=True, flip=True, resize=False, max_images=2, threads=1)
    )
    assert graph.run([]) == []
    assert graph._pipeline is None
    pixels = np.arange(48, dtype=np.uint16).reshape(6, 8)
    one = Prepared(pixels, 65535, (1, 2), (4, 5), (0.0, 0.0), (0.0, 0.0), (4, 5), (4, 5), False, 0.0, 1.0)
    wanted = torch.from_numpy(pixels[1:5, 2:7].astype(np.float32))
    for _ in range(2):
        plain, mirrored = graph.run([one, replace(one, flip=True)])
        assert plain[0].equal(wanted)
        assert mirrored[0].equal(wanted.flip(1))
        graph.close()
        assert graph._pipeline is None
