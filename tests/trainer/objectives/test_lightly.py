"""Losses, centre and queue against lightly's, where it is right: each step of DINO and MoCo, and SiT's contrast."""

from __future__ import annotations

from typing import Any

import lightly.loss
import pytest
import torch
from torch import Tensor

from tests.trainer.objectives.views_made import ALONE, objective, steps_of
from trainer.objectives.contrast import contrast
from trainer.objectives.moco_keys import enqueue

theirs: Any = lightly.loss
STEPS = 4


def _whole(made: Any, step: int, batches: list[Any], epoch: int = 0) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Run a step: the mean of its losses, and what the trained network and the following one gave."""
    own, other = list[Tensor](), list[Tensor]()
    follower = made.teacher.network if hasattr(made, "teacher") else made.follower.network
    hooks = [
        net.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out[1]))
        for net, kept in ((made.model, own), (follower, other))
    ]
    made.begin_step(step, STEPS, batches, ALONE)
    outs = [made.run(made.model, batch) for batch in batches]
    for hook in hooks:
        hook.remove()
    loss = torch.stack([out.loss for out in outs]).sum() / sum(float(out.images) for out in outs)
    made.model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for p in made.model.parameters():
            p.sub_(0 if p.grad is None else 0.3 * p.grad)
    return loss.detach(), own, other


def test_dino_s_loss_and_centre_are_lightly_s_step_by_step() -> None:
    """Temperatures that float32 has exactly: lightly keeps them so."""
    hot, cold = 0.125, 0.0625
    made = objective("dino", "vit", student_temperature=hot, teacher_temperature=cold, temperature_epochs=0)
    loss = theirs.DINOLoss(24, teacher_temp=cold, student_temp=hot, center_momentum=0.9).double()
    for step in range(STEPS):
        (batch,) = [b for b in steps_of(0, 1, STEPS, 32, micros=1) if b.position.step == step]
        found, (student,), (teacher,) = _whole(made, step, [batch])
        wanted = loss(list(teacher), list(student.detach()))
        made.stepped(ALONE)
        assert float(found) == pytest.approx(float(wanted), abs=1e-12)
        torch.testing.assert_close(made.centre, loss.center[0, 0], rtol=0, atol=1e-12)
    assert made.centre.abs().max() > 1e-3


def test_dino_s_warm_up_of_the_temperature_is_lightly_s() -> None:
    made = objective("dino", "vit", teacher_temperature=0.07, temperature_epochs=5)
    loss = theirs.DINOLoss(24, warmup_teacher_temp=0.04, teacher_temp=0.07, warmup_teacher_temp_epochs=5)
    wanted = [*loss.teacher_temp_schedule.tolist(), loss.teacher_temp]
    assert [made.config.temperature(epoch) for epoch in range(6)] == pytest.approx(wanted, rel=1e-6)


def test_moco_s_loss_and_queue_are_lightly_s_step_by_step_and_come_round() -> None:
    made = objective("moco", "vit")
    loss = theirs.NTXentLoss(temperature=0.2, memory_bank_size=(36, 8)).double()
    loss.memory_bank.bank = made.queue.clone()
    for step in range(STEPS):
        batches = [b for b in steps_of(0, 1, STEPS, 32) if b.position.step == step]
        found, queries, _ = _whole(made, step, batches)
        wanted = loss(torch.cat(queries), made._keys)
        made.stepped(ALONE)
        assert float(found) == pytest.approx(float(wanted.detach()), abs=1e-12)
        torch.testing.assert_close(made.queue, loss.memory_bank.bank, rtol=0, atol=1e-12)
        assert int(made.pointer) == int(loss.memory_bank.bank_ptr) == 12 * (step + 1) % 36


def test_a_queue_of_no_whole_batches_is_lost_in_part_by_lightly_and_wraps_here() -> None:
    """Why lightly is no oracle there: keys behind the ring's end are dropped."""
    loss = theirs.NTXentLoss(memory_bank_size=(5, 2))
    keys = torch.randn(3, 2)
    queue, pointer = loss.memory_bank.bank.clone(), torch.tensor(0)
    for _ in range(2):
        loss.memory_bank._dequeue_and_enqueue(keys)
        enqueue(queue, pointer, keys)
    assert torch.equal(queue[1:], loss.memory_bank.bank[1:])
    assert torch.equal(queue[0], keys[2])
    assert torch.equal(loss.memory_bank.bank[0], keys[0])


def test_sit_s_contrast_is_lightly_s_of_each_query_with_the_other_images_keys_times_two_temperatures() -> None:
    drawn = torch.Generator().manual_seed(0)
    queries, keys = (torch.randn(n, 8, generator=drawn, dtype=torch.float64) for n in (3, 9))
    there = torch.tensor([True] * 7 + [False, True])
    found = contrast(queries, keys, there, 3, 0.2)
    for at, query in enumerate(queries):
        others = [i for i in range(9) if there[i] and i != 3 + at]
        loss = theirs.NTXentLoss(temperature=0.2, memory_bank_size=(len(others), 8)).double()
        loss.memory_bank.bank = torch.nn.functional.normalize(keys[others], dim=1)
        wanted = 2 * 0.2 * loss(query[None], keys[3 + at][None])
        assert float(found[at]) == pytest.approx(float(wanted), abs=1e-12)
