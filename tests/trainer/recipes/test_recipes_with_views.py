"""Recipes of DINO and MoCo hold the published numbers."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.config import flat
from trainer.recipes.registry import RECIPES
from trainer.schedule import Schedule

_DINO: dict[str, Any] = {
    "objective.globals": 2, "objective.hidden": 2048, "objective.bottleneck": 256, "objective.outputs": 65536,
    "objective.student_temperature": 0.1, "objective.teacher_temperature": 0.04, "objective.temperature_epochs": 0,
    "objective.centre_momentum": 0.9, "objective.momentum": 0.996, "objective.momentum_end": 1.0,
    "objective.freeze_last": 1, "objective.norm_last_layer": True, "optim.name": "adamw", "optim.betas": [0.9, 0.999],
    "optim.weight_decay": 0.04, "optim.rise": "both", "optim.floor": 1e-6, "optim.clip": 3.0,
    "optim.clip_by": "tensor", "optim.decay": "matrices", "optim.rate_by": "step", "optim.schedule": "cosine",
    "model.name": "vit_small_patch16_224", "model.drop_path": 0.1, "model.any_size": True,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "krones-dino-s16": {
        **_DINO, "optim.lr": 1e-4, "optim.weight_decay_end": None, "optim.warmup": 10 / 1000, "run.epochs": 1000,
        "model.channels": 1,
    },
    "dino-s16": {
        **_DINO, "optim.lr": 5e-4 * 512 / 256, "optim.weight_decay_end": 0.4, "optim.warmup": 10 / 100,
        "model.channels": 3,
    },
    "medmae-densenet121-moco": {
        "model.name": "densenet121", "objective.queue": 65536, "objective.width": 128, "objective.hidden": 0,
        "objective.temperature": 0.2, "objective.momentum": 0.999, "optim.name": "sgd", "optim.lr": 0.03,
        "optim.momentum": 0.9, "optim.weight_decay": 1e-4, "optim.decay": "all", "optim.warmup": 0.0,
        "optim.floor": 0.0, "optim.schedule": "cosine", "optim.rate_by": "epoch", "run.epochs": 200,
    },
}  # fmt: skip
VIEWS = {
    "krones-dino-s16": (64, 4), "dino-s16": (64, 8), "medmae-densenet121-moco": (32, 8),
}  # fmt: skip
LARGE_AND_SMALL = (
    "224:crop=0.4/1.0:jitter=0.8:blur=1.0+224:crop=0.4/1.0:jitter=0.8:blur=0.1:solarise=0.2"
    "+96:n=8:crop=0.05/0.4:jitter=0.8:blur=0.5"
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_holds_the_numbers_of_its_paper_or_code(name: str) -> None:
    values = flat(RECIPES[name].config)
    for option, wanted in PUBLISHED[name].items():
        assert values[option] == (pytest.approx(wanted) if isinstance(wanted, float) else wanted), option
    assert RECIPES[name].notes
    assert max(map(len, RECIPES[name].notes.splitlines())) <= 120


@pytest.mark.parametrize("name", VIEWS)
def test_a_recipe_s_views_and_batches_are_the_published_ones(name: str) -> None:
    text = RECIPES[name].config.loader.batching
    batch, micros = VIEWS[name]
    assert f"batch_size={batch}," in text
    assert f"per_step={micros}," in text
    assert "remainder=drop" in text, "statistics and queue are of whole steps"
    wanted = "224:n=2:crop=0.2/1.0:jitter=0.8:blur=0.5" if "moco" in name else LARGE_AND_SMALL
    assert text.endswith(f"views={wanted}")


def test_moco_s_queue_holds_whole_steps() -> None:
    config = RECIPES["medmae-densenet121-moco"].config
    batch, micros = VIEWS["medmae-densenet121-moco"]
    assert batch * micros == 256
    assert flat(config)["objective.queue"] % (batch * micros) == 0


def test_krones_warms_up_in_ten_epochs_and_ends_above_the_floor() -> None:
    o, each = RECIPES["krones-dino-s16"].config.optim, 195  # steps of an epoch of 50,000 images
    of = Schedule(peak=o.lr, floor=o.floor, warmup=round(o.warmup * 1000 * each), total=1000 * each, rise=o.rise)
    assert of.at(0) == 0
    assert of.at(10 * each - 1) == of.at(10 * each) == 1e-4
    assert of.at(1000 * each - 1) > 1e-6
