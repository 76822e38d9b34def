"""Rates, decays, momenta and clips of published methods, against stored vectors; slips by one are shown to be seen."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler

from tests.trainer.objectives.views_made import ALONE, objective, steps_of, trained
from trainer.config import OptimConfig
from trainer.optim import clip_each, optimizer
from trainer.schedule import Schedule, cosine

# Of np.linspace(0, 5e-4, 4), then 1e-6 + (5e-4 - 1e-6) (1 + cos(pi i / 8)) / 2, as float64 prints them.
DINO = [
    0.0, 0.00016666666666666666, 0.0003333333333333333, 0.0005, 0.0005, 0.00048100794336156604, 0.0004269231419060436,
    0.00034597951637508993, 0.0002505, 0.0001550204836249101, 7.40768580939564e-05, 1.9992056638433958e-05,
]  # fmt: skip
# 5e-7 + t (4e-4 - 5e-7) / 10, then 4e-4, and 4e-5 from step 70 of 80 on.
SIMMIM = [
    5e-07, 4.045e-05, 8.04e-05, 0.00012035, 0.0001603, 0.00020025, 0.0002402, 0.00028015, 0.0003201, 0.00036005,
    *[4e-4] * 60, *[4e-5] * 10,
]  # fmt: skip
# .03 (1 + cos(pi e / 5)) / 2 of epoch e, three steps each.
_EPOCHS = (0.03, 0.02713525491562421, 0.01963525491562421, 0.01036474508437579, 0.00286474508437579)
MOCO = [rate for rate in _EPOCHS for _ in range(3)]
MOMENTUM = [
    0.996, 0.9961522409349775, 0.9965857864376269, 0.9972346331352698, 0.998, 0.9987653668647302, 0.9994142135623731,
    0.9998477590650225,
]  # fmt: skip
DECAY = [
    0.04, 0.05370168414796839, 0.09272077938642143, 0.15111698217428382, 0.22, 0.2888830178257161, 0.3472792206135786,
    0.3862983158520316,
]  # fmt: skip

_DINO = Schedule(peak=5e-4, floor=1e-6, warmup=4, total=12, rise="both")
_SIMMIM = Schedule(
    kind="multistep", peak=4e-4, start=5e-7, warmup=10, total=80, rise="start", milestones=(70 / 80,), gamma=0.1
)
_MOCO = Schedule(peak=0.03, total=15, every=3)


def _rates(of: Schedule) -> list[float]:
    return [of.at(step) for step in range(of.total)]


@pytest.mark.parametrize(("of", "stored"), [(_DINO, DINO), (_SIMMIM, SIMMIM), (_MOCO, MOCO)])
def test_rates_are_those_of_the_published_runs(of: Schedule, stored: list[float]) -> None:
    assert _rates(of) == pytest.approx(stored, rel=1e-13, abs=0)


def _reaching_its_end() -> list[float]:
    return [*DINO[:4], *(cosine(5e-4, 1e-6, i / 7) for i in range(8))]


@pytest.mark.parametrize(
    ("wrong", "stored"),
    [
        pytest.param(_rates(replace(_DINO, rise="end")), DINO, id="warm-up begins a step late"),
        pytest.param(_rates(replace(_DINO, rise="start")), DINO, id="warm-up ends a step late"),
        pytest.param(_rates(replace(_DINO, warmup=5)), DINO, id="warm-up a step longer"),
        pytest.param(_reaching_its_end(), DINO, id="the end value is reached"),
        pytest.param(_rates(replace(_DINO, floor=0.0)), DINO, id="no floor"),
        pytest.param(_rates(replace(_SIMMIM, rise="end")), SIMMIM, id="SimMIM: warm-up off by one"),
        pytest.param(_rates(replace(_SIMMIM, rise="both")), SIMMIM, id="SimMIM: warm-up reaches the rate"),
        pytest.param(_rates(replace(_SIMMIM, milestones=(69 / 80,))), SIMMIM, id="SimMIM: milestone off by one"),
        pytest.param(_rates(replace(_SIMMIM, start=0.0)), SIMMIM, id="SimMIM: warm-up from 0"),
        pytest.param(_rates(replace(_MOCO, every=1)), MOCO, id="MoCo: by step"),
    ],
)
def test_what_is_off_by_one_is_seen(wrong: list[float], stored: list[float]) -> None:
    assert len(wrong) == len(stored)
    assert wrong != pytest.approx(stored, rel=1e-3, abs=0)


def test_simmim_s_rates_are_timm_s_whose_milestones_come_a_step_early() -> None:
    """And so is a cosine behind a warm-up that begins at its start."""
    given: dict[str, Any] = {"warmup_t": 10, "warmup_lr_init": 5e-7}
    multistep, falling = (torch.optim.SGD([torch.zeros(1)], lr=4e-4) for _ in range(2))
    theirs = MultiStepLRScheduler(multistep, decay_t=[71], decay_rate=0.1, warmup_prefix=False, **given)
    assert [theirs._get_lr(step)[0] for step in range(80)] == pytest.approx(SIMMIM, rel=1e-13)
    cosines = CosineLRScheduler(falling, t_initial=70, lr_min=1e-5, warmup_prefix=True, **given)
    own = Schedule(peak=4e-4, floor=1e-5, start=5e-7, warmup=10, total=80, rise="start")
    assert [cosines._get_lr(step)[0] for step in range(80)] == pytest.approx(_rates(own), rel=1e-13)


def test_dino_s_warm_up_is_numpy_s_linspace_at_its_real_length() -> None:
    of = Schedule(peak=1e-3, floor=1e-6, warmup=310, total=3100, rise="both")
    wanted = np.linspace(0, 1e-3, 310)
    assert _rates(of)[:310] == pytest.approx(wanted.tolist(), rel=1e-13)
    assert of.at(309) == of.at(310) == 1e-3
    assert min(of.at(step) for step in range(310, 3100)) > 1e-6


@pytest.mark.parametrize(
    ("start", "end", "stored"), [(0.996, 1.0, MOMENTUM), (0.04, 0.4, DECAY)], ids=["momentum", "weight decay"]
)
def test_momentum_and_decay_follow_half_a_cosine_that_does_not_reach_its_end(
    start: float, end: float, stored: list[float]
) -> None:
    assert [cosine(start, end, step / 8) for step in range(8)] == pytest.approx(stored, rel=1e-14)
    ahead = [cosine(start, end, (step + 1) / 8) for step in range(8)]
    reaching = [cosine(start, end, step / 7) for step in range(8)]
    for wrong in (ahead, reaching):
        assert wrong != pytest.approx(stored, rel=1e-6)


def test_the_loop_gives_dino_s_teacher_the_momentum_of_its_step() -> None:
    made = objective("dino", "vit")
    found = []
    for step in range(8):
        made.begin_step(step, 8, steps_of(0, 1, 1, 32)[:1], ALONE)
        found.append(made._momentum)
    assert found == pytest.approx(MOMENTUM, rel=1e-14)


# --- clip and decay


def _clipped(grads: list[torch.Tensor], greatest: float, wrong: str) -> list[torch.Tensor]:
    """By loops over tensors, or wrongly."""
    norms = [math.sqrt(sum(x * x for x in g.flatten().tolist())) for g in grads]
    whole = math.sqrt(sum(n * n for n in norms))
    found = []
    for grad, norm in zip(grads, norms, strict=True):
        by = whole if wrong == "the model's norm" else norm
        if wrong == "value by value":
            found.append(grad.clamp(-greatest, greatest))
        elif wrong == "all to the norm":
            found.append(grad * greatest / by)
        else:
            found.append(grad * min(1.0, greatest / (by + 1e-6)))
    return found


@pytest.mark.parametrize("wrong", ["", "the model's norm", "value by value", "all to the norm"])
def test_one_large_gradient_is_clipped_and_the_others_stay(wrong: str) -> None:
    made = torch.Generator().manual_seed(0)
    grads = [torch.randn(n, 3, dtype=torch.float64, generator=made) * s for n, s in ((4, 0.1), (5, 100.0), (2, 0.3))]
    wanted = _clipped(grads, 3.0, wrong)
    clip_each(grads, 3.0)
    differ = max(float((a - b).abs().max()) for a, b in zip(grads, wanted, strict=True))
    assert differ > 1e-3 if wrong else differ < 1e-12


@pytest.mark.parametrize(
    "wrong", ["", "the model's norm", "before the mean", "not at all", "biases decay", "decay stays"]
)
def test_a_run_clips_each_tensor_and_lets_no_bias_decay(tmp_path: Path, wrong: str) -> None:
    """Two steps of stochastic gradient descent by the loop, against the same by hand."""
    clip, rate = 0.02, 0.5
    o = OptimConfig(
        name="sgd", lr=rate, momentum=0.0, weight_decay=0.04, weight_decay_end=0.4, schedule="constant", warmup=0.0,
        clip=clip, clip_by="tensor",
    )  # fmt: skip
    batches = steps_of(0, 1, 2, 32, micros=2)
    found = trained(objective("dino", "vit", freeze_last=0), batches, 2, tmp_path, optim=o)["weights"]
    made, some = objective("dino", "vit", freeze_last=0), 0
    for step in range(2):
        own = [b for b in batches if b.position.step == step]
        made.begin_step(step, 2, own, ALONE)
        made.model.zero_grad()
        outs = [made.run(made.model, b) for b in own]
        sum(out.loss for out in outs).backward()
        images = sum(float(out.images) for out in outs)
        decay = 0.04 if wrong == "decay stays" else cosine(0.04, 0.4, step / 2)
        params = [p for p in made.model.parameters() if p.grad is not None]
        grads: list[Any] = [p.grad if wrong == "before the mean" else p.grad / images for p in params]
        some = sum(float(g.norm()) > clip for g in grads)
        assert wrong or 0 < some < len(grads), "some are clipped, and some are not"
        if wrong != "not at all":
            grads = _clipped(grads, clip, wrong)
        for p, grad in zip(params, grads, strict=True):
            own_decay = decay if p.ndim > 1 or wrong == "biases decay" else 0.0
            given = grad / images if wrong == "before the mean" else grad
            p.data -= rate * (given + own_decay * p.data)
        made.stepped(ALONE)
    differ = max(float((p.detach() - found[n]).abs().max()) for n, p in made.model.named_parameters())
    assert differ > 1e-7 if wrong else differ < 1e-10, differ


def test_class_token_and_positions_decay_and_neither_biases_nor_norms() -> None:
    made = objective("dino", "vit")
    groups = optimizer(made.model, OptimConfig(lr=1e-3, weight_decay=0.04)).param_groups
    names = {p: name for name, p in made.model.named_parameters()}
    still = {names[p] for group in groups if not group["weight_decay"] for p in group["params"]}
    assert still == {n for n, p in made.model.named_parameters() if p.ndim == 1}
    assert "encoder.encoder.cls_token" not in still
