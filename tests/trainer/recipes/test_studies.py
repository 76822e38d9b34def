"""Recipes of fine-tuned and probed encoders: every published number, from a table of its own; each can be built."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from shardkit import from_text
from trainer.augment import AugmentConfig, levels
from trainer.commands.cli import application
from trainer.config import flat
from trainer.models.base import EncoderConfig
from trainer.models.classifier import Classifier
from trainer.recipes.registry import RECIPES
from trainer.tasks.config import TaskConfig

FOURTEEN = [
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
]  # fmt: skip
NIH: dict[str, Any] = {"objective.labels": "nih14", "objective.columns": FOURTEEN, "objective.kind": "multilabel"}
MEDMAE: dict[str, Any] = {
    "command": "finetune", "model.patch": 16, "model.drop_path": 0.2, "objective.head.pool": "mean",
    "objective.head.norm": True, "objective.head.std": 2e-5, "objective.freeze": False, "objective.weights": "none",
    "optim.name": "adamw", "optim.betas": [0.9, 0.999], "optim.weight_decay": 0.05, "optim.lr": 2.5e-4 * 1024 / 256,
    "optim.floor": 1e-5, "optim.layer_decay": 0.55, "optim.schedule": "cosine", "optim.rate_by": "step", "images": 1024,
    "run.epochs": 75, "warm-up": 5, "crop": (0.08, 1.0), "flip": 0.5, "side": 224,
    "augment.rand": "rand-m6-mstd0.5-inc1", "on": {"rand"}, "loader.normalise": "0.5056,0.252", "select.metric": "auc",
    "select.patience": 0,
}  # fmt: skip
SMALL: dict[str, Any] = {"model.width": 384, "model.heads": 6, "model.depth": 12}
BASE: dict[str, Any] = {"model.width": 768, "model.heads": 12, "model.depth": 12}
CHEXPERT: dict[str, Any] = {
    "objective.labels": "chexpert", "objective.uncertain": "zeros", "objective.blank": "zeros",
    "objective.columns": ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"],
    "objective.ones": ["Atelectasis", "Edema"], "objective.kind": "multilabel",
}  # fmt: skip
THESIS: dict[str, Any] = {
    "command": "finetune", "objective.head.pool": "token", "objective.head.norm": False, "objective.freeze": False,
    "objective.kind": "multiclass", "optim.name": "adamw", "optim.betas": [0.9, 0.95], "optim.weight_decay": 0.0,
    "optim.floor": 1e-6, "optim.rate_by": "epoch", "optim.layer_decay": 1.0, "images": 64, "run.epochs": 100,
    "warm-up": 10, "crop": (0.9, 1.0), "flip": 0.5, "augment.affine": 0.5, "augment.affine_scale": [0.9, 1.1],
    "augment.affine_degrees": 20, "augment.gamma": 0.5, "augment.gamma_log": 0.5, "augment.noise": 0.3,
    "augment.noise_sigma": 0.25, "augment.bias_field": 0.3, "augment.bias_field_order": 3,
    "augment.bias_field_coefficient": 0.5, "augment.blur": 0.3, "augment.blur_sigma": 2.0,
    "on": {"affine", "gamma", "noise", "bias_field", "blur"}, "loader.normalise": "minmax",
    "select.metric": "balanced_accuracy", "select.patience": 10,
}  # fmt: skip
NATIVE: dict[str, Any] = {**BASE, "model.patch": 48, "model.position": "stretch", "model.norm_eps": 1e-12}
KRONES: dict[str, Any] = {
    **SMALL, **NIH, "command": "finetune", "model.patch": 16, "images": 128, "run.epochs": 30, "warm-up": 5,
    "crop": (0.08, 1.0), "flip": 0.5, "side": 224, "augment.rotate": 7, "on": {"rotate"}, "select.metric": "loss",
    "loader.normalise": f"{(0.485 + 0.456 + 0.406) / 3:.3g},{(0.229 + 0.224 + 0.225) / 3:.3g}",
    "select.patience": 10, "run.seeds": [0, 1, 2, 3, 4],
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "medmae-s16-nih": {**MEDMAE, **SMALL, **NIH},
    "medmae-b16-nih": {**MEDMAE, **BASE, **NIH},
    "medmae-s16-chexpert": {**MEDMAE, **SMALL, **CHEXPERT},
    "medmae-b16-chexpert": {**MEDMAE, **BASE, **CHEXPERT},
    "medmae-s16-covidx": {
        **MEDMAE, **SMALL, "objective.labels": "covidx", "objective.columns": ["class"],
        "objective.kind": "multiclass", "select.metric": "accuracy",
    },
    "medmae-s16-probe": {
        **SMALL, **NIH, "command": "probe", "model.drop_path": 0.1, "objective.freeze": True,
        "objective.head.pool": "token", "objective.head.norm": False, "objective.head.batch_norm": True,
        "objective.head.std": 0.01, "optim.name": "lars", "optim.momentum": 0.9, "optim.trust": 0.001,
        "optim.weight_decay": 0.0, "optim.lr": 0.1 * 16384 / 256, "images": 16384, "run.epochs": 100, "warm-up": 10,
        "loader.normalise": "0.5056,0.252", "on": set(), "select.metric": "auc",
    },
    **{f"thesis-b48-{task}": {**THESIS, **NATIVE, "optim.lr": 3e-5} for task in ("arc", "fmd", "frac")},
    **{f"thesis-b48-{task}-scratch": {**THESIS, **NATIVE, "optim.lr": 1e-4} for task in ("arc", "fmd", "frac")},
    **{
        f"thesis-b48-{task}-imagenet": {
            **THESIS, "model.name": "vit_base_patch16_224.augreg_in21k", "optim.lr": 1e-4, "side": 224,
        }
        for task in ("arc", "fmd", "frac")
    },
    "medhiera-t224-nih": {
        **NIH, "command": "finetune", "objective.columns": [*FOURTEEN, "No Finding"], "model.arch": "hiera_tiny_224",
        "optim.name": "adam", "optim.weight_decay": 1e-8, "optim.schedule": "onecycle", "optim.lr": 1e-4, "images": 64,
        "run.epochs": 10, "augment.rotate": 30, "on": {"rotate"}, "side": 224, "crop": None, "flip": 0.0,
        "loader.normalise": f"{(0.516 + 0.501 + 0.503) / 3:.3g},{(0.222 + 0.225 + 0.226) / 3:.3g}",
    },
    "krones-a": {
        **KRONES, "optim.name": "adamw", "optim.lr": 2.5e-6, "optim.weight_decay": 0.05, "optim.betas": [0.9, 0.999],
    },
    "krones-b": {**KRONES, "optim.name": "sgd", "optim.lr": 0.01, "optim.weight_decay": 0.0, "optim.momentum": 0.9},
}  # fmt: skip
TOKENS = 1440.9  # of an image of the thesis, on average


def _values(name: str) -> dict[str, Any]:
    """Options, and what follows from them."""
    recipe = RECIPES[name]
    config, batching = recipe.config, from_text(recipe.config.loader.batching)
    places = batching.tokens / TOKENS if hasattr(batching, "tokens") else batching.batch_size  # type: ignore[attr-defined]
    switches = ("rand", "rotate", "affine", "gamma", "noise", "bias_field", "blur")
    return flat(config) | {
        "command": recipe.command,
        "images": pytest.approx(places * batching.per_step, rel=0.01),
        "warm-up": pytest.approx(config.optim.warmup * config.run.epochs),
        "crop": batching.crop,
        "flip": batching.flip,
        "side": batching.augmentation.side,
        "on": {switch for switch in switches if getattr(config.augment, switch)},
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_holds_the_numbers_of_its_study(name: str) -> None:
    values = _values(name)
    for option, wanted in PUBLISHED[name].items():
        found = values[option]
        assert found == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), option


def test_every_recipe_for_labels_stands_in_the_table_and_none_of_them_chooses_by_the_test_split() -> None:
    labelled = {name for name, recipe in RECIPES.items() if recipe.command != "pretrain"}
    assert labelled - {"tiny-finetune", "tiny-probe"} == PUBLISHED.keys()
    for name in labelled:
        assert RECIPES[name].config.select.split == "val"
        assert RECIPES[name].config.loader.split == "train"
    for name, recipe in RECIPES.items():
        assert recipe.config.augment == AugmentConfig() or name in PUBLISHED, "pre-training has none"


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_builds_its_augmentation_and_its_classifier_for_its_batches(name: str) -> None:
    config = RECIPES[name].config
    assert isinstance(config.objective, TaskConfig)
    assert isinstance(config.model, EncoderConfig)
    mean, _, deviation = config.loader.normalise.partition(",")
    how = (float(mean), float(deviation)) if deviation else config.loader.normalise
    assert (config.augment.build(levels(how)) is None) == (config.augment == AugmentConfig())
    with torch.device("meta"):
        encoder = config.model.encoder(last_norm=not config.objective.head.norm)
        classifier = Classifier(encoder, 14, config.objective.head)
    classifier.check_batching(from_text(config.loader.batching))


def test_a_recipe_says_what_was_published_and_where_paper_and_code_differ() -> None:
    said = {
        "medmae-s16-nih": ("82.3", "2.5e-4", ".9 and .95", "test list", "256"),
        "medmae-s16-chexpert": ("89.2", "for the AUC", "Edema and Atelectasis"),
        "medmae-s16-covidx": ("95.2", "olded into"),
        "medmae-s16-probe": (".1 in the paper", "90 in the code", "DropPath .1"),
        "thesis-b48-arc": ("73.6", "92.2", "56.9", "75/10/15", "balanced accuracy"),
        "thesis-b48-fmd-imagenet": ("58.0", "92.9", "46.9", "ImageNet-21k"),
        "thesis-b48-frac-scratch": ("58.5", "56.9", "50.0"),
        "medhiera-t224-nih": ("81.69", "81.86", "epoch 7", "thirds", "0 in the code"),
        "krones-a": (".8106", "five seeds", "1.05e-6", "schedule constant"),
    }
    for name, words in said.items():
        assert all(word in RECIPES[name].notes for word in words), name


def test_the_options_that_notes_name_exist(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PUBLISHED:
        known = {f"--{option.replace('_', '-')}" for option in flat(RECIPES[name].config)} | {"--init", "--labels"}
        for option in re.findall(r"--[a-z][a-z.-]*[a-z]", RECIPES[name].notes):
            assert option in known, f"{name}: {option}"
    assert application("krones-a") is not None
