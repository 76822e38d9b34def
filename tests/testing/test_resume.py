"""The shipped resume contract: a sound loader keeps it, every way to break it is named."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import Batching, Binned, EpochPlan, Exact, Fixed, MicroBatch, Packed, Resized, Samples
from shardkit.testing.resume import assert_any_world_size, assert_resumes_exactly

HEIGHTS, WIDTHS = np.random.default_rng(0).integers(10, 100, (2, 70))
SAMPLES = Samples("digest", np.array([0, 10, 30, 45, 70]), HEIGHTS, WIDTHS, Bins((Bin(48, 96), Bin(112, 112)), 16))
BATCHING = Resized(32, 4, per_step=4)


class PlanLoader:
    """Hands out a plan's steps, as `shardkit.Loader` does."""

    def __init__(self, batching: Batching = BATCHING, rank: int = 0, world: int = 1) -> None:
        self.batching, self.rank, self.world = batching, rank, world
        self.epoch, self.step = 0, 0

    def plan(self) -> EpochPlan:
        return EpochPlan(SAMPLES, 3, self.epoch, self.batching, window=2)

    def __iter__(self) -> Iterator[Any]:
        plan, epoch, step = self.plan(), self.epoch, self.step
        while plan.has(step):
            for at in range(self.rank, self.batching.per_step, self.world):
                micro, last = plan[step][at], at + self.world >= self.batching.per_step
                if last:
                    self.epoch, self.step = (epoch, step + 1) if plan.has(step + 1) else (epoch + 1, 0)
                position = SimpleNamespace(epoch=epoch, step=step, micro=at, micros=self.batching.per_step, last=last)
                yield SimpleNamespace(rows=self.rows(micro), position=position, seeds=micro.crops.seed)
            step += 1

    def rows(self, micro: MicroBatch) -> Any:
        return micro.crops.row

    def state_dict(self) -> Any:
        return {"epoch": self.epoch, "step": self.step}

    def load_state_dict(self, state: Any) -> None:
        self.epoch, self.step = state["epoch"], state["step"]


# ------------------------------------------------------------------------------------------------------ kept


@pytest.mark.deep
@pytest.mark.parametrize(
    "batching",
    [
        Fixed(112, 3, per_step=4),
        Exact(per_step=8),
        Binned(batch_size=3, per_step=4, remainder="repeat"),
        Binned(tokens=100, per_step=4, group=2, remainder="drop"),
        Packed(tokens=150, max_images=6, per_step=4),
        Resized(32, 4, per_step=4, crop=(0.2, 1.0), flip=0.5),
    ],
    ids=str,
)
def test_a_plans_steps_keep_the_contract_with_every_batching_and_on_any_world(batching: Batching) -> None:
    assert_resumes_exactly(lambda: PlanLoader(batching))
    assert_resumes_exactly(lambda: PlanLoader(batching, rank=1, world=2))
    assert_any_world_size(lambda rank, world: PlanLoader(batching, rank, world))


def test_rows_may_be_lists_and_seeds_may_be_absent() -> None:
    class Plain(PlanLoader):
        def __iter__(self) -> Iterator[Any]:
            for batch in super().__iter__():
                yield SimpleNamespace(rows=batch.rows.tolist(), position=batch.position)

    assert_resumes_exactly(Plain)


def test_only_the_first_steps_may_be_asked_for() -> None:
    class StopsResumingLater(PlanLoader):
        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict({**state, "step": min(state["step"], 2)})

    assert_resumes_exactly(StopsResumingLater, steps=1)
    with pytest.raises(AssertionError, match="resumed after 2 of 5 steps, and once more"):
        assert_resumes_exactly(StopsResumingLater)


# ---------------------------------------------------------------------------------------------------- broken


class StartsAnew(PlanLoader):
    def load_state_dict(self, state: Any) -> None:
        pass


class SkipsAStep(PlanLoader):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict({**state, "step": state["step"] + bool(state["step"])})


class RepeatsAStep(PlanLoader):
    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict({**state, "step": max(0, state["step"] - 1)})


class LosesTheSecondState(PlanLoader):
    """Counts from where it was loaded, as a loader that fast-forwards and forgets to add that."""

    loaded = 0

    def state_dict(self) -> Any:
        return {"epoch": self.epoch, "step": self.step - self.loaded if self.epoch == 0 else self.step}

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.loaded = self.step


class RepeatsTheEpoch(PlanLoader):
    """At the end of an epoch its state is the begin of the same one."""

    def state_dict(self) -> Any:
        return {"epoch": 0, "step": self.step}


class LosesTheNextEpoch(PlanLoader):
    """Loaded at the end of an epoch, its first iteration is empty."""

    empty = False

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.empty = self.epoch > 0 and self.step == 0

    def __iter__(self) -> Iterator[Any]:
        if self.empty:
            self.empty = False
            return
        yield from super().__iter__()


class RunsOnIntoTheNextEpoch(PlanLoader):
    """Once loaded, no iteration ends with its epoch."""

    loaded = False

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.loaded = True

    def __iter__(self) -> Iterator[Any]:
        yield from super().__iter__()
        if self.loaded:
            yield from super().__iter__()


class CountsWhatItReadAhead(PlanLoader):
    """Its state is a step ahead of what it handed out."""

    def state_dict(self) -> Any:
        return {"epoch": self.epoch, "step": self.step + 1 if self.step else 0}


class ShufflesOtherwise(PlanLoader):
    """Once loaded, it has the right steps with their rows in another order."""

    loaded = False

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.loaded = True

    def rows(self, micro: MicroBatch) -> Any:
        return micro.crops.row[::-1] if self.loaded else micro.crops.row


class AugmentsOtherwise(PlanLoader):
    """Once loaded, it has the right rows with other seeds."""

    added = 0

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.added = 1

    def __iter__(self) -> Iterator[Any]:
        for batch in super().__iter__():
            batch.seeds = batch.seeds + np.uint64(self.added)
            yield batch


class EndsEarly(PlanLoader):
    """Once loaded, it stops before the last step."""

    loaded = False

    def load_state_dict(self, state: Any) -> None:
        super().load_state_dict(state)
        self.loaded = True

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(super().__iter__(), 4 if self.loaded else None)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (StartsAnew, "resumed after 0 of 5 steps, and once more after another step: got micro-batch 0 of step 0"),
        (SkipsAStep, "resumed after 0 of 5 steps, and once more after another step: got micro-batch 0 of step 2"),
        (
            RepeatsAStep,
            "and once more after another step: got micro-batch 0 of step 0 .* where .* of step 1 of epoch 0",
        ),
        (LosesTheSecondState, "resumed after 1 of 5 steps, and once more after another step: got .* of step 1"),
        (RepeatsTheEpoch, "resumed after 4 of 5 steps, and once more .* of epoch 0 .* where .* step 0 of epoch 1"),
        (LosesTheNextEpoch, "resumed after 4 of 5 steps, and once more .*: got the end of the iteration, where micro"),
        (
            RunsOnIntoTheNextEpoch,
            "resumed after 0 of 5 steps: got .* of epoch 1 .* where the end of the iteration was due",
        ),
        (CountsWhatItReadAhead, "and once more after another step: got micro-batch 0 of step 2 "),
        (ShufflesOtherwise, "resumed after 0 of 5 steps: got .* with the rows .* where .* with the rows"),
        (AugmentsOtherwise, "resumed after 0 of 5 steps: got .* and the seeds .* and the seeds"),
        (EndsEarly, "resumed after 0 of 5 steps: got the end of the iteration, where .* of step 1"),
    ],
)
def test_a_broken_loader_is_told_where_it_went_wrong(broken: Any, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_resumes_exactly(broken)


def test_a_state_that_lives_on_inside_the_loader_is_no_way_to_pass() -> None:
    class Live(PlanLoader):
        """Gives away the very dict that it goes on with."""

        def state_dict(self) -> Any:
            return self.__dict__.setdefault("live", {})

        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict(state or {"epoch": 0, "step": 0})

    with pytest.raises(AssertionError, match="resumed after 0 of 5 steps, and once more"):
        assert_resumes_exactly(Live)


def test_a_state_that_no_checkpoint_can_hold_is_refused() -> None:
    class Unpicklable(PlanLoader):
        def state_dict(self) -> Any:
            return {"epoch": self.epoch, "next": iter(self)}

    with pytest.raises(AssertionError, match="the state cannot be pickled, so no checkpoint can hold it"):
        assert_resumes_exactly(Unpicklable)


def test_a_loader_that_differs_every_time_is_refused() -> None:
    made = itertools.count()

    def make() -> PlanLoader:
        loader = PlanLoader()
        loader.epoch = next(made)
        return loader

    with pytest.raises(AssertionError, match="a second fresh loader: got"):
        assert_resumes_exactly(make)


def test_a_loader_without_batches_or_without_whole_steps_is_refused() -> None:
    class Empty(PlanLoader):
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    class HalfAStep(PlanLoader):
        def __iter__(self) -> Iterator[Any]:
            return itertools.islice(super().__iter__(), 6)

    with pytest.raises(AssertionError, match="has to give an epoch of batches"):
        assert_resumes_exactly(Empty)
    with pytest.raises(AssertionError, match=r"whose position\.last is false"):
        assert_resumes_exactly(HalfAStep)


# -------------------------------------------------------------------------------------------- broken among ranks


def test_ranks_whose_states_differ_are_named() -> None:
    class OfItsOwn(PlanLoader):
        def state_dict(self) -> Any:
            return {**super().state_dict(), "rank": self.rank}

    with pytest.raises(AssertionError, match="2 ranks have different states after 0 steps"):
        assert_any_world_size(lambda rank, world: OfItsOwn(BATCHING, rank, world))


def test_ranks_with_more_micro_batches_than_others_are_named() -> None:
    class Uneven(PlanLoader):
        def __iter__(self) -> Iterator[Any]:
            return itertools.islice(super().__iter__(), 9 + self.rank)

    with pytest.raises(AssertionError, match="of 2 ranks, some have more micro-batches than others"):
        assert_any_world_size(lambda rank, world: Uneven(BATCHING, rank, world))


def test_ranks_that_get_other_samples_than_a_single_one_are_named() -> None:
    class OrderOfTheWorld(PlanLoader):
        def plan(self) -> EpochPlan:
            return EpochPlan(SAMPLES, self.world, self.epoch, self.batching, window=2)

    with pytest.raises(AssertionError, match="2 ranks: got micro-batch 0 of step 0"):
        assert_any_world_size(lambda rank, world: OrderOfTheWorld(BATCHING, rank, world))


def test_a_state_that_counts_a_ranks_own_micro_batches_fails_on_another_number_of_ranks() -> None:
    class OwnCount(PlanLoader):
        def state_dict(self) -> Any:
            return {"epoch": self.epoch, "seen": self.step * self.batching.per_step // self.world}

        def load_state_dict(self, state: Any) -> None:
            self.epoch, self.step = state["epoch"], state["seen"] * self.world // self.batching.per_step

    assert_resumes_exactly(lambda: OwnCount(BATCHING, 1, 2))
    with pytest.raises(AssertionError, match="2 ranks, resumed where 1 were after 1 of 5 steps: got"):
        assert_any_world_size(lambda rank, world: OwnCount(BATCHING, rank, world))


def test_the_contract_needs_no_torch() -> None:
    code = "import sys, shardkit.testing.resume; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
