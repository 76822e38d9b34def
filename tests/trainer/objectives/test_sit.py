"""SiT against its loss written out, in float64, and against versions that are wrong in one thing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shardkit import MultiViewBatch
from tests.trainer.objectives.two_views import ALONE, PATCH, SIDE, batch_of, micro, shaken
from trainer.models.base import Channels
from trainer.objectives.contrast import contrast
from trainer.objectives.corruption import corrupt
from trainer.objectives.sit import Sit, SitConfig, SitModel

HIDDEN, OUT, STEPS = 24, 8, 10
CONFIG = SitConfig(hidden=HIDDEN, out=OUT)
T = 0.2


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


# --- the loss written out


def _norm(x: Tensor, there: list[int], own: Any) -> Tensor:
    mean = torch.stack([x[at] for at in there]).sum(0) / len(there)
    variance = torch.stack([(x[at] - mean) ** 2 for at in there]).sum(0) / len(there)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x if own.weight is None else x * own.weight + own.bias


def _head(head: Any, tokens: Tensor, there: list[int], wrong: str) -> Tensor:
    groups = [there]
    if wrong == "empty places in statistics":
        groups = [[*range(len(tokens))]]
    if wrong == "statistics of each view":
        half = len(tokens) // 2
        return torch.cat([_head(head, part, [at for at in range(half) if at in there], "") for part in tokens.chunk(2)])
    x = tokens
    for at in range(3):
        x = _norm(x @ head.maps[at].weight.T, groups[0], head.norms[at])
        if at == 0:
            x = x.clamp(min=0)
        if at == 1:
            x = 0.5 * x * (1 + torch.erf(x / 2**0.5))
    return x


def _views(batch: MultiViewBatch, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clean, corrupted and mask of both views, one after the other."""
    found = []
    for number in range(2):
        view = batch.binned(number)
        clean = view.images.expand(-1, channels, -1, -1)
        made = corrupt(clean, view, CONFIG.corruption)
        found.append((clean, made.images, made.mask))
    clean, seen, mask = (torch.cat(parts) for parts in zip(*found, strict=True))
    return clean, seen, mask


def _repaired(vit: Any, head: Any, seen: Tensor, wrong: str) -> Tensor:
    tokens = vit.forward_features(seen)[:, 1:]
    if wrong == "from taps":
        raw = vit.forward_intermediates(seen, indices=[5, 7, 9, 11], output_fmt="NLC", intermediates_only=True)
        tokens = vit.norm(sum(raw) / 4)
    for at in (0, 2, 4):
        tokens = F.gelu(F.linear(tokens, head.mlp[at].weight, head.mlp[at].bias))
    out = torch.zeros_like(seen)
    for place in range(tokens.shape[1]):
        row, col = (PATCH * at for at in divmod(place, SIDE // PATCH))
        patch = torch.einsum("bw,wcij->bcij", tokens[:, place], head.pixels.weight)
        out[:, :, row : row + PATCH, col : col + PATCH] = patch + head.pixels.bias[None, :, None, None]
    return out


def _there(batch: MultiViewBatch) -> list[int]:
    return [at for at, row in enumerate(batch.rows.tolist()) if row >= 0]


def _keys(objective: Sit, batch: MultiViewBatch, channels: int, wrong: str) -> list[Tensor]:
    clean, seen, _ = _views(batch, channels)
    network: Any = objective._student if wrong == "keys of the student" else objective.teacher.network
    there = _there(batch)
    token = network.encoder.encoder.forward_features(seen if wrong == "teacher sees blocks" else clean)[:, 0]
    both = _head(network.contrast, token, there + [len(batch.rows) + at for at in there], wrong)
    return [*both.chunk(2)]


def _contrast(q: Tensor, own: Tensor, others: list[Tensor], wrong: str) -> Tensor:
    """One query against the keys of all images; loops over them."""

    def length(v: Tensor) -> Tensor:
        return v if wrong == "no length 1" else v / torch.sqrt((v * v).sum())

    temperature = 1.0 if wrong == "no temperature" else T
    scores = [float(length(q) @ length(k)) / temperature for k in others]
    factor = {"missing 2T": 1.0, "missing 2": T}.get(wrong, 2 * T)
    score = float(length(q) @ length(own)) / temperature
    return torch.tensor(factor * (math.log(sum(map(math.exp, scores))) - score), dtype=torch.float64)


@torch.no_grad()
def _loss(objective: Sit, step: list[MultiViewBatch], at: int, channels: int, wrong: str = "") -> Tensor:
    """Losses of the micro-batch `at` of a step, one a place: (S,)."""
    model: Any = objective.model
    batch, places = step[at], len(step[at].rows)
    there = _there(batch)
    clean, seen, mask = _views(batch, channels)
    shown = clean if wrong == "student sees no blocks" else seen
    token = model.encoder.encoder.forward_features(shown)[:, 0]
    queries = _head(model.contrast, token, there + [places + i for i in there], wrong).chunk(2)
    keys = [_keys(objective, other, channels, wrong) for other in step]
    made, target = _repaired(model.encoder.encoder, model.reconstruction, shown, wrong), clean
    if wrong == "target with blocks":
        target = seen
    off = (made - target).abs()
    corrupted = torch.ones_like(mask) if wrong == "all pixels" else mask
    count = sum(int(corrupted[v * places + i].sum()) * channels for v in range(2) for i in there)
    losses = torch.zeros(places, dtype=torch.float64)
    for i in there:
        told = torch.zeros((), dtype=torch.float64)
        for view in (0,) if wrong == "one way" else (0, 1):
            other = view if wrong == "same view" else 1 - view
            micros = [at] if wrong == "negatives of the micro-batch alone" else range(len(step))
            held = {m: range(places) if wrong == "empty keys" else _there(step[m]) for m in micros}
            own = keys[0 if wrong == "labels of the first micro-batch" else at][other][i]
            told += _contrast(queries[view][i], own, [keys[m][other][j] for m in micros for j in held[m]], wrong)
        parts = [off[v * places + i][:, corrupted[v * places + i, 0]] for v in range(2)]
        repaired = sum(float(part.detach().sum()) for part in parts) * len(there) / count
        if wrong == "mean of images":
            repaired = sum(float(part.detach().mean()) for part in parts) / 2
        losses[i] = told * (0.5 if wrong == "mean of both ways" else 1) + (1 if wrong == "lambda 1" else 5) * repaired
    return losses


WRONG = [
    "missing 2T", "missing 2", "no temperature", "no length 1", "one way", "mean of both ways", "same view",
    "negatives of the micro-batch alone", "labels of the first micro-batch", "empty keys", "keys of the student",
    "teacher sees blocks", "student sees no blocks", "target with blocks", "all pixels", "mean of images", "lambda 1",
    "from taps", "empty places in statistics", "statistics of each view",
]  # fmt: skip


@pytest.fixture(scope="module")
def run() -> tuple[Sit, list[MultiViewBatch], list[Any]]:
    """A step, and what became of its micro-batches."""
    objective, step = _made(), _step()
    objective.begin_step(3, STEPS, step, ALONE)
    return objective, step, [objective.run(objective.model, batch) for batch in step]


def test_the_loss_is_that_of_a_loop_over_images_keys_and_pixels(run: Any) -> None:
    objective, step, outs = run
    for at, out in enumerate(outs):
        there = _there(step[at])
        right = _loss(objective, step, at, 1)
        torch.testing.assert_close(out.losses.detach()[there], right[there], rtol=0, atol=1e-12)
        assert torch.isfinite(out.losses).all()
        assert out.weight.tolist() == [float(place in there) for place in range(4)]
        contrast_, repaired = (out.metrics[name] for name in ("contrast", "reconstruction"))
        assert float(contrast_[0] + 5 * repaired[0]) == pytest.approx(float(out.loss.detach()))


def test_the_loss_of_three_channels_is_that_of_a_loop_too() -> None:
    objective, step = _made(3), _step()
    objective.begin_step(3, STEPS, step, ALONE)
    out, there = objective.run(objective.model, step[2]), _there(step[2])
    torch.testing.assert_close(out.losses.detach()[there], _loss(objective, step, 2, 3)[there], rtol=0, atol=1e-12)


@pytest.mark.parametrize("wrong", WRONG)
def test_a_loss_that_is_wrong_in_one_thing_is_another(run: Any, wrong: str) -> None:
    objective, step, outs = run
    off = max(
        float((out.losses.detach() - _loss(objective, step, at, 1, wrong))[_there(step[at])].sum().abs())
        for at, out in enumerate(outs)
    )
    assert off > 1e-6


def test_keys_have_no_gradient() -> None:
    """Queries and keys by the same weights; keys that had one would change theirs."""
    drawn = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4, generator=drawn, dtype=torch.float64, requires_grad=True)
    x, y = (torch.randn(6, 5, generator=drawn, dtype=torch.float64) for _ in range(2))
    there = torch.tensor([True, False, True, True, True, True])

    def by_hand(detached: bool) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for i in range(2):
            q, k = x[i] @ weights, (y @ weights).detach() if detached else y @ weights
            scores = [(q / q.norm()) @ (k[j] / k[j].norm()) / T for j in range(6) if there[j]]
            total = total + 2 * T * (torch.logsumexp(torch.stack(scores), 0) - scores[i + 1])
        return total

    found = contrast(x[:2] @ weights, y @ weights, there, 2, T).sum()
    torch.testing.assert_close(found, by_hand(True), rtol=0, atol=1e-12)
    own, right, wrong = (torch.autograd.grad(loss, weights)[0] for loss in (found, by_hand(True), by_hand(False)))
    torch.testing.assert_close(own, right, rtol=0, atol=1e-12)
    assert (own - wrong).abs().max() > 1e-3


def test_an_image_that_does_not_count_has_a_finite_loss_and_gradient() -> None:
    q = torch.randn(2, 4, requires_grad=True)
    loss = contrast(q, torch.randn(2, 4), torch.tensor([True, False]), 0, T)
    assert torch.isfinite(loss).all()
    (loss * torch.tensor([1.0, 0.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert q.grad is not None
    assert torch.isfinite(q.grad).all()
