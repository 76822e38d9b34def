"""What is drawn is uniform and independent, by p-values over several keys.

Keys are fixed and draws are hashes, so that a p-value is the same on every machine: a bound is met always or never.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import Resized, Samples
from shardkit.plan.crops import crops
from shardkit.plan.shuffle import Order, key_of, mix, uniform

KEYS = [key_of("randomness", number) for number in range(8)]
LEAST = 1e-4  # of some 150 p-values of a fault-free hash one in 70 runs would be below, had each run its own keys


def _even(values: npt.NDArray[np.float64], parts: int = 64) -> float:
    """p-value of numbers in [0, 1) being spread evenly."""
    return stats.chisquare(np.bincount((values * parts).astype(np.int64), minlength=parts)).pvalue


def _independent(one: Any, two: Any, parts: int = 8) -> float:
    """p-value of two rows of numbers in [0, 1) telling nothing of each other."""
    table = np.zeros((parts, parts), np.int64)
    np.add.at(table, ((one * parts).astype(np.int64), (two * parts).astype(np.int64)), 1)
    return stats.chi2_contingency(table).pvalue


def _assert_fair(found: Any) -> None:
    """None of the p-values is too small, and together they are spread as p-values are."""
    assert min(found) > LEAST
    assert stats.kstest(found, "uniform").pvalue > LEAST


def test_streams_are_even_and_tell_nothing_of_neighbours_or_of_other_keys() -> None:
    places, found = np.arange(20_000), []
    for key, other in zip(KEYS, KEYS[1:] + KEYS[:1], strict=True):
        drawn = uniform(key, places)
        found += [_even(drawn), _independent(drawn[1:], drawn[:-1]), _independent(drawn[64:], drawn[:-64])]
        found += [_independent(drawn, uniform(twin, places)) for twin in (key ^ 1, key ^ 1 << 63, other)]
        bits = (mix(key, places)[:, None] >> np.arange(64, dtype=np.uint64)) & np.uint64(1)
        found.append(stats.chi2.sf(((2.0 * bits.sum(0) - len(places)) ** 2 / len(places)).sum(), 64))
    _assert_fair(found)


@pytest.fixture(scope="module")
def squares() -> Samples:
    """10,000 images so large that rounding to pixels is nothing, and any crop of up to a half fits."""
    side = np.full(10_000, 60_000, np.uint16)
    return Samples("squares", np.array([0, 10_000]), side, side, Bins((Bin(60_000, 60_000),), 48))


def test_crops_and_flips_are_even_and_tell_nothing_of_one_another(squares: Samples) -> None:
    augmentation, index, found = Resized(224, 1, crop=(0.2, 0.5), flip=0.3).augmentation, np.arange(10_000), []
    for key in KEYS:
        shown = crops(squares, index, augmentation, key)
        top, left, height, width = shown.region.astype(np.float64).T
        low, up = augmentation.ratio
        drawn = {
            "area": (height * width / 60_000**2 - 0.2) / 0.3,
            "shape": np.log(width / height / low) / np.log(up / low),
            "top": top / (60_001 - height),
            "left": left / (60_001 - width),
        }
        drawn = {name: np.clip(values, 0, 1 - 1e-9) for name, values in drawn.items()}
        flips = np.where(shown.flip, 0.1, 0.9)
        found += [_even(values, 32) for values in drawn.values()]
        found.append(stats.binomtest(int(shown.flip.sum()), 10_000, 0.3).pvalue)
        names = list(drawn)
        found += [_independent(drawn[one], drawn[two]) for i, one in enumerate(names) for two in names[:i]]
        found += [_independent(values, flips, 2) for values in drawn.values()]
        found += [_independent(values[1:], values[:-1]) for values in drawn.values()]
    _assert_fair(found)


def test_the_order_puts_every_sample_anywhere(squares: Samples) -> None:
    """Of a window of all shards: places of a few samples over keys, and neighbours in one key."""
    starts = np.arange(0, 401, 20)
    places = np.empty((1000, 400))
    for number in range(1000):
        places[number, Order(starts, 20, key_of("order", number)).piece(0)] = np.arange(400) / 400
    found = [_even(places[:, sample], 20) for sample in range(0, 400, 7)]
    found += [_independent(places[:, sample], places[:, sample + 1], 5) for sample in range(0, 399, 7)]
    _assert_fair(found)
