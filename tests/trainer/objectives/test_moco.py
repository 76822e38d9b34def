"""What MoCo's keys and queue are made of, what counts, what stays, and what is drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch

from shardkit.errors import ArgumentError
from tests.trainer.objectives.views_made import ALONE, loader, model, objective, views
from trainer.objectives.moco import MocoConfig
from trainer.objectives.moco_keys import StepImages, enqueue
from trainer.objectives.views import views_of


def test_every_image_is_shuffled_once_and_empty_places_never() -> None:
    batches = [views(1, m, 3, m == 2, places=4, empty=m) for m in range(3)]
    step = StepImages.gathered([views_of(b)[1] for b in batches])
    groups = step.groups()
    assert sorted(np.concatenate(groups).tolist()) == step.there.tolist()
    assert [len(g) for g in groups] == [3, 3, 3]
    assert np.concatenate(groups).tolist() != step.there.tolist()


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_places_without_an_image_are_no_keys_and_no_entries(kind: str) -> None:
    side = {"vit": 32, "cnn": 64}[kind]
    found = []
    for filled in (0.0, 7.0):
        made = objective("moco", kind)
        batch = views(places=4, empty=1, side=side)
        batch.views[0][:, 3] = filled
        made.begin_step(0, 2, [batch], ALONE)
        out = made.run(made.model, batch)
        out.loss.backward()
        before = made.queue.clone()
        made.stepped(ALONE)
        assert int(made.pointer) == 3
        assert torch.equal(made.queue[3:], before[3:])
        assert not torch.equal(made.queue[:3], before[:3])
        assert float(out.images) == 3
        assert bool(torch.isfinite(out.losses).all())
        found.append([out.loss.detach(), made.queue, *(p.grad for p in made.model.parameters())])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-12, atol=1e-14)


def test_a_short_step_wraps_round_the_queue() -> None:
    queue, pointer = torch.arange(5.0)[:, None].clone(), torch.tensor(3)
    enqueue(queue, pointer, torch.tensor([[10.0], [11.0], [12.0]]))
    assert queue[:, 0].tolist() == [12.0, 1.0, 2.0, 10.0, 11.0]
    assert int(pointer) == 1


def test_a_queue_of_no_whole_steps_is_refused_with_one_that_fits() -> None:
    told = r"--objective\.queue 30 must be a multiple of the 12 images of a step .* as 24"
    with pytest.raises(ArgumentError, match=told):
        MocoConfig(queue=30, width=8).build(model("cnn"), loader(3, 4))


def test_a_step_that_is_skipped_leaves_all_as_it_was() -> None:
    made, batch = objective("moco", "cnn"), views(side=64)
    before = {n: v.clone() for n, v in {**made.model.state_dict(), **made.state_dict()}.items()}
    made.begin_step(1, 3, [batch], ALONE)
    made.run(made.model, batch)
    made.skipped(ALONE)
    for name, value in {**made.model.state_dict(), **made.state_dict()}.items():
        assert torch.equal(value, before[name]), name


def test_the_key_encoder_s_batch_norms_see_its_own_images() -> None:
    made, batch = objective("moco", "cnn"), views(side=64)
    name = next(n for n in made.state_dict() if n.endswith("running_mean"))
    before = made.state_dict()[name].clone()
    made.begin_step(0, 3, [batch], ALONE)
    assert not torch.equal(made.state_dict()[name], before)
    module = next(m for m in made.follower.network.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert module.training


def test_validation_uses_keys_of_its_own_and_leaves_the_queue() -> None:
    made, batch = objective("moco", "cnn"), views(side=64)
    made.begin_step(0, 3, [batch], ALONE)
    made.run(made.model, batch)
    made.stepped(ALONE)
    before = {n: v.clone() for n, v in {**made.model.state_dict(), **made.state_dict()}.items()}
    made.model.eval()
    with torch.no_grad():
        found = made.run(made.model, views(5, side=64))
        key = made.follower.network(views(5, side=64).binned(0))[1]
    assert set(found.metrics) == {"top1", "feature_deviation", "effective_rank"}
    assert torch.isfinite(key).all()
    for name, value in {**made.model.state_dict(), **made.state_dict()}.items():
        assert torch.equal(value, before[name]), name


def test_keys_begin_with_weights_that_were_loaded_after_it_was_built() -> None:
    made, batch = objective("moco", "vit"), views()
    for p in made.model.parameters():
        p.data.add_(0.5)
    made.begin_step(0, 3, [batch], ALONE)
    for p, q in zip(made.model.parameters(), made.follower.network.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_loads_strictly_into_timm(channels: Any) -> None:
    torch.manual_seed(0)
    made: Any = MocoConfig(queue=36, width=8).build(model("cnn", channels=channels), loader(3, 4))
    made.model.train()
    batch = views(side=64)
    made.begin_step(0, 3, [batch], ALONE)
    made.run(made.model, batch).loss.backward()
    assert [n for n, p in made.model.named_parameters() if p.grad is None] == []
    own = timm.create_model("resnet_of_views", num_classes=0, in_chans=channels)
    own.load_state_dict(made.model.encoder.encoder.state_dict(), strict=True)


def test_densenet_s_head_is_the_one_that_the_recipe_names() -> None:
    made: Any = MocoConfig(queue=36).build(replace(model("cnn"), name="densenet121", side=32), loader(3, 4))
    shapes = [tuple(p.shape) for n, p in made.model.head.named_parameters() if n.endswith("weight")]
    assert shapes == [(1024, 1024), (128, 1024)]


def test_the_picture_has_a_line_an_image() -> None:
    made, batch = objective("moco", "cnn"), views(places=6, empty=1, side=64)
    made.begin_step(0, 3, [batch], ALONE)
    drawn = made.picture(batch, made.run(made.model, batch))
    assert drawn.shape == (24 + 5 * 166 + 6, 6 * 166 + 6)
    assert made.model.training
