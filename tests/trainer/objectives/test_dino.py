"""DINO against its formulas in loops, with what would be wrong shown to be seen; what counts, stays and is drawn."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from tests.trainer.objectives.views_made import ALONE, loader, model, objective, steps_of, views
from trainer import metrics
from trainer.models.vit import VitConfig
from trainer.objectives.dino import DinoConfig, distillation_loss

STEPS, RATE = 3, 0.1
WRONG = [
    "centre before loss",
    "centred logits in the average",
    "same view kept",
    "temperatures swapped",
    "empty places in the centre",
    "centre by micro-batch",
    "teacher before student",
    "momentum a step ahead",
    "outputs not frozen",
    "temperature constant",
    "temperature a step ahead",
    "teacher with the student's gain",
]


def _logits(weights: dict[str, Tensor], net: Any, images: Tensor, gain: bool) -> Tensor:
    """One view through timm's encoder and the head by hand."""
    named = {n.removeprefix("encoder.encoder."): w for n, w in weights.items() if n.startswith("encoder.")}
    x: Tensor = torch.func.functional_call(net.encoder.encoder, named, (images,))
    for at in (0, 2, 4):
        x = F.linear(x, weights[f"head.mlp.{at}.weight"], weights[f"head.mlp.{at}.bias"])
        x = x if at == 4 else 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    x = x / x.square().sum(1, keepdim=True).sqrt()
    v = weights["head.last.direction"]
    rows = v / v.square().sum(1, keepdim=True).sqrt()
    return x @ (rows * weights["head.last.gain"] if gain else rows).T


def by_loops(made: Any, batches: list[Any], wrong: str = "") -> list[dict[str, Any]]:
    """Three steps of stochastic gradient descent, image by image and pair by pair."""
    net = copy.deepcopy(made.model)
    names = [name for name, _ in net.named_parameters()]
    student = {name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in net.named_parameters()}
    teacher = {name: p.detach().clone() for name, p in student.items()}
    centre, found = torch.zeros(24, dtype=torch.float64), []
    for step in range(STEPS):
        hot, cold = 0.1, [0.04, 0.055, 0.07][step]
        if wrong == "temperature constant":
            cold = 0.07
        if wrong == "temperature a step ahead":
            cold = [0.055, 0.07, 0.07][step]
        if wrong == "temperatures swapped":
            hot, cold = cold, hot
        total, count, raw, losses = torch.zeros((), dtype=torch.float64), 0, [], []
        for batch in (b for b in batches if b.position.step == step):
            images = [view.double() for of in batch.views for view in of]
            seen = [_logits(teacher, net, x, wrong == "teacher with the student's gain") for x in images[:2]]
            told = [_logits(student, net, x, True) for x in images]
            there = batch.rows >= 0
            own = torch.cat([t if wrong == "empty places in the centre" else t[there] for t in seen])
            raw.append(own)
            if wrong == "centre before loss":
                centre = 0.9 * centre + 0.1 * own.mean(0)
            for place in torch.nonzero(there).flatten().tolist():
                terms = []
                for i, t in enumerate(seen):
                    for j, s in enumerate(told):
                        if i == j and wrong != "same view kept":
                            continue
                        q = torch.softmax((t[place] - centre) / cold, 0).detach()
                        terms.append(-(q * torch.log_softmax(s[place] / hot, 0)).sum())
                loss = torch.stack(terms).mean()
                losses.append(loss.item())
                total, count = total + loss, count + 1
            if wrong == "centre by micro-batch":
                centre = 0.9 * centre + 0.1 * own.mean(0)
        (total / count).backward()  # type: ignore[no-untyped-call]
        mean = torch.cat(raw).mean(0)
        if wrong == "centred logits in the average":
            mean = mean - centre
        if wrong not in ("centre before loss", "centre by micro-batch"):
            centre = 0.9 * centre + 0.1 * mean
        ahead = 1 if wrong == "momentum a step ahead" else 0
        m = 1 + (0.996 - 1) * 0.5 * (1 + math.cos(math.pi * (step + ahead) / STEPS))
        old = {name: p.detach().clone() for name, p in student.items()}
        for name in names:
            p = student[name]
            frozen = step == 0 and name.startswith("head.last") and wrong != "outputs not frozen"
            if p.grad is not None and not frozen:
                p.data -= RATE * p.grad
            p.grad = None
        of = old if wrong == "teacher before student" else student
        teacher = {name: m * teacher[name] + (1 - m) * of[name].detach() for name in names}
        found.append({"losses": losses, "centre": centre, "teacher": teacher, "student": dict(student)})
        found[-1] = copy.deepcopy({k: v for k, v in found[-1].items() if k != "student"}) | {
            "student": {n: p.detach().clone() for n, p in student.items()}
        }
    return found


def by_objective(made: Any, batches: list[Any]) -> list[dict[str, Any]]:
    found = []
    for step in range(STEPS):
        own = [b for b in batches if b.position.step == step]
        made.begin_step(step, STEPS, own[:1], ALONE)
        outs = [made.run(made.model, batch) for batch in own]
        made.model.zero_grad()
        (sum(o.loss for o in outs) / sum(o.images for o in outs)).backward()
        made.before_update(step, STEPS)
        for p in made.model.parameters():
            p.data -= 0 if p.grad is None else RATE * p.grad
        made.stepped(ALONE)
        found.append(
            {
                "losses": [x for o in outs for x in o.losses[o.weight > 0].tolist()],
                "centre": made.centre.clone(),
                "teacher": {n: p.clone() for n, p in made.teacher.network.named_parameters()},
                "student": {n: p.detach().clone() for n, p in made.model.named_parameters()},
            }
        )
    return found


def differ(one: list[dict[str, Any]], two: list[dict[str, Any]]) -> float:
    """The greatest difference between two traces."""
    worst = 0.0
    for a, b in zip(one, two, strict=True):
        worst = max(worst, *(abs(x - y) for x, y in zip(a["losses"], b["losses"], strict=True)))
        worst = max(worst, float((a["centre"] - b["centre"]).abs().max()))
        for which in ("teacher", "student"):
            worst = max(worst, *(float((a[which][n] - b[which][n]).abs().max()) for n in a[which]))
    return worst


def _made() -> Any:
    made = objective("dino", "vit", norm_last_layer=False)
    made.model.encoder.encoder.pos_embed.requires_grad_(False)  # timm interpolates it in float32, gradients too
    return made


@pytest.fixture(scope="module")
def traced() -> list[dict[str, Any]]:
    made = _made()
    return by_objective(made, steps_of(0, 1, STEPS, 32, micros=2, empty=1))


@pytest.mark.parametrize("wrong", ["", *WRONG])
def test_three_steps_are_those_of_the_formulas_in_loops(traced: list[dict[str, Any]], wrong: str) -> None:
    made = _made()
    found = differ(traced, by_loops(made, steps_of(0, 1, STEPS, 32, micros=2, empty=1), wrong))
    assert found > 1e-8 if wrong else found < 1e-12, found


@pytest.mark.parametrize(("globals_", "count"), [(2, 18), (1, 9), (3, 27)])
def test_the_loss_is_a_mean_over_pairs_of_different_views(globals_: int, count: int) -> None:
    made = torch.Generator().manual_seed(0)
    student = torch.randn(10, 4, 7, dtype=torch.float64, generator=made)
    teacher = torch.randn(globals_, 4, 7, dtype=torch.float64, generator=made).softmax(-1)
    found = distillation_loss(student, teacher, 0.1)
    for image in range(4):
        terms = [
            -(teacher[i, image] * (student[j, image] / 0.1).log_softmax(0)).sum()
            for i in range(globals_)
            for j in range(10)
            if i != j
        ]
        assert len(terms) == count
        assert float(found[image]) == pytest.approx(float(sum(terms)) / count, rel=1e-13)


@pytest.mark.parametrize("kind", ["vit", "cnn"])
def test_places_without_an_image_count_in_nothing(kind: str) -> None:
    side = {"vit": 32, "cnn": 64}[kind]
    whole, one = objective("dino", kind), objective("dino", kind)
    for made, empty in ((whole, 0), (one, 2)):
        batch = views(places=3 + empty, side=side, empty=empty)
        batch = replace(
            batch,
            views=tuple(
                torch.cat([v, torch.full_like(v[:, :1], 7.0).expand(-1, empty, -1, -1, -1)], 1)
                for v in views(places=3, side=side).views
            ),
        )
        made.begin_step(0, 3, [batch], ALONE)
        out = made.run(made.model, batch)
        out.loss.backward()
        made.stepped(ALONE)
        assert float(out.images) == 3
        assert bool(torch.isfinite(out.losses).all())
    torch.testing.assert_close(whole.centre, one.centre, rtol=1e-12, atol=1e-14)
    for (name, p), q in zip(whole.model.named_parameters(), one.model.parameters(), strict=True):
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-9, atol=1e-12, msg=name)


def test_the_teacher_has_no_stochastic_depth_and_starts_as_weights_that_were_loaded() -> None:
    torch.manual_seed(0)
    made: Any = DinoConfig(outputs=24, hidden=16, bottleneck=8).build(model("vit", drop_path=0.5), loader(3, 4))
    made.model.train()
    rates = {m.drop_prob for m in made.model.modules() if hasattr(m, "drop_prob")}
    assert max(rates) == 0.5
    assert not any(getattr(m, "drop_prob", 0) for m in made.teacher.network.modules())
    for p in made.model.parameters():  # as --init does, after it was built
        p.data.add_(0.5)
    made.begin_step(0, 3, [views()], ALONE)
    for p, q in zip(made.model.parameters(), made.teacher.network.parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_step_that_is_skipped_leaves_all_as_it_was() -> None:
    made = objective("dino", "cnn")
    made.begin_step(0, 3, [views(side=64)], ALONE)
    before = {n: v.clone() for n, v in {**made.model.state_dict(), **made.state_dict()}.items()}
    made.run(made.model, views(side=64))
    made.skipped(ALONE)
    for name, value in {**made.model.state_dict(), **made.state_dict()}.items():
        assert torch.equal(value, before[name]), name
    made.run(made.model, views(side=64))
    made.stepped(ALONE)
    other = objective("dino", "cnn")
    other.begin_step(0, 3, [views(side=64)], ALONE)
    other.run(other.model, views(side=64))
    other.stepped(ALONE)
    assert torch.equal(made.centre, other.centre), "nothing of the skipped step is in the centre"


def test_validation_changes_nothing_and_uses_running_statistics() -> None:
    made = objective("dino", "cnn")
    made.begin_step(0, 3, [views(side=64)], ALONE)
    made.run(made.model, views(side=64))
    made.stepped(ALONE)
    before = {n: v.clone() for n, v in {**made.model.state_dict(), **made.state_dict()}.items()}
    made.model.eval()
    with torch.no_grad():
        two = [made.run(made.model, views(7, side=64, places=n)).losses[:2] for n in (2, 2)]
    assert torch.equal(*two)
    for name, value in {**made.model.state_dict(), **made.state_dict()}.items():
        assert torch.equal(value, before[name]), name
    assert made._seen is None


@pytest.mark.parametrize(
    ("epochs", "wanted"),
    [(0, [0.07] * 4), (1, [0.04, 0.07, 0.07, 0.07]), (3, [0.04, 0.055, 0.07, 0.07])],
)
def test_the_teacher_s_temperature_rises_by_epoch_with_both_ends(epochs: int, wanted: list[float]) -> None:
    made = DinoConfig(teacher_temperature=0.07, temperature_epochs=epochs)
    assert [made.temperature(e) for e in range(4)] == pytest.approx(wanted, rel=1e-15)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_encoder_loads_strictly_into_timm_and_images_of_one_channel_run(channels: Any) -> None:
    torch.manual_seed(0)
    made: Any = DinoConfig(outputs=24, hidden=16, bottleneck=8).build(model("vit", channels=channels), loader(3, 4))
    made.model.train()
    assert made.run(made.model, views()).losses.shape == (3,)
    own = timm.create_model("vit_of_views", num_classes=0, in_chans=channels, img_size=32)
    own.load_state_dict(made.model.encoder.encoder.state_dict(), strict=True)


def test_our_own_encoder_is_trained_too() -> None:
    torch.manual_seed(0)
    config = VitConfig(patch=8, width=32, depth=2, heads=2, drop_path=0.2)
    made: Any = DinoConfig(outputs=24, hidden=16, bottleneck=8).build(config, loader(3, 4))
    made.model.train()
    out = made.run(made.model, views())
    out.loss.backward()
    assert [n for n, p in made.model.named_parameters() if p.requires_grad and p.grad is None] == []
    again = made.run(made.model, views())
    assert torch.equal(out.losses, again.losses), "stochastic depth is drawn from the plan's seeds"


def test_no_weight_is_left_without_a_gradient() -> None:
    for kind, side in (("vit", 32), ("cnn", 64)):
        made = objective("dino", kind)
        made.run(made.model, views(side=side)).loss.backward()
        assert [n for n, p in made.model.named_parameters() if p.requires_grad and p.grad is None] == []


def test_one_view_is_refused_with_what_to_do() -> None:
    made = objective("dino", "vit")
    whole = views(places=2)
    sizes = torch.full((2, 2), 32)
    one = BinnedBatch(whole.views[0][0], sizes, whole.rows, whole.seeds, whole.position)
    with pytest.raises(ArgumentError, match="multiview"):
        made.run(made.model, one)


@pytest.mark.parametrize(("kind", "columns"), [("vit", 8), ("cnn", 5)])
def test_the_picture_has_a_line_an_image_and_attention_where_there_is_some(kind: str, columns: int) -> None:
    side = {"vit": 32, "cnn": 64}[kind]
    made, batch = objective("dino", kind), views(places=5, empty=1, side=side)
    drawn = made.picture(batch, made.run(made.model, batch))
    assert drawn.shape == (24 + 4 * 166 + 6, columns * 166 + 6)


def test_metrics_tell_of_collapse() -> None:
    made, batch = objective("dino", "vit"), views(places=5, empty=1)
    said = made.run(made.model, batch).metrics
    sums = {**metrics.named(said), **metrics.finished(metrics.for_later(said))}
    found = {name.removeprefix(metrics.PREFIX): float(v[0] / v[1]) for name, v in sums.items()}
    assert found.keys() == {"teacher_entropy", "divergence", "feature_deviation", "effective_rank"}
    assert 0 < found["teacher_entropy"] < 1
    assert found["divergence"] > 0
