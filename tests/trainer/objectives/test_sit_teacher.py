"""SiT's head against torch's, its teacher step by step, validation, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import nn

from shardkit import MultiViewBatch
from shardkit.errors import ArgumentError
from shardkit.plan.views import View
from tests.trainer.objectives.two_views import ALONE, SIDE, batch_of, micro, shaken
from trainer.models.base import Channels
from trainer.models.contrast_head import ContrastHead
from trainer.objectives.sit import Sit, SitConfig, SitModel

HIDDEN, OUT, STEPS = 24, 8, 10
CONFIG = SitConfig(hidden=HIDDEN, out=OUT)


def _made(channels: Channels = 1) -> Sit:
    """A student and a teacher that differ, in float64."""
    made = Sit(SitModel(micro(channels), HIDDEN, OUT), CONFIG)
    for network, seed in ((made.model, 3), (made.teacher.network, 4)):
        shaken(network, seed)
        network.double()
    return made


def _step() -> list[MultiViewBatch]:
    """Three micro-batches of 3, 4 and 2 images in 4 places."""
    held = [(True, True, True, False), (True,) * 4, (False, True, False, True)]
    return [batch_of(1 + at, there, (3, at, 3), at == 2) for at, there in enumerate(held)]


# --- the head


def _theirs(head: ContrastHead) -> nn.Sequential:
    parts: list[nn.Module] = []
    maps: Any = head.maps
    norms: Any = head.norms
    for at, after in enumerate((nn.ReLU(), nn.GELU(), nn.Identity())):
        rows, cols = maps[at].weight.shape
        own, norm = nn.Linear(cols, rows, bias=False), nn.BatchNorm1d(rows, affine=at < 2)
        own.weight.data.copy_(maps[at].weight)
        if at < 2:
            norm.weight.data.copy_(norms[at].weight)
            norm.bias.data.copy_(norms[at].bias)
        parts += [own, norm, after]
    return nn.Sequential(*parts).double()


def test_its_head_is_torch_s_on_places_that_hold_an_image() -> None:
    head = ContrastHead(16, 24, 8)
    shaken(head)
    head.double()
    theirs = _theirs(head)
    x, there = torch.randn(7, 16, dtype=torch.float64), torch.tensor([True] * 5 + [False] * 2)
    for _ in range(3):
        found, wanted = head(x, there), theirs(x[there])
        head.stepped()
        torch.testing.assert_close(found[there], wanted)
    head.eval(), theirs.eval()
    torch.testing.assert_close(head(x, there), theirs(x), msg="running statistics")
    before = {name: v.clone() for name, v in head.state_dict().items()}
    head.train()
    head(x, there)
    head.skipped()
    head.stepped()
    assert all(torch.equal(v, before[name]) for name, v in head.state_dict().items())


# --- the teacher


def test_the_teacher_begins_as_the_student_and_follows_along_a_cosine_in_its_parameters_alone() -> None:
    objective = _made()
    momenta = []
    for step in range(3):
        batches = _step()
        objective.begin_step(step, STEPS, batches, ALONE)
        network: Any = objective.teacher.network
        if step == 0:
            for name, value in objective._student.state_dict().items():
                assert torch.equal(value, network.state_dict()[name]), name
        for batch in batches:
            objective.run(objective.model, batch)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        shaken(objective.model, 10 + step)  # an update
        objective.stepped(ALONE)
        new = dict(objective._student.named_parameters())
        momenta.append(1 - (1 - 0.996) * 0.5 * (1 + math.cos(math.pi * step / STEPS)))
        for name, p in network.named_parameters():
            wanted = momenta[-1] * before[name] + (1 - momenta[-1]) * new[name].detach()
            torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-12)
            late = 1 - (1 - 0.996) * 0.5 * (1 + math.cos(math.pi * (step + 1) / STEPS))
            assert (p - late * before[name] - (1 - late) * new[name]).abs().max() > 1e-6, "the next step's momentum"
        student: Any = objective._student
        for own, other in zip(network.contrast.norms, student.contrast.norms, strict=True):
            assert not torch.equal(own.running_mean, other.running_mean), "its buffers are its own"
        assert not any(p.requires_grad for p in network.parameters())
    assert momenta == pytest.approx([0.996, 0.99609789, 0.99638197], abs=1e-7)


def test_the_teacher_has_no_stochastic_depth_and_keys_are_the_same_twice() -> None:
    objective = Sit(SitModel(micro(drop_path=0.5), HIDDEN, OUT), CONFIG)
    step = [batch_of(1, dtype=torch.float32)]
    found = []
    for _ in range(2):
        objective.begin_step(1, STEPS, step, ALONE)
        assert objective._keys is not None
        found.append(objective._keys.values)
    assert torch.equal(*found)
    assert found[0].abs().max() > 0


def test_validation_needs_no_step_tells_images_of_a_micro_batch_apart_and_changes_nothing() -> None:
    objective, batch = _made(), batch_of(1)
    before = {**objective.model.state_dict(), **objective.state_dict()}
    before = {name: value.clone() for name, value in before.items()}
    objective.model.eval()
    with torch.no_grad():
        one, two = (objective.run(objective.model, batch) for _ in range(2))
    assert torch.equal(one.losses, two.losses)
    for name, value in {**objective.model.state_dict(), **objective.state_dict()}.items():
        assert torch.equal(value, before[name]), name
    other = replace(batch, position=replace(batch.position, micro=2, micros=5))
    with torch.no_grad():
        assert torch.equal(objective.run(objective.model, other).losses, one.losses)
    objective.model.train()
    with pytest.raises(AssertionError, match="begin_step"):
        objective.run(objective.model, batch)


def test_a_step_that_is_skipped_leaves_all_as_it_was_and_nothing_of_it_flows_into_the_next() -> None:
    skipping, plain = _made(), _made()
    for step, objectives in enumerate(((skipping, plain), (skipping,), (skipping, plain))):
        batch = batch_of(1 + step)
        for made in objectives:
            made.begin_step(step, STEPS, [batch], ALONE)
            made.run(made.model, batch)
            if len(objectives) == 1:
                made.skipped(ALONE)
            else:
                made.stepped(ALONE)
        for name, value in {**plain.model.state_dict(), **plain.state_dict()}.items():
            assert torch.equal(value, {**skipping.model.state_dict(), **skipping.state_dict()}[name]), name


def test_all_that_is_trained_goes_through_the_model() -> None:
    objective, batch = _made(), batch_of(1)
    objective.begin_step(1, STEPS, [batch], ALONE)
    objective.run(objective.model, batch).loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in objective.model.parameters())
    assert not any(p.grad is not None for p in objective.teacher.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_its_encoder_loads_strictly_into_timm_s_model(channels: Channels) -> None:
    theirs = timm.create_model("vit_micro", in_chans=channels, num_classes=0, img_size=SIDE)
    state = _made(channels).model.encoder.state_dict()
    theirs.load_state_dict({name.removeprefix("encoder."): v for name, v in state.items()})


def test_one_view_or_views_of_another_size_are_refused() -> None:
    class Views:
        patch = 8

        def __init__(self, *views: View) -> None:
            self.views = views

    model = SitModel(micro(), HIDDEN, OUT)
    model.check_batching(Views(View(SIDE, n=2)))
    model.check_batching(Views(View(SIDE), View(SIDE)))
    for wrong in (Views(View(SIDE)), Views(View(SIDE), View(SIDE, n=2)), object()):
        with pytest.raises(ArgumentError, match="2 views"):
            model.check_batching(wrong)
    with pytest.raises(ArgumentError, match="32 pixels a side"):
        model.check_batching(Views(View(SIDE), View(48)))
