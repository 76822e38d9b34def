"""What `shardkit plan` says of a window that leaves neighbours of an archive together."""

import numpy as np
import pytest

from shardkit.dataset.bins import Bin, Bins
from shardkit.loader.plan_report import Costs, advice
from shardkit.plan import EpochPlan, Resized, Samples
from shardkit.plan.score import score


def _plan(shards: int, window: int) -> EpochPlan:
    """Shards of 20 small images each."""
    starts = np.arange(shards + 1) * 20
    side = np.full(starts[-1], 64, np.uint16)
    samples = Samples("planning", starts, side, side, Bins((Bin(64, 64),), 16))
    return EpochPlan(samples, 0, 0, Resized(64, 64, per_step=4), window)


def _costs(window_bytes: int) -> Costs:
    return Costs(0, 0, 0, window_bytes, 0, 0)


def test_two_thousand_shards_are_mixed_too_little_by_a_window_of_256_and_a_wider_one_is_named() -> None:
    plan = _plan(2000, 256)
    told = advice(plan.order, _costs(256_000_000))
    assert told is not None
    assert "samples of one shard meet 7.8 times as often as in a perfect shuffle" in told
    assert "256 of 2,000 shards" in told
    assert "--window 1000 brings it to 2, with a cache of about 1,000.0 MB" in told
    assert "without a cache --window 2000 costs nothing more" in told


@pytest.mark.parametrize(("window", "together"), [(256, 2000 / 256), (1000, 2), (2000, 1)])
def test_what_is_said_of_a_window_is_what_its_plan_does(window: int, together: float) -> None:
    plan = _plan(2000, window)
    assert score(plan, np.repeat(np.arange(2000), 20)).ratio == pytest.approx(together, rel=0.1)


@pytest.mark.parametrize(("shards", "window"), [(2000, 1000), (2000, 5000), (500, 256), (3, 256), (1, 1)])
def test_nothing_is_said_of_a_window_of_half_the_shards_or_more(shards: int, window: int) -> None:
    assert advice(_plan(shards, window).order, _costs(1)) is None
