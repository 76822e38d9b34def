"""The numbers of GMML's and SiT's pre-training on chest radiographs, and what follows from them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from shardkit import from_text
from trainer.config import flat
from trainer.objectives.gmml import GmmlConfig
from trainer.objectives.sit import SitConfig
from trainer.optim import optimizer
from trainer.recipes.registry import RECIPES
from trainer.schedule import Schedule

SHARED: dict[str, Any] = {
    "model.name": "vit_small_patch16_224", "model.side": 224, "model.channels": 1, "optim.name": "adamw",
    "optim.betas": [0.9, 0.999], "optim.lr": 1e-4, "optim.floor": 1e-6, "optim.weight_decay": 0.04,
    "optim.weight_decay_end": None, "optim.clip": 3.0, "optim.clip_by": "tensor", "optim.decay": "matrices",
    "run.epochs": 1000, "loader.normalise": "0.449,0.226", "objective.corruption.replace": 0.5,
    "objective.corruption.replaced": 0.3, "objective.corruption.largest": 0.3, "objective.corruption.align": 1,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "krones-gmml": {
        **SHARED, "model.drop_path": 0.1, "objective.corruption.fill": "noise",
        "objective.corruption.cover": [0.5, 0.75], "objective.blocks": [],
    },
    "krones-sit": {
        **SHARED, "objective.corruption.fill": "zeros", "objective.corruption.cover": [0.5, 0.5],
        "objective.hidden": 4096, "objective.out": 256, "objective.temperature": 0.2, "objective.reconstruction": 5.0,
        "objective.momentum": 0.996,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_holds_the_numbers_of_its_study(name: str) -> None:
    values = flat(RECIPES[name].config)
    assert {option: values[option] for option in PUBLISHED[name]} == PUBLISHED[name]
    assert RECIPES[name].command == "pretrain"
    assert isinstance(RECIPES[name].config.objective, GmmlConfig if name.endswith("gmml") else SitConfig)


@pytest.mark.parametrize("name", PUBLISHED)
def test_views_are_two_crops_of_256_images_a_step(name: str) -> None:
    batching: Any = from_text(RECIPES[name].config.loader.batching)
    assert batching.batch_size * batching.per_step == 256
    views = [view for view in batching.views for _ in range(view.n)]
    assert [view.side for view in views] == [224, 224]
    found = [(view.crop, view.flip, view.jitter, view.blur, view.solarise) for view in views]
    assert found == (
        [((0.05, 1.0), 0.5, 0.3, 0.1, 0.0)] * 2
        if name == "krones-gmml"
        else [((0.2, 1.0), 0.5, 0.8, 1.0, 0.0), ((0.2, 1.0), 0.5, 0.8, 0.1, 0.2)]
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_rates_are_those_of_a_warm_up_with_both_ends_and_a_cosine_that_never_gets_there(name: str) -> None:
    o, an_epoch = RECIPES[name].config.optim, 3
    total, warmup = 1000 * an_epoch, 10 * an_epoch
    values = {f.name: getattr(o, f.name) for f in fields(Schedule) if hasattr(o, f.name)}
    own = {"kind": o.schedule, "peak": o.lr, "start": o.warmup_from, "warmup": round(o.warmup * total), "total": total}
    schedule = Schedule(**{**values, **own})
    found = np.array([schedule.at(step) for step in range(total)])
    left = np.arange(total - warmup)
    falling = 1e-6 + 0.5 * (1e-4 - 1e-6) * (1 + np.cos(np.pi * left / len(left)))
    np.testing.assert_allclose(found, np.concatenate([np.linspace(0, 1e-4, warmup), falling]), rtol=1e-12, atol=1e-18)
    assert found[-1] > 1e-6


@pytest.mark.parametrize("name", PUBLISHED)
def test_matrices_decay_with_class_token_and_positions_and_nothing_else_does(name: str) -> None:
    config: Any = RECIPES[name].config

    class NoLoader:
        normalised: dict[str, Any] = {"": (0.449, 0.226)}  # noqa: RUF012

    with torch.device("meta"):
        objective = config.objective.build(config.model, NoLoader())
    objective.model.check_batching(from_text(config.loader.batching))
    assert objective.notes == ()
    names = {id(p): n for n, p in objective.model.named_parameters()}
    decay = {
        names[id(p)]: g["weight_decay"]
        for g in optimizer(objective.model, config.optim).param_groups
        for p in g["params"]
    }
    assert decay.keys() == set(names.values())
    for name_, value in decay.items():
        matrix = objective.model.get_parameter(name_).ndim > 1
        assert value == (0.04 if matrix else 0.0), name_
    assert decay["encoder.encoder.cls_token"] == decay["encoder.encoder.pos_embed"] == 0.04


def test_noise_where_grey_levels_are_others_is_told() -> None:
    class Percentile:
        normalised: dict[str, Any] = {"a": "percentile", "b": "zscore", "c": (0.5, 0.2)}  # noqa: RUF012

    loader: Any = Percentile()
    (said,) = GmmlConfig().corruption.notes(loader)
    assert "percentile" in said
    assert "zscore" not in said
    assert "--loader.normalise the dataset's mean,deviation" in said
