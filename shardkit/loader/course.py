"""Where a loader stands: the plan of the epoch it is in, and the state that names the next step."""

from typing import Any

from shardkit.errors import ArgumentError, StateError
from shardkit.loader import saved
from shardkit.loader.batch import BatchPosition
from shardkit.plan.epoch import MARKED, EpochPlan
from shardkit.plan.samples import Samples
from shardkit.plan.spec import PlanSpec


class Course:
    """One epoch after another of the same samples.

    Parameters
    ----------
    samples : Samples
        What there is to plan for.
    spec : PlanSpec
        What decides the plan, besides dataset, seed and epoch.
    seed, epoch : int
        Seed of the run, and the epoch to begin with.
    digest, url : str
        Name the dataset in states and messages.

    Attributes
    ----------
    samples, spec, seed
        As above.
    epoch, step : int
        The epoch, and how many of its steps were handed out in full.

    Raises
    ------
    ArgumentError
        For what cannot be planned.
    """

    def __init__(self, samples: Samples, spec: PlanSpec, seed: int, epoch: int, digest: str, url: str) -> None:
        self.samples, self.spec, self.seed, self.epoch, self.step = samples, spec, seed, epoch, 0
        self._digest, self._url = digest, url
        self._plan: EpochPlan | None = None
        _ = self.plan

    @property
    def plan(self) -> EpochPlan:
        """The current epoch's plan."""
        if self._plan is None:
            self._plan = EpochPlan(self.samples, self.seed, self.epoch, self.spec.batching, self.spec.window)
        return self._plan

    def begin(self) -> EpochPlan:
        """Copy the plan for an iteration that goes on at the current step.

        Raises
        ------
        ArgumentError
            Where the epoch has no step.
        StateError
            Where it does not have this one.
        """
        plan = self.plan
        if not plan.has(self.step):
            if not plan.has(0):
                raise ArgumentError(
                    f"{self.spec.batching} leaves no full step: too few samples; use remainder=fill, or lower per_step"
                )
            raise StateError(f"epoch {self.epoch} has {len(plan):,} steps, and the state is at step {self.step:,}")
        return plan.copy()

    def deliver(self, position: BatchPosition) -> None:
        """Move on with a batch that is handed out: after a step's last one, to the next step or epoch."""
        if position.last:
            self.epoch, self.step = position.following
            if position.ends:
                self._plan = None

    def state(self, after: BatchPosition | None) -> dict[str, Any]:
        """Return the state after a batch, or as things stand."""
        epoch, step = (self.epoch, self.step) if after is None else after.following
        mark = self._plan.mark(step, MARKED) if self._plan is not None and self._plan.epoch == epoch else None
        return saved.make(str(self.spec), self._digest, self.seed, epoch, step, mark)

    def load(self, state: dict[str, Any]) -> None:
        """Go to where a state was taken; StateError for one of another dataset or plan."""
        seed, epoch, step, mark = saved.read(state, str(self.spec), self._digest, self._url)
        plan = None
        if mark is not None:
            plan = EpochPlan(self.samples, seed, epoch, self.spec.batching, self.spec.window)
            with saved.sound():
                plan.go_on(mark)
        self.seed, self.epoch, self.step, self._plan = seed, epoch, step, plan
