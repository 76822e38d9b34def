"""Recipes hold the published numbers, and the command line changes single values of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit import from_text
from trainer.commands import training
from trainer.commands.cli import application
from trainer.commands.cli import run as command
from trainer.config import LoaderConfig, defaulting_to, flat, from_flat
from trainer.models.vit import VitConfig
from trainer.recipes.registry import RECIPES

BEIT = ["use_rel_pos_bias=False", "use_shared_rel_pos_bias=True", "init_values=0.1", "global_pool=token"]
SIMMIM: dict[str, Any] = {
    "model.channels": 1, "objective.mask_ratio": 0.6, "objective.unit": 32, "optim.name": "adamw",
    "optim.betas": [0.9, 0.999], "optim.clip": 5.0, "optim.clip_by": "model",
}  # fmt: skip
STEPS: dict[str, Any] = {
    "optim.lr": 1e-4 * 2048 / 512, "optim.weight_decay": 0.05, "optim.warmup": 10 / 800,
    "optim.warmup_from": 5e-7 * 2048 / 512, "optim.rise": "start", "optim.schedule": "multistep",
    "optim.milestones": [700 / 800], "optim.gamma": 0.1, "run.epochs": 800,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "thesis-b48": {
        "model.patch": 48, "model.width": 768, "model.depth": 12, "model.heads": 12, "model.decoder_width": 512,
        "model.decoder_depth": 8, "model.decoder_heads": 16, "model.mask_ratio": 0.75, "model.loss": "all",
        "model.position": "stretch", "model.norm_eps": 1e-12, "model.norm_pix": False, "optim.betas": [0.9, 0.95],
        "optim.weight_decay": 0.05, "optim.decay": "all", "optim.lr": 1e-4, "optim.floor": 1e-5, "optim.warmup": 0.5,
        "optim.clip": None, "run.epochs": 10,
    },
    "medmae-s16": {
        "model.patch": 16, "model.width": 384, "model.heads": 6, "model.decoder_depth": 2, "model.mask_ratio": 0.9,
        "optim.lr": 1.5e-4 * 2048 / 256, "optim.warmup": 40 / 800, "run.epochs": 800, "optim.betas": [0.9, 0.95],
    },
    "medmae-b16": {"model.width": 768, "model.heads": 12, "model.decoder_depth": 8, "model.mask_ratio": 0.9},
    "medhiera-t224": {
        "model.arch": "hiera_tiny_224", "model.mask_ratio": 0.6, "optim.name": "adam", "optim.schedule": "onecycle",
        "optim.lr": 1e-4, "optim.weight_decay": 0.0, "run.epochs": 80,
    },
    "medmae-densenet121-mae": {
        "model.name": "densenet121", "objective.mask_ratio": 0.75, "objective.unit": 16, "optim.name": "adamw",
        "optim.lr": 1.2e-3, "optim.betas": [0.9, 0.95], "optim.weight_decay": 0.05, "optim.warmup": 40 / 800,
        "run.epochs": 800,
    },
    "krones-simmim": {
        **SIMMIM, "model.name": "beit_base_patch16_224", "model.changes": ["embed_dim=384", "num_heads=6", *BEIT],
        "model.drop_path": 0.1, "optim.lr": 1e-4, "optim.floor": 1e-6, "optim.weight_decay": 0.04,
        "optim.warmup": 10 / 1000, "optim.rise": "both", "optim.schedule": "cosine", "run.epochs": 1000,
    },
    "simmim-swin-b192": {
        **SIMMIM, **STEPS, "model.name": "swin_base_patch4_window7_224", "model.changes": ["window_size=6"],
        "model.side": 192, "model.drop_path": 0.0,
    },
    "simmim-b16": {
        **SIMMIM, **STEPS, "model.name": "beit_base_patch16_224", "model.changes": BEIT, "model.side": 224,
        "model.drop_path": 0.1,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_holds_the_numbers_of_its_paper_or_code(name: str) -> None:
    values = flat(RECIPES[name].config)
    for option, wanted in PUBLISHED[name].items():
        found = values[option]
        assert found == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), option
    assert RECIPES[name].notes


@pytest.mark.parametrize("name", RECIPES)
def test_batches_of_a_recipe_fit_its_model(name: str) -> None:
    config = RECIPES[name].config
    batching = from_text(config.loader.batching)
    assert batching.patch == (config.model.patch if isinstance(config.model, VitConfig) else 16)


def test_global_batches_are_those_of_the_papers() -> None:
    thesis = from_text(RECIPES["thesis-b48"].config.loader.batching)
    assert thesis.tokens * thesis.per_step / 1440.9 == pytest.approx(1024, rel=0.01)  # type: ignore[attr-defined]
    medmae = from_text(RECIPES["medmae-s16"].config.loader.batching)
    assert medmae.batch_size * medmae.per_step == 2048  # type: ignore[attr-defined]
    assert (medmae.crop, medmae.flip) == ((0.5, 1.0), 0.5)
    hiera = from_text(RECIPES["medhiera-t224"].config.loader.batching)
    assert hiera.batch_size * hiera.per_step == 64  # type: ignore[attr-defined]
    squares: Any = {
        "medmae-densenet121-mae": (2048, (0.5, 1.0), 224), "krones-simmim": (256, (0.67, 1.0), 224),
        "simmim-swin-b192": (2048, (0.67, 1.0), 192), "simmim-b16": (2048, (0.67, 1.0), 224),
    }  # fmt: skip
    for name, wanted in squares.items():
        of: Any = from_text(RECIPES[name].config.loader.batching)
        assert (of.batch_size * of.per_step, of.crop, of.side) == wanted, name
        assert of.flip == 0.5


@pytest.mark.parametrize(
    ("name", "hidden", "width", "heads"),
    [("krones-simmim", 30, 384, 6), ("simmim-b16", 30, 768, 12), ("simmim-swin-b192", 22, 1024, 32)],
)
def test_simmim_s_networks_are_those_of_its_code(name: str, hidden: int, width: int, heads: int) -> None:
    config: Any = RECIPES[name].config
    with torch.device("meta"):
        model = config.objective.build(config.model, None).model
    model.check_batching(from_text(config.loader.batching))
    assert model.count == hidden
    tables = {n: tuple(p.shape) for n, p in model.named_parameters() if n.endswith("relative_position_bias_table")}
    count = sum(p.numel() for p in model.parameters())
    if "swin" in name:
        assert {rows for rows, _ in tables.values()} == {11**2}, "windows of 6 x 6"
        published, grey = 87_768_224 - 1000 * (width + 1), 2 * 16 * 128  # Swin-B with a classifier, of three colours
        smaller = (13**2 - 11**2) * (2 * 4 + 2 * 8 + 18 * 16 + 2 * heads)  # tables
        assert count == published - grey - smaller + 128 + (width + 1) * 32**2
        return
    assert list(tables.values()) == [(27**2 + 3, heads)], "one for all blocks"
    assert not any("pos_embed" in n for n, _ in model.named_parameters())
    block = 12 * width**2 + (2 + 1 + 5 + 4 + 2) * width  # keys have no bias; two norms, two layer scales
    around = (256 + 1) * width + 1 * width + 2 * width + 732 * heads + width  # embedding, class token, norm, mask token
    assert count == 12 * block + around + (width + 1) * 256


def test_options_change_single_values_of_a_recipe_and_leave_the_rest() -> None:
    app = application("medmae-s16")
    words = "pretrain --recipe medmae-s16 --data d --out o --model.mask-ratio 0.8 --optim.betas 0.8 0.9 --run.steps 7"
    _, bound, _ = app.parse_args(words.split(), print_error=False, exit_on_error=False)
    config = bound.arguments["config"]
    changed = {"model.mask_ratio": 0.8, "optim.betas": [0.8, 0.9], "run.steps": 7}
    assert flat(config) == {**flat(RECIPES["medmae-s16"].config), **changed}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_class_makes_the_recipe(name: str) -> None:
    config = RECIPES[name].config
    assert flat(defaulting_to(config)()) == flat(config)
    values = flat(config.model)
    assert from_flat(type(config.model), values) == config.model


def test_an_unknown_recipe_is_named_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["pretrain", "--recipe", "nothing", "--data", "d", "--out", "o"]) == 1
    told = capsys.readouterr().err
    assert "recipe nothing is unknown" in told
    assert "thesis-b48" in told


def test_recipes_are_listed_and_shown_with_their_notes(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["recipes"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in RECIPES)
    assert command(["recipes", "thesis-b48"]) == 0
    told = capsys.readouterr().out
    assert "--model.patch 48" in told
    assert "bicubically" in told


def test_a_run_s_loader_gets_what_its_configuration_says(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(training, "Loader", lambda url, **given: seen.update(given, url=url))
    values: dict[str, Any] = {"window": 7, "threads": 3, "prefetch": 5, "max_bad": 0.25, "attempts": 2, "deadline": 9.0}
    values["decoder"] = "dali"
    text = "packed:patch=8,tokens=64"
    loader = LoaderConfig(batching=text, split="all", normalise="0.5,0.25", cache=Path("c"), cache_gib=0.5, **values)
    training.open_loader(replace(RECIPES["tiny"].config, loader=loader), "shards", torch.device("cpu"), 1, 2)
    assert seen == values | {
        "url": "shards", "batching": from_text(text), "seed": 0, "split": None, "rank": 1, "world_size": 2,
        "device": torch.device("cpu"), "normalise": (0.5, 0.25), "cache": Path("c"), "cache_bytes": 2**29,
        "augment": None, "weighted": True,
    }  # fmt: skip
