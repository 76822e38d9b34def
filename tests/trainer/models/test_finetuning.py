"""Scores, losses and gradients of a fine-tuned encoder against formulas written out densely in float64."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from shardkit import Resized
from shardkit.errors import ArgumentError
from trainer.models.blocks import drop_rates, kept
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.sequences import sequences
from trainer.models.vit import VitConfig, VitEncoder
from trainer.tasks.config import TaskConfig
from trainer.tasks.targets import Targets
from trainer.tasks.task import Task
from trainer.tasks.training_targets import TrainingTargets

PATCH, CLASSES = 8, 3
CONFIG = VitConfig(patch=PATCH, width=32, depth=3, heads=2, drop_path=0.4)
SIZES = [(32, 24), (17, 40), (40, 16), (9, 9)]
SQUARES = [(40, 40)] * 4
WITHIN: dict[str, Any] = {"rtol": 2e-5, "atol": 2e-6}  # positions and losses are float32 in the models

TARGETS = Targets(
    tuple("abc"),
    np.array([[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], np.float32),
    np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1], [0, 0, 0]], bool),  # nothing is known of the last image
)


def _classifier(head: HeadConfig, config: VitConfig = CONFIG) -> Classifier:
    torch.manual_seed(0)
    model = Classifier(config.encoder(last_norm=not head.norm), CLASSES, replace(head, std=0.5))
    for p in model.parameters():
        if p.ndim == 1:  # biases and norms, which begin at zero and one
            torch.nn.init.normal_(p.data, p.data.mean().item(), 0.1)
    return model.double()


def _batch(layout: str, make_packed: Any, make_binned: Any) -> tuple[Any, list[Tensor]]:
    """A batch with places for no image, and its images; seeds do not depend on the layout."""
    packed, images = make_packed(SQUARES if layout == "resized" else SIZES, patch=PATCH, tokens=128, sequences=6)
    seeds = torch.arange(6) * 1000 + 7
    if layout == "packed":
        return replace(packed, seeds=seeds), images
    side = (40, 40) if layout == "resized" else (48, 56)
    binned = make_binned(images, SQUARES if layout == "resized" else SIZES, *side, 6)
    return replace(binned, seeds=seeds), images


@pytest.mark.parametrize("norm", [True, False])
def test_scores_are_float32_whatever_the_encoder_is_run_in(norm: bool, make_packed: Any, make_binned: Any) -> None:
    model, (batch, _) = _classifier(HeadConfig(norm=norm)).float().eval(), _batch("packed", make_packed, make_binned)
    features: list[Tensor] = []
    model.head.fc.register_forward_pre_hook(lambda _, given: features.append(given[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = model(batch)
    [given] = features
    assert given.dtype == scores.dtype == torch.float32
    assert (scores != scores.bfloat16().float()).any(), "bfloat16 has too few values: scores of rare classes are alike"
    torch.testing.assert_close(scores, F.linear(given, model.head.fc.weight, model.head.fc.bias))


class Dense:
    """An image through a classifier's parameters: plain float64."""

    def __init__(self, model: Classifier, dense: Any, share: Tensor) -> None:
        self.model, self.of, self.share = model, dense(model.encoder), share
        self.head = dict(model.head.named_parameters())

    def __call__(self, image: Tensor, number: int) -> Tensor:
        """(classes,) scores; `share` says what each block's two parts are multiplied by."""
        c, p, of = CONFIG, dict(self.model.encoder.named_parameters()), self.of
        rows, cols = image.shape[0] // PATCH, image.shape[1] // PATCH
        x = F.conv2d(image.double()[None, None], p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], PATCH)
        x = torch.cat([p["cls_token"][0], x.flatten(2).transpose(1, 2)[0] + of.table(rows, cols, c.width)])
        for i in range(c.depth):
            x = of.block(x, f"blocks.{i}", c.heads, self.share[i, :, number])
        config = self.model.head.config
        if not config.norm:
            x = of.norm(x, "norm")
        x = x[0] if config.pool in ("token", "own") else x[1:].mean(0)
        if config.norm:
            x = F.layer_norm(x, x.shape, self.head["fc_norm.weight"], self.head["fc_norm.bias"], 1e-6)
        return F.linear(x, self.head["fc.weight"], self.head["fc.bias"])


def _dense_loss(model: Classifier, dense: Any, images: list[Tensor], share: Tensor) -> tuple[Tensor, Tensor]:
    scores = torch.stack([Dense(model, dense, share)(image, i) for i, image in enumerate(images)])
    values, known = torch.from_numpy(TARGETS.values).double(), torch.from_numpy(TARGETS.known)
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(images)):
        terms = [
            -(F.logsigmoid(s) if v else F.logsigmoid(-s))
            for s, v, k in zip(scores[row], values[row], known[row], strict=True)
            if k
        ]
        if terms:
            total = total + torch.stack(terms).mean()
    return total, scores


def _task(model: Classifier) -> Task:
    ones = np.ones(len(TARGETS.classes), np.float32)
    return Task(model, TARGETS, TrainingTargets.of(TARGETS, np.arange(len(TARGETS.values)), "multilabel"), (ones, ones))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("layout", ["packed", "binned", "resized"])
@pytest.mark.parametrize(
    "head", [HeadConfig(), HeadConfig(norm=False), HeadConfig(pool="token", norm=False), HeadConfig(pool="token")]
)
def test_fine_tuning_is_its_formula_in_loss_and_gradients(
    head: HeadConfig, layout: str, training: bool, make_packed: Any, make_binned: Any, dense: Any
) -> None:
    model = _classifier(head).train(training)
    batch, images = _batch(layout, make_packed, make_binned)
    output = _task(model).run(model, batch)
    assert output.weight.tolist() == [1, 1, 1, 0, 0, 0], "what is unknown, or no image, does not count"
    share = torch.ones(CONFIG.depth, 2, 6)
    if training:
        rates = drop_rates(CONFIG.drop_path, CONFIG.depth)
        share = torch.stack([kept(batch.seeds, i, rate) for i, rate in enumerate(rates)])
        assert 0 < (share == 0).sum() < share[1:].numel(), "some are dropped"
    loss, scores = _dense_loss(model, dense, images, share)
    assert output.scores is not None
    torch.testing.assert_close(output.scores[:4], scores, **WITHIN)
    torch.testing.assert_close(output.loss.double(), loss, **WITHIN)
    names, params = zip(*model.named_parameters(), strict=True)
    for name, one, two in zip(
        names, torch.autograd.grad(output.loss, params), torch.autograd.grad(loss, params), strict=True
    ):
        torch.testing.assert_close(one, two, **WITHIN, msg=name)


def test_a_bins_padding_is_not_seen(make_packed: Any, make_binned: Any) -> None:
    """In which attention would otherwise find it: the features of the packed image."""
    model = _classifier(HeadConfig(pool="token"), replace(CONFIG, position="stretch")).eval()
    one, two = (model(_batch(layout, make_packed, make_binned)[0]) for layout in ("packed", "binned"))
    torch.testing.assert_close(one[:4], two[:4])
    assert isinstance(model.encoder, VitEncoder)
    seen = model.head(model.encoder.features(sequences(_batch("binned", make_packed, make_binned)[0], PATCH)))
    assert (seen[:4] - one[:4]).abs().max() > 1e-3, "else this would not be a test"


def test_stochastic_depth_follows_the_plans_seeds_and_is_off_in_evaluation(make_packed: Any, make_binned: Any) -> None:
    assert drop_rates(0.2, 12) == pytest.approx(np.linspace(0, 0.2, 12))
    seeds = torch.arange(20_000)
    share = kept(seeds, 3, 0.25)
    assert sorted(set(share.flatten().tolist())) == pytest.approx([0, 1 / 0.75])
    assert share.mean(1).tolist() == pytest.approx([1, 1], abs=0.02), "the mean stays"
    assert (share[0] != share[1]).float().mean() == pytest.approx(2 * 0.25 * 0.75, abs=0.02), "two draws a block"
    assert (share != kept(seeds, 4, 0.25)).any()
    model = _classifier(HeadConfig()).train()
    batch, _ = _batch("packed", make_packed, make_binned)
    torch.testing.assert_close(model(batch), model(batch), rtol=0, atol=0)
    assert not torch.equal(model(batch), model(replace(batch, seeds=batch.seeds + 1)))
    torch.testing.assert_close(model.eval()(batch), model(replace(batch, seeds=batch.seeds + 1)))


@pytest.mark.parametrize("layout", ["packed", "binned"])
def test_fine_tuning_runs_in_bfloat16(layout: str, make_packed: Any, make_binned: Any) -> None:
    model = _classifier(HeadConfig(batch_norm=True)).float().train()
    batch, _ = _batch(layout, make_packed, make_binned)
    with torch.autocast("cpu", torch.bfloat16):
        output = _task(model).run(model, batch)
    output.loss.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# ------------------------------------------------------------------------------------------------- heads


def test_batch_norm_counts_images_and_follows_once_a_step(make_packed: Any, make_binned: Any) -> None:
    model = _classifier(HeadConfig(norm=False, batch_norm=True), replace(CONFIG, drop_path=0.0)).train()
    norm, fc = model.head.batch_norm, model.head.fc
    batches = [_batch(layout, make_packed, make_binned)[0] for layout in ("packed", "resized")]
    assert norm is not None
    own = [model.encoder.features(batch).mean()[:4].detach() for batch in batches]
    for batch, x in zip(batches, own, strict=True):
        expected = fc(F.batch_norm(x, None, None, training=True, eps=1e-6))
        torch.testing.assert_close(model(batch)[:4], expected, rtol=1e-4, atol=1e-4)
    assert norm.running_mean.eq(0).all(), "until the step is done"
    norm.stepped()
    both = torch.cat(own)
    torch.testing.assert_close(norm.running_mean, 0.1 * both.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * both.var(0), rtol=1e-4, atol=1e-5)
    model.eval()
    x = (own[0] - norm.running_mean) / (norm.running_var + 1e-6).sqrt()
    torch.testing.assert_close(model(batches[0])[:4], fc(x), rtol=1e-4, atol=1e-4)
    before = norm.running_mean.clone()
    norm.stepped()
    assert torch.equal(norm.running_mean, before), "evaluation leaves nothing behind"


def test_batch_norm_forgets_a_step_that_is_skipped(make_packed: Any, make_binned: Any) -> None:
    """Else a run that is resumed after it would go on otherwise."""
    batches = [_batch(layout, make_packed, make_binned)[0] for layout in ("packed", "resized")]
    means = []
    for first in (batches[:1], []):
        model = _classifier(HeadConfig(norm=False, batch_norm=True)).train()
        for batch in first:
            model(batch)
        model.skipped()
        model(batches[1])
        model.stepped()
        assert model.head.batch_norm is not None
        means.append(model.head.batch_norm.running_mean)
    assert torch.equal(*means)


def test_batch_norm_of_one_image_a_micro_batch_is_refused() -> None:
    """All of it would become 0, and the linear map would get no gradient."""

    def build(batch_size: int, batch_norm: bool) -> None:
        loader: Any = SimpleNamespace(batching=Resized(side=40, patch=8, batch_size=batch_size))
        TaskConfig(head=HeadConfig(batch_norm=batch_norm)).build(CONFIG, loader)

    with pytest.raises(ArgumentError, match=r"a batch_size of 2 or more, or --objective.head.no-batch-norm"):
        build(1, True)
    for batch_size, batch_norm in ((2, True), (1, False)):
        with pytest.raises(ArgumentError, match="--labels is missing"):
            build(batch_size, batch_norm)


def test_a_head_normalises_as_its_encoder_does() -> None:
    model = Classifier(replace(CONFIG, norm_eps=1e-3).encoder(last_norm=False), CLASSES, HeadConfig())
    assert isinstance(model.head.fc_norm, torch.nn.LayerNorm)
    assert model.head.fc_norm.eps == 1e-3
