"""Bins: names, assignment, accounting, JSON, clear refusals."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset.bin_choice import optimise
from shardkit.dataset.bins import Bin, Bins, PaddingStats
from shardkit.errors import ArgumentError

SIDE, PATCH = 3072, 48


@st.composite
def bins_and_sizes(draw: st.DrawFn) -> tuple[Bins, npt.NDArray[np.int64]]:
    patch = draw(st.sampled_from([1, 7, 16]))
    side = st.integers(1, 12).map(lambda n: n * patch)
    found = draw(st.sets(st.builds(Bin, side, side), min_size=1, max_size=8))
    top = Bin(12 * patch, 12 * patch)
    sizes = st.lists(st.tuples(st.integers(1, top.height), st.integers(1, top.width)), max_size=30)
    return Bins(tuple(sorted({*found, top})), patch), np.array(draw(sizes), np.int64).reshape(-1, 2).T


def test_a_name_is_zero_padded_and_read_back() -> None:
    assert Bin(2304, 960).name == "2304x0960"
    assert Bin.from_name("2304x0960") == Bin(2304, 960)
    assert Bin.from_name(Bin(12288, 48).name) == Bin(12288, 48)


@pytest.mark.parametrize("name", ["", "2304", "2304x960", "02304x0960", "2304x0000", "2304X0960", "2304x0960x1"])
def test_other_spellings_of_a_name_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="HHHHxWWWW"):
        Bin.from_name(name)


def test_bins_are_ordered_by_height_then_width() -> None:
    assert sorted([Bin(2, 1), Bin(1, 3), Bin(1, 2)]) == [Bin(1, 2), Bin(1, 3), Bin(2, 1)]


@given(bins_and_sizes())
@settings(max_examples=60, deadline=None)
def test_every_image_gets_the_smallest_bin_that_contains_it(case: tuple[Bins, npt.NDArray[np.int64]]) -> None:
    bins, (heights, widths) = case
    index = bins.assign(heights, widths)
    assert index.dtype == np.int32
    for h, w, i in zip(heights, widths, index, strict=True):
        fitting = [j for j, b in enumerate(bins.bins) if b.height >= h and b.width >= w]
        assert i == min(fitting, key=lambda j: (bins.bins[j].height * bins.bins[j].width, j))


@given(bins_and_sizes())
@settings(max_examples=60, deadline=None)
def test_the_account_is_the_sum_over_images(case: tuple[Bins, npt.NDArray[np.int64]]) -> None:
    bins, (heights, widths) = case
    p = bins.patch
    account = bins.account(heights, widths)
    index = bins.assign(heights, widths)
    assert account.images == len(heights) == sum(account.counts)
    assert account.counts == tuple(int((index == i).sum()) for i in range(len(bins.bins)))
    assert account.used == sum(math.ceil(h / p) * math.ceil(w / p) for h, w in zip(heights, widths, strict=True))
    assert account.padded == sum(bins.bins[i].height // p * (bins.bins[i].width // p) for i in index)
    assert account.overhead >= 1


def test_unsigned_columns_of_a_manifest_are_fine() -> None:
    heights, widths = np.array([1, 48, 49, 3072], np.uint16), np.array([3072, 48, 49, 1], np.uint16)
    bins = Bins((Bin(48, 48), Bin(96, 96), Bin(3072, 3072)), PATCH)
    assert bins.assign(heights, widths).tolist() == [2, 0, 1, 2]
    assert bins.account(heights, widths).used == 64 + 1 + 4 + 64


def test_without_images_there_is_no_overhead() -> None:
    assert Bins((Bin(48, 48),), PATCH).account([], []) == PaddingStats(0, 0, 0, (0,))
    assert Bins((Bin(48, 48),), PATCH).account([], []).overhead == 1.0


@pytest.mark.parametrize("size", [(500, 100), (100, 500), (10**9, 1)])
def test_an_image_that_fits_no_bin_is_named_with_the_largest_bin(size: tuple[int, int]) -> None:
    bins = Bins((Bin(48, 480), Bin(480, 480)), PATCH)
    with pytest.raises(ArgumentError, match=rf"image 1 of {size[0]} x {size[1]} .*largest is 0480x0480"):
        bins.assign([10, size[0]], [10, size[1]])
    with pytest.raises(ArgumentError, match="fits no bin"):
        bins.account([10, size[0]], [10, size[1]])


@pytest.mark.parametrize(
    ("heights", "widths", "message"),
    [
        ([0], [5], "image 0 has the height 0"),
        ([5, 5], [5, -1], "image 1 has the width -1"),
        ([5, 5], [5], "one length"),
        ([[5]], [[5]], "flat"),
        ([5.5], [5], "heights are of type float64"),
    ],
)
def test_sizes_that_are_not_sizes_are_refused(heights: Any, widths: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Bins((Bin(48, 48),), PATCH).assign(heights, widths)
    with pytest.raises(ArgumentError, match=message):
        optimise(heights, widths, 3, PATCH, SIDE)


@pytest.mark.parametrize(
    ("bins", "patch", "message"),
    [
        ((), 48, "one or more"),
        ((Bin(96, 48), Bin(48, 48)), 48, "ascending"),
        ((Bin(48, 48), Bin(48, 48)), 48, "distinct"),
        ((Bin(1000, 48),), 48, "bin 1000x0048 is not a multiple of patch 48: use 1008x0048"),
        ((Bin(48, 48),), 0, "patch is 0"),
    ],
)
def test_unusable_bins_are_refused(bins: tuple[Bin, ...], patch: int, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Bins(bins, patch)


def test_bins_survive_json_in_any_order() -> None:
    bins = Bins((Bin(48, 96), Bin(96, 48), Bin(96, 96)), PATCH)
    assert Bins.from_json(json.loads(json.dumps(bins.to_json())), PATCH) == bins
    assert Bins.from_json([[96, 96], [48, 96], [96, 48], [48, 96]], PATCH) == bins


@pytest.mark.parametrize("rows", [[[96, 96], [48, 96, 1]], [[96, 96], [48]], [[96, 96], 48]])
def test_what_is_no_pair_is_no_bin(rows: Any) -> None:
    with pytest.raises(ArgumentError, match="entry 1 of the bins"):
        Bins.from_json(rows, PATCH)
