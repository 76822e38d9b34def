"""Samples: a selection of a selection, down to nothing; and what is taken for granted of a dataset."""

from __future__ import annotations

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


def test_images_can_be_halved_as_often_as_their_codec_does_it() -> None:
    assert _samples([1]).levels == LEVELS
