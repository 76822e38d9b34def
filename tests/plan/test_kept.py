"""What a plan keeps of the pieces it has planned, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shardkit.plan import Batching, Binned, EpochPlan, EpochStats, Exact, Fixed, Packed, Samples


@pytest.fixture
def plan(radiographs: Callable[..., Samples]) -> EpochPlan:
    """Of 10 pieces of 4 shards."""
    made = EpochPlan(radiographs(2000, 50), 0, 0, Exact(per_step=4), window=4)
    assert made.order.pieces == 10
    return made


def test_the_pieces_that_were_asked_for_last_are_kept(plan: EpochPlan) -> None:
    list(plan)
    assert set(plan._kept) == {7, 8, 9}
    first = {piece: plan._begun[piece].steps for piece in range(10)}
    plan[first[7]]
    plan[first[0]]
    assert set(plan._kept) == {9, 7, 0}, "8 was asked for longest ago"
    assert plan[first[7]] is plan[first[7]], "planned once"


def test_a_plan_says_how_many_steps_it_knows_of_and_when_that_is_all(plan: EpochPlan) -> None:
    assert "steps=0 so far" in repr(plan)
    plan[0]
    known = plan._begun[1].steps
    assert 0 < known < 500
    assert f"steps={known} so far" in repr(plan)
    assert len(plan) == 500
    assert "steps=500" in repr(plan)
    assert "so far" not in repr(plan)
    assert "samples=2,000" in repr(plan)
    assert "window=4" in repr(plan)


def test_overhead_is_all_that_the_model_is_given_by_what_it_is_given_once() -> None:
    assert EpochStats(real_tokens=8, padding_tokens=1, repeated_tokens=3, dropped_tokens=9).overhead == 1.5


@pytest.mark.parametrize(
    "batching", [Fixed(16), Exact(), Binned(batch_size=1), Packed(), Packed(remainder="drop")], ids=str
)
def test_where_nothing_was_fed_there_is_nothing_to_finish(
    few_samples: Callable[..., Samples], batching: Batching
) -> None:
    assert batching.batcher(few_samples(0)).finish([]) == []
