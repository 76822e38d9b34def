"""Learning rates by layer, LARS and plain momentum, against the public code's rules written out and against timm's."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from timm.optim import Lars, param_groups_layer_decay
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer import optim
from trainer.config import OptimConfig
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import Mae, MaeConfig
from trainer.models.vit import VitConfig
from trainer.schedule import Schedule

VIT_S = VitConfig(width=384, heads=6)
DECAY = OptimConfig(lr=1.0, layer_decay=0.55)


def _vit(head: HeadConfig) -> Classifier:
    with torch.device("meta"):
        return Classifier(VIT_S.encoder(last_norm=not head.norm), 14, head)


def _found(model: nn.Module, config: OptimConfig = DECAY) -> dict[str, tuple[float, float]]:
    """Scale of the rate and weight decay of each parameter."""
    names = {id(p): optim.plain(name) for name, p in model.named_parameters()}
    made = optim.optimizer(model, config)
    optim.set_rate(made, 2.0)
    return {names[id(p)]: (g["lr"] / 2, g["weight_decay"]) for g in made.param_groups for p in g["params"]}


def _original(names: dict[str, int], depth: int = 12, decay: float = 0.55) -> dict[str, tuple[float, float]]:
    """The masked autoencoder's rule: tokens and patches are layer 0, block i is i + 1, all else depth + 1."""
    found = {}
    for name, ndim in names.items():
        plain = name.removeprefix("encoder.")
        if plain.startswith("blocks."):
            layer = int(plain.split(".")[1]) + 1
        else:
            layer = 0 if plain == "cls_token" or plain.startswith("patch_embed") else depth + 1
        found[name] = decay ** (depth + 1 - layer), 0.05 if ndim > 1 and plain != "cls_token" else 0.0
    return found


def _ours(name: str) -> str:
    """timm's name of a parameter of a whole classifier, as a classifier here has it."""
    return (
        name.replace("head.", "head.fc.")
        if name.startswith("head.")
        else (f"head.{name}" if name.startswith("fc_norm.") else f"encoder.{name}")
    )


@pytest.mark.parametrize("head", [HeadConfig(), HeadConfig(pool="token", norm=False)])
def test_rates_of_a_vit_decay_as_in_the_masked_autoencoders_fine_tuning(head: HeadConfig) -> None:
    model = _vit(head)
    found, expected = _found(model), _original({name: p.ndim for name, p in model.named_parameters()})
    assert found.keys() == expected.keys()
    for name, pair in expected.items():
        assert found[name] == pytest.approx(pair, rel=1e-12), name
    assert len(optim.optimizer(model, DECAY).param_groups) == 28
    assert min(scale for scale, _ in found.values()) == pytest.approx(0.55**13) == pytest.approx(0.000421, rel=1e-3)


def test_they_are_timms_where_the_mean_is_pooled_and_not_quite_with_the_token() -> None:
    for head, pool, same in ((HeadConfig(), "avg", True), (HeadConfig(pool="token", norm=False), "token", False)):
        with torch.device("meta"):
            whole: Any = timm.create_model("vit_small_patch16_224", global_pool=pool, in_chans=1, num_classes=14)
        groups = param_groups_layer_decay(whole, 0.05, whole.no_weight_decay(), layer_decay=0.55)
        scales = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
        theirs = {_ours(n): scales[id(p)] for n, p in whole.named_parameters() if n != "pos_embed"}
        found = _found(_vit(head))
        assert theirs.keys() == found.keys()
        differ = {name for name in found if found[name] != pytest.approx(theirs[name], rel=1e-12)}
        assert (not differ) is same
        if not same:
            assert theirs["encoder.norm.weight"][0] == 0.55
            assert found["encoder.norm.weight"][0] == 1.0


@pytest.mark.parametrize("name", ["hiera_tiny_224", "resnet18"])
def test_rates_of_other_backbones_are_timms(name: str) -> None:
    config: Any = HieraConfig(arch=name) if "hiera" in name else TimmConfig(name=name)
    model = Classifier(config.encoder(), 14, HeadConfig(pool="own", norm=False))
    with torch.device("meta"):
        whole: Any = timm.create_model(name, in_chans=1, num_classes=14)
    exempt = whole.no_weight_decay() if hasattr(whole, "no_weight_decay") else ()
    groups = param_groups_layer_decay(whole, 0.05, exempt, layer_decay=0.55)
    scales = {id(p): (g["lr_scale"], g["weight_decay"]) for g in groups for p in g["params"]}
    theirs = {f"encoder.encoder.{n}": scales[id(p)] for n, p in whole.named_parameters()}
    found = _found(model)
    assert {n for n in found if n.startswith("encoder.")} <= theirs.keys()
    for at, pair in found.items():
        assert pair == pytest.approx(theirs.get(at, (1.0, 0.05 if at.endswith("weight") else 0.0))), at


def test_a_frozen_encoder_is_not_in_the_optimiser_and_a_decoder_has_no_layer() -> None:
    model = _vit(HeadConfig(norm=False, batch_norm=True))
    model.encoder.requires_grad_(False)
    assert set(_found(model)) == {"head.fc.weight", "head.fc.bias"}
    hiera = HieraConfig(arch="hiera_micro", side=64, decoder_width=32, decoder_depth=1, decoder_heads=4).build()
    with pytest.raises(ArgumentError, match="layer-decay is for encoders"):
        optim.optimizer(hiera, DECAY)
    plain = optim.optimizer(Mae(MaeConfig(width=32, depth=1, heads=2)), OptimConfig(lr=1.0))
    assert not any("lr_scale" in group for group in plain.param_groups), "checkpoints of before have none"


# ------------------------------------------------------------------------------------------------- LARS


def _moco(params: list[Tensor], grads: list[Tensor], moments: list[Tensor], lr: float) -> None:
    """MoCo-v3's rule: only what has more than one dimension is adapted, and decayed."""
    for p, g, m in zip(params, grads, moments, strict=True):
        step = g
        if p.ndim > 1:
            sizes = p.norm(), g.norm()
            if sizes[0] > 0 and sizes[1] > 0:
                step = g * (0.001 * sizes[0] / sizes[1])
        m.mul_(0.9).add_(step)
        p.sub_(lr * m)


def _probe(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    model = nn.Linear(64, 14)
    nn.init.trunc_normal_(model.weight, std=0.01)
    nn.init.zeros_(model.bias)
    return model


def _trained(model: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> list[list[Tensor]]:
    """Gradients of each step."""
    torch.manual_seed(1)
    x, y = torch.randn(256, 64), torch.randint(0, 14, (256,))
    seen = []
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        seen.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        optimizer.step()
    return seen


def test_lars_is_moco_v3s_and_timms_default_is_not() -> None:
    config = OptimConfig(name="lars", lr=6.4, weight_decay=0.0)
    model, start = _probe(), _probe()
    grads = _trained(model, optim.optimizer(model, config), 20)
    params = [p.detach() for p in start.parameters()]
    moments = [torch.zeros_like(p) for p in params]
    for step in grads:
        _moco(params, step, moments, 6.4)
    for one, two in zip(model.parameters(), params, strict=True):
        torch.testing.assert_close(one.detach(), two, rtol=1e-5, atol=1e-7)
    other, ours = _probe(), _probe()
    _trained(other, Lars(other.parameters(), lr=6.4, momentum=0.9), 5)
    _trained(ours, optim.optimizer(ours, config), 5)
    assert other.weight.abs().max() > 20 * ours.weight.abs().max(), "without adaptation weights explode"


def test_lars_adapts_matrices_alone_whatever_decays() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    for decay, decayed in (("matrices", {True: 0.1, False: 0.0}), ("all", {True: 0.1, False: 0.1})):
        made = optim.optimizer(model, OptimConfig(name="lars", lr=1.0, weight_decay=0.1, decay=decay))  # type: ignore[arg-type]
        for group in made.param_groups:
            assert {p.ndim > 1 for p in group["params"]} == {group["always_adapt"]}
            assert group["weight_decay"] == decayed[group["always_adapt"]]
            assert (group["momentum"], group["trust_coeff"]) == (0.9, 0.001)


def test_sgd_has_its_momentum() -> None:
    made = optim.optimizer(_probe(), OptimConfig(name="sgd", lr=0.01, momentum=0.8, weight_decay=0.0))
    assert type(made) is torch.optim.SGD
    assert {group["momentum"] for group in made.param_groups} == {0.8}


# ------------------------------------------------------------------------------------------------- schedules


def test_a_constant_rate_stays_after_its_warm_up() -> None:
    rates = Schedule(kind="constant", peak=1.0, floor=0.5, warmup=2, total=10)
    assert [rates.at(step) for step in range(5)] == [0.5, 1.0, 1.0, 1.0, 1.0]


def test_a_rate_by_epoch_is_that_of_a_run_whose_steps_are_epochs() -> None:
    by_step = Schedule(peak=1e-4, floor=1e-6, warmup=10, total=100)
    by_epoch = Schedule(peak=1e-4, floor=1e-6, warmup=10 * 7, total=100 * 7, every=7)
    assert [by_epoch.at(step) for step in range(700)] == [by_step.at(step // 7) for step in range(700)]
