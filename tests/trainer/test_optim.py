"""Which parameters decay, name by name, and what the optimiser makes of a configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from shardkit.errors import ArgumentError
from trainer import optim
from trainer.config import OptimConfig
from trainer.models.hiera import HieraConfig, HieraMae
from trainer.models.mae import Mae, MaeConfig

# As the public masked autoencoder has them: everything of more than one dimension, tokens too.
MAE_DECAYED = {
    "cls_token", "mask_token", "patch_embed.proj.weight",
    "blocks.0.attn.qkv.weight", "blocks.0.attn.proj.weight", "blocks.0.mlp.fc1.weight", "blocks.0.mlp.fc2.weight",
    "decoder_embed.weight", "decoder_pred.weight",
    "decoder_blocks.0.attn.qkv.weight", "decoder_blocks.0.attn.proj.weight",
    "decoder_blocks.0.mlp.fc1.weight", "decoder_blocks.0.mlp.fc2.weight",
}  # fmt: skip
MAE_FREE = {
    "patch_embed.proj.bias",
    "blocks.0.norm1.weight", "blocks.0.norm1.bias", "blocks.0.norm2.weight", "blocks.0.norm2.bias",
    "blocks.0.attn.qkv.bias", "blocks.0.attn.proj.bias", "blocks.0.mlp.fc1.bias", "blocks.0.mlp.fc2.bias",
    "norm.weight", "norm.bias", "decoder_embed.bias",
    "decoder_blocks.0.norm1.weight", "decoder_blocks.0.norm1.bias",
    "decoder_blocks.0.norm2.weight", "decoder_blocks.0.norm2.bias",
    "decoder_blocks.0.attn.qkv.bias", "decoder_blocks.0.attn.proj.bias",
    "decoder_blocks.0.mlp.fc1.bias", "decoder_blocks.0.mlp.fc2.bias",
    "decoder_norm.weight", "decoder_norm.bias", "decoder_pred.bias",
}  # fmt: skip
_HIERA_BLOCKS = [f"encoder.blocks.{i}" for i in range(5)] + ["decoder_blocks.0"]
HIERA_DECAYED = {
    "mask_token", "encoder.patch_embed.proj.weight",
    *(f"{block}.{name}.weight" for block in _HIERA_BLOCKS for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    "encoder.blocks.1.proj.weight", "encoder.blocks.2.proj.weight", "encoder.blocks.4.proj.weight",
    "multi_scale_fusion_heads.0.weight", "multi_scale_fusion_heads.1.weight",
    "decoder_embed.weight", "decoder_pred.weight",
}  # fmt: skip
HIERA_FREE = {
    "encoder.pos_embed", "decoder_pos_embed", "encoder.patch_embed.proj.bias",
    *(f"{block}.{name}.bias" for block in _HIERA_BLOCKS for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    *(f"{block}.{name}" for block in _HIERA_BLOCKS
      for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias")),
    "encoder.blocks.1.proj.bias", "encoder.blocks.2.proj.bias", "encoder.blocks.4.proj.bias",
    "encoder.head.norm.weight", "encoder.head.norm.bias",
    "multi_scale_fusion_heads.0.bias", "multi_scale_fusion_heads.1.bias",
    "decoder_embed.bias", "decoder_norm.weight", "decoder_norm.bias", "decoder_pred.bias",
}  # fmt: skip
SMALL: dict[str, Any] = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}


def _mae() -> Mae:
    return Mae(MaeConfig(width=32, depth=1, heads=2, **SMALL))


def _hiera(arch: str = "hiera_micro", side: int = 64) -> HieraMae:
    return HieraMae(HieraConfig(arch=arch, side=side, **SMALL))


def _groups(model: nn.Module, **changes: Any) -> list[tuple[float, set[str]]]:
    """Weight decay and names of every group."""
    names = {id(p): name for name, p in model.named_parameters()}
    made = optim.optimizer(model, OptimConfig(lr=1.0, **changes))
    return [(group["weight_decay"], {names[id(p)] for p in group["params"]}) for group in made.param_groups]


@pytest.mark.parametrize(
    ("model", "decayed", "free"), [(_mae, MAE_DECAYED, MAE_FREE), (_hiera, HIERA_DECAYED, HIERA_FREE)]
)
def test_every_parameter_of_a_model_decays_or_does_not_by_name(model: Any, decayed: set[str], free: set[str]) -> None:
    made = model()
    assert _groups(made, weight_decay=0.05) == [(0.05, decayed), (0.0, free)]
    assert _groups(made, weight_decay=0.05, decay="all") == [(0.05, decayed | free)]


def test_no_table_of_positions_decays_whatever_the_encoder() -> None:
    with torch.device("meta"):
        model = _hiera("hiera_small_abswin_256", 256)
    (_, decayed), _ = _groups(model)
    tables = {name for name, _ in model.named_parameters() if "pos_embed" in name}
    assert tables == {"encoder.pos_embed", "encoder.pos_embed_win", "decoder_pos_embed"}
    assert not tables & decayed


def test_a_model_shared_among_processes_keeps_its_list(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    monkeypatch.setattr(optim, "DistributedDataParallel", Wrapped)
    (_, decayed), (_, free) = _groups(Wrapped(_hiera()))
    assert {optim.plain(name) for name in decayed} == HIERA_DECAYED
    assert {optim.plain(name) for name in free} == HIERA_FREE


def test_a_model_without_a_list_and_frozen_parameters_do() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    assert _groups(model) == [(0.05, {"0.weight"}), (0.0, {"0.bias"})]


@pytest.mark.parametrize(("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_the_optimiser_has_the_numbers_of_its_configuration(name: Any, kind: type[torch.optim.Optimizer]) -> None:
    made = optim.optimizer(_mae(), OptimConfig(name=name, lr=3e-4, betas=(0.8, 0.97), eps=1e-7, weight_decay=0.2))
    assert type(made) is kind
    for group, decay in zip(made.param_groups, (0.2, 0.0), strict=True):
        assert [group[of] for of in ("lr", "betas", "eps", "weight_decay")] == [3e-4, (0.8, 0.97), 1e-7, decay]
    assert not any(group["fused"] for group in made.param_groups), "fused only where all weights are on a GPU"


def test_an_average_moves_towards_the_weights_by_what_its_decay_leaves() -> None:
    model = nn.Linear(1, 1)
    model.bias.requires_grad_(False)
    nn.init.constant_(model.weight, 1.0)
    average = optim.Average(model, 0.75)
    nn.init.constant_(model.weight, 3.0)
    seen = []
    for _ in range(2):
        average.update()
        seen.append(average.state["weight"].item())
    assert seen == [1.5, 1.875]
    assert set(average.state) == {"weight"}


def test_a_weight_decay_that_would_rise_from_0_is_refused_as_nothing_would_decay() -> None:
    with pytest.raises(ArgumentError, match=r"--optim\.weight-decay-end changes --optim\.weight-decay, which is 0"):
        optim.optimizer(nn.Linear(3, 3), OptimConfig(lr=0.1, weight_decay=0.0, weight_decay_end=0.4))
    made = optim.optimizer(nn.Linear(3, 3), OptimConfig(lr=0.1, weight_decay=0.04, weight_decay_end=0.4))
    optim.set_decay(made, 0.4)
    assert [group["weight_decay"] for group in made.param_groups] == [0.4, 0.0]
