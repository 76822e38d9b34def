"""Values of a model's options of which no model can be made, or one that learns nothing, are refused in a sentence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import ArgumentError
from trainer.commands import cli
from trainer.models.backbone import TimmConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig
from trainer.objectives.masked import Masked

SMALL = MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=16, decoder_depth=1, decoder_heads=2)
HIERA = HieraConfig(arch="hiera_micro", side=64, decoder_width=16, decoder_depth=1, decoder_heads=2)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"patch": 0}, "--model.patch 0 must be 1 or more"),
        ({"depth": 0}, "--model.depth 0 must be 1 or more"),
        ({"position_table": 0}, "--model.position-table 0 must be 1 or more"),
        ({"width": 0}, "--model.width 0 must be 1 or more"),
        ({"heads": 3}, "--model.heads 3 must be a divisor of --model.width 32"),
        ({"heads": 0}, "--model.heads 0 must be a divisor of --model.width 32"),
        ({"width": 18}, "--model.width 18 must be a multiple of 4, for positions"),
        ({"mlp_ratio": 0.0}, "--model.mlp-ratio 0.0 must be above 0"),
        ({"norm_eps": float("nan")}, "--model.norm-eps nan must be above 0"),
        ({"drop_path": 1.0}, "--model.drop-path 1.0 must be 0 or more, and below 1"),
        ({"drop_path": -0.5}, "--model.drop-path -0.5 must be 0 or more, and below 1"),
    ],
)
@pytest.mark.parametrize("kind", [VitConfig, MaeConfig])
def test_a_transformers_are(kind: type[VitConfig], changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        kind(**{"width": 32, "heads": 2, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"decoder_heads": 3}, "--model.decoder-heads 3 must be a divisor of --model.decoder-width 16"),
        ({"decoder_depth": -1}, "--model.decoder-depth -1 must be 0 or more"),
        ({"drop_path": 1.0}, "--model.drop-path 1.0 must be 0 or more, and below 1"),
    ],
)
@pytest.mark.parametrize("config", [SMALL, HIERA])
def test_a_masked_autoencoders_are(config: Any, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        replace(config, **changes)


@pytest.mark.parametrize("ratio", [-0.2, 1.0, 1.5])
def test_so_are_shares_of_hidden_patches_that_are_none_or_leave_nothing(ratio: float) -> None:
    with pytest.raises(ArgumentError, match=f"--model.mask-ratio {ratio} must be 0 or more, and below 1"):
        replace(SMALL, mask_ratio=ratio)


def test_so_is_pre_training_that_hides_nothing_where_the_loss_is_over_what_is_hidden() -> None:
    for config in (SMALL, HIERA):
        nothing: Any = replace(config, mask_ratio=0.0)
        with pytest.raises(ArgumentError, match=r"--model.mask-ratio 0.0 must be above 0: the loss is over hidden"):
            Masked(nothing.build())
    Masked(replace(SMALL, mask_ratio=0.0, loss="all").build())


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"side": 0}, "--model.side 0 must be 1 or more"),
        ({"drop_path": 1.5}, "--model.drop-path 1.5 must be 0 or more"),
    ],
)
def test_a_backbones_are(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError, match=sentence):
        TimmConfig(**{"name": "resnet18", **changes})


def test_a_command_says_so(tmp_path: Path, capsys: Any) -> None:
    words = ["pretrain", "--data", str(tmp_path / "none"), "--out", str(tmp_path / "run"), "--model.heads", "3"]
    assert cli.run(words) != 0
    assert "--model.heads 3 must be a divisor of --model.width" in " ".join(capsys.readouterr().err.split())
