"""GMML and SiT go on exactly from any step, and a step that was not taken leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.trainer.objectives.two_views import ALONE, batch_of, micro
from trainer.objectives.base import Objective
from trainer.objectives.gmml import Gmml, GmmlConfig, GmmlModel
from trainer.objectives.sit import Sit, SitConfig, SitModel

STEPS = 4
State = dict[str, Any]


def _gmml() -> Objective:
    return Gmml(GmmlModel(micro(drop_path=0.3)), GmmlConfig())


def _sit() -> Objective:
    return Sit(SitModel(micro(drop_path=0.3), 24, 8), SitConfig(hidden=24, out=8, momentum=0.9))


class _Run:
    """A run by hand: two micro-batches a step, one update."""

    def __init__(self, make: Callable[[], Objective], seed: int) -> None:
        torch.manual_seed(seed)
        self.objective = make()
        self.objective.model.train()
        self.optimizer = torch.optim.AdamW(self.objective.model.parameters(), lr=1e-2)

    def step(self, number: int, taken: bool = True) -> None:
        batches = [batch_of(10 * number + at, at=(number, at, 2), last=at == 1, dtype=torch.float32) for at in (0, 1)]
        self.optimizer.zero_grad()
        self.objective.begin_step(number, STEPS, batches, ALONE)
        for batch in batches:
            self.objective.run(self.objective.model, batch).loss.backward()  # type: ignore[no-untyped-call]
        if not taken:
            self.objective.skipped(ALONE)
            return
        self.optimizer.step()
        self.objective.stepped(ALONE)

    def state(self) -> State:
        kept: State = {
            "model": {name: v.clone() for name, v in self.objective.model.state_dict().items()},
            "objective": {name: v.clone() for name, v in self.objective.state_dict().items()},
            "optim": [{k: v.clone() for k, v in s.items()} for s in self.optimizer.state.values()],
            "rng": torch.get_rng_state(),
        }
        return kept

    def load(self, state: State) -> None:
        self.objective.model.load_state_dict(state["model"])
        self.objective.load_state_dict({**self.objective.state_dict(), **state["objective"]})
        for p, held in zip(self.objective.model.parameters(), state["optim"], strict=False):
            self.optimizer.state[p] = {k: v.clone() for k, v in held.items()}
        torch.set_rng_state(state["rng"])


def _differing(one: State, two: State) -> set[str]:
    found = {
        f"{part}.{name}"
        for part in ("model", "objective")
        for name in one[part]
        if not torch.equal(one[part][name], two[part][name])
    }
    return found if one["objective"].keys() == two["objective"].keys() else found | {"names"}


@pytest.fixture(scope="module", params=[_gmml, _sit])
def whole(request: pytest.FixtureRequest) -> tuple[Callable[[], Objective], list[State]]:
    """States before each step of a run that is not interrupted, and after the last."""
    run = _Run(request.param, 0)
    states = [run.state()]
    for number in range(STEPS):
        run.step(number)
        states.append(run.state())
    return request.param, states


@pytest.mark.parametrize("at", range(STEPS))
def test_a_run_goes_on_from_any_step_bit_for_bit(whole: Any, at: int) -> None:
    make, states = whole
    run = _Run(make, 1)
    run.load(states[at])
    for number in range(at, STEPS):
        run.step(number)
    assert _differing(run.state(), states[-1]) == set()


def test_a_run_without_one_of_the_objective_s_tensors_would_not() -> None:
    make, states = _sit, []
    run = _Run(make, 0)
    for number in range(2):
        run.step(number)
        states.append(run.state())
    names = list(states[0]["objective"])
    assert {name.partition(".")[0] for name in names} == {"teacher"}
    assert sum("running" in name for name in names) == 6
    for name in (
        "teacher.encoder.encoder.cls_token", "teacher.encoder.encoder.blocks.11.attn.qkv.weight",
        "teacher.contrast.maps.0.weight", "teacher.contrast.norms.0.weight", "teacher.contrast.norms.1.running_mean",
        "teacher.contrast.norms.2.running_var",
    ):  # fmt: skip
        assert name in names
        again = _Run(make, 1)
        again.load({**states[0], "objective": {n: v for n, v in states[0]["objective"].items() if n != name}})
        again.step(1)
        assert f"objective.{name}" in _differing(again.state(), states[1])


@pytest.mark.parametrize("make", [_gmml, _sit])
def test_a_step_that_is_not_taken_leaves_all_as_it_was(make: Any) -> None:
    run, plain = _Run(make, 0), _Run(make, 0)
    for each in (run, plain):
        torch.manual_seed(2)  # of stochastic depth
        each.step(0)
    kept = torch.get_rng_state()
    before = plain.state()
    run.step(1, taken=False)
    assert _differing(run.state(), before) == set()
    for each in (run, plain):
        torch.set_rng_state(kept)
        each.step(2)
    assert _differing(run.state(), plain.state()) == set()
