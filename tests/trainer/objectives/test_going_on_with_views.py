"""Runs with a teacher or a queue that are stopped after any step go on bit for bit; without any part they do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.objectives.views_made import ALONE, SIDES, loader, model, views
from trainer.config import OptimConfig
from trainer.objectives.dino import DinoConfig
from trainer.objectives.moco import MocoConfig
from trainer.optim import optimizer
from trainer.runs.checkpoint import Checkpoints, TrainingState

STEPS = 4
KINDS = [("dino", "vit"), ("dino", "cnn"), ("moco", "cnn")]
Run = tuple[Any, torch.optim.Optimizer]


def _begun(method: str, kind: str, seed: int, freeze: int = 1) -> Run:
    torch.manual_seed(seed)
    if method == "dino":
        small: dict[str, Any] = {
            "outputs": 24,
            "hidden": 16,
            "bottleneck": 8,
            "temperature_epochs": 2,
            "teacher_temperature": 0.07,
        }
        made: Any = DinoConfig(**small, freeze_last=freeze).build(model(kind, drop_path=0.2), loader(4, 2))
    else:
        made = MocoConfig(queue=24, width=8, momentum=0.9).build(model(kind), loader(4, 2))
    made.model.train()
    return made, optimizer(made.model, OptimConfig(lr=1e-2, weight_decay=0.1))


def _go(run: Run, steps: range, kind: str) -> list[float]:
    """Two micro-batches a step, and two steps an epoch; the steps' losses."""
    made, changer = run
    found = []
    for step in steps:
        own = [views(step, m, 2, m == 1, step // 2, places=4, empty=m, side=SIDES[kind]) for m in range(2)]
        changer.zero_grad(set_to_none=True)
        made.begin_step(step, STEPS, own, ALONE)
        outs = [made.run(made.model, batch) for batch in own]
        loss = torch.stack([o.loss for o in outs]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        made.before_update(step, STEPS)
        changer.step()
        made.stepped(ALONE)
        found.append(loss.item())
    return found


def _kept(run: Run) -> dict[str, Any]:
    return {n: v.clone() for n, v in {**run[0].model.state_dict(), **run[0].state_dict()}.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Any]:
    """(method, kind) -> losses, all that a run has at its end, and a checkpoint after each step."""
    made: dict[tuple[str, str], Any] = {}

    def of(method: str, kind: str) -> Any:
        if (method, kind) not in made:
            run, folder = _begun(method, kind, 0), tmp_path_factory.mktemp(f"{method}-{kind}")
            checkpoints, losses = Checkpoints(folder, STEPS, ALONE), []
            for step in range(STEPS):
                losses += _go(run, range(step, step + 1), kind)
                checkpoints.save(step + 1, TrainingState(run[0].model, run[1], None, 0, run[0]), {"step": step + 1})
                checkpoints.wait()
            made[method, kind] = losses, _kept(run), checkpoints
        return made[method, kind]

    return of


def _gone_on(found: Checkpoints, method: str, kind: str, after: int, lost: str = "") -> tuple[list[float], Any]:
    run = _begun(method, kind, 1, freeze=0 if lost == "freeze" else 1)
    before = _kept(run)
    TrainingState(run[0].model, run[1], None, 0, run[0]).load(found.path(after))
    for name, value in run[0].state_dict().items():
        if lost and name.startswith(lost):
            value.copy_(before[name])
    return _go(run, range(after, STEPS), kind), _kept(run)


def _same(one: Any, two: Any) -> bool:
    return one[0] == two[0] and all(torch.equal(value, two[1][name]) for name, value in one[1].items())


@pytest.mark.parametrize("after", range(1, STEPS))
@pytest.mark.parametrize(("method", "kind"), KINDS)
def test_a_run_goes_on_after_any_step_bit_for_bit(whole: Any, method: str, kind: str, after: int) -> None:
    losses, kept, checkpoints = whole(method, kind)
    assert _same(_gone_on(checkpoints, method, kind, after), (losses[after:], kept))


@pytest.mark.parametrize(
    ("method", "kind", "lost"),
    [
        ("dino", "vit", "centre"),
        ("dino", "vit", "teacher.head.last.direction"),
        ("dino", "vit", "teacher.encoder.encoder.cls_token"),
        ("dino", "vit", "freeze"),
        ("dino", "cnn", "teacher.encoder.encoder.bn1.running_var"),
        ("moco", "cnn", "queue"),
        ("moco", "cnn", "pointer"),
        ("moco", "cnn", "teacher.head.0.weight"),
        ("moco", "cnn", "teacher.encoder.encoder.bn1.running_mean"),
    ],
)
def test_without_any_part_it_would_not(whole: Any, method: str, kind: str, lost: str) -> None:
    losses, kept, checkpoints = whole(method, kind)
    assert not _same(_gone_on(checkpoints, method, kind, 1, lost), (losses[1:], kept))


def test_the_last_layer_does_not_change_in_the_first_epoch_and_does_after_it() -> None:
    run = _begun("dino", "vit", 0)
    last = run[0].model.head.last.direction
    start = last.detach().clone()
    _go(run, range(2), "vit")
    assert torch.equal(last, start), "two steps of epoch 0: no gradient, and no weight decay"
    _go(run, range(2, 3), "vit")
    assert not torch.equal(last, start)
    run = _begun("dino", "vit", 0, freeze=0)
    _go(run, range(1), "vit")
    assert not torch.equal(run[0].model.head.last.direction, start)


def test_the_temperature_is_known_to_a_validation_before_the_next_step(whole: Any) -> None:
    _, kept, checkpoints = whole("dino", "vit")
    run = _begun("dino", "vit", 1)
    TrainingState(run[0].model, run[1], None, 0, run[0]).load(checkpoints.path(STEPS))
    assert float(run[0].temperature) == float(kept["temperature"]) == 0.07


def test_moments_that_no_step_has_made_are_kept_as_zeros(tmp_path: Path) -> None:
    run = _begun("dino", "vit", 0)
    _go(run, range(1), "vit")
    last = run[0].model.head.last.direction
    assert last not in run[1].state
    TrainingState(run[0].model, run[1], None, 0, run[0]).tensors()
    assert float(run[1].state[last]["step"]) == 0
    assert not run[1].state[last]["exp_avg"].any()
