"""Samples: a selection of a selection, down to nothing; and what is taken for granted of a dataset."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from shardkit.codecs.base import LEVELS
from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import Samples

BINS = Bins((Bin(64, 64),), 16)


def _samples(shards: list[int]) -> Samples:
    starts = np.concatenate([[0], np.cumsum(shards)])
    sides = np.arange(1, starts[-1] + 1).astype(np.uint16)
    return Samples("samples", starts, sides, sides + 7, BINS)


def test_a_selection_may_be_selected_from_until_nothing_is_left() -> None:
    whole = _samples([300, 2, 3])
    some = whole.select(whole.height > 299, "some")
    assert some.starts.tolist() == [0, 1, 3, 6]
    assert some.row(np.arange(6)).tolist() == [299, 300, 301, 302, 303, 304]
    fewer = some.select(np.array([0, 1, 0, 0, 0, 1], np.bool_), "fewer")
    assert fewer.starts.tolist() == [0, 1, 2]
    assert fewer.row(np.arange(2)).tolist() == [300, 304]
    assert (fewer.height.tolist(), fewer.width.tolist()) == ([301, 305], [308, 312])
    assert (fewer.digest, fewer.bins, fewer.levels, fewer.box) == ("fewer", BINS, whole.levels, None)
    nothing = fewer.select(np.zeros(2, np.bool_), "nothing")
    assert nothing.starts.tolist() == [0]
    assert len(nothing.select(np.zeros(0, np.bool_), "still")) == 0


def test_a_selection_that_may_spare_memory_is_the_same_and_holds_no_copy() -> None:
    rng = np.random.default_rng(0)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 5000, 1000))])
    height, width = rng.integers(1, 1 << 16, (2, starts[-1])).astype(np.uint16)
    box = rng.integers(0, 9, (starts[-1], 4)).astype(np.uint16)
    members = starts[[0, 3, 3, 700, 1000]]
    whole = Samples("whole", starts, height, width, BINS, box=box, weights=(1, 2, 3, 4), members=members)
    keep = (rng.random(len(whole)) < 0.3) & (np.arange(len(whole)) // 7000 % 3 > 0)
    index = np.flatnonzero(keep)
    copied = whole.select(keep, "some")
    assert (height[index] == copied.height).all()
    spared = whole.select(keep, "some", spare=True)
    assert np.shares_memory(spared.height, height)
    for of in (copied, spared):
        assert (of.row(np.arange(len(of))) == index).all()
        assert of.rows is not None
        assert of.rows.itemsize == 4
        assert of.box is not None
        assert np.array_equal(of.box, box[index])
        counts = [np.count_nonzero(keep[a:b]) for a, b in pairwise(starts.tolist())]
        assert of.starts.tolist() == [0, *np.cumsum([count for count in counts if count])]
        assert of.members is not None
        assert of.members.tolist() == [np.count_nonzero(keep[:end]) for end in members]
    assert (spared.height == copied.height).all()
    assert (spared.width == copied.width).all()


def test_images_can_be_halved_as_often_as_their_codec_does_it() -> None:
    assert _samples([1]).levels == LEVELS
