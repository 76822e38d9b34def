"""A run on several views of a sample: it trains, validates on views of the plan, goes on exactly, and is refused where
an objective is of single images."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from shardkit import BinnedBatch, Loader, MultiView, Resized, View
from shardkit.errors import ArgumentError
from shardkit.terminal.output import Terminal
from trainer.assess.features import plain
from trainer.augment import AugmentConfig
from trainer.commands.training import train
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig, ValConfig
from trainer.models.base import Model, ModelConfig
from trainer.models.mae import MaeConfig
from trainer.models.output import Output
from trainer.objectives.masked import MaskedConfig
from trainer.objectives.views import ViewObjective, batched, views_of
from trainer.runs.start import Job

BATCHING = MultiView((View(16, (0.4, 1.0), n=2, jitter=0.8, blur=0.5), View(8, (0.1, 0.4))), 4, patch=8, per_step=2)


@dataclass(frozen=True, kw_only=True)
class PlaneConfig:
    """A linear map of an image shrunk to one patch."""

    patch: int = 8

    def build(self) -> Plane:
        return Plane(self)


class Plane(Model):
    def __init__(self, config: PlaneConfig) -> None:
        super().__init__()
        self.config, self.linear = config, nn.Linear(config.patch**2, 4)

    @property
    def patch(self) -> int:
        return self.config.patch

    @property
    def all_blocks(self) -> list[nn.Module]:
        return [self.linear]

    def forward(self, batch: BinnedBatch) -> Tensor:
        small = nn.functional.interpolate(batch.images, (8, 8), mode="area")
        found: Tensor = self.linear(small.flatten(1))
        return found

    def flops(self, tokens: Tensor) -> Tensor:
        return 6.0 * tokens * self.patch**2

    def run_flops(self, batch: Any) -> Tensor:
        return self.flops(torch.tensor(float(len(batch.rows)), dtype=torch.float64))


@dataclass(frozen=True, kw_only=True)
class AlikeConfig:
    """Views of a sample should give the same."""

    def build(self, model: ModelConfig, loader: Loader) -> Alike:
        return Alike(model.build())


class Alike(ViewObjective):
    def run(self, model: nn.Module, batch: Any) -> Output:
        one, two, small = views_of(batch, 3)
        both = model(batched([one, two])).unflatten(0, (2, -1))
        losses = (both[0] - both[1]).square().sum(-1) + (both[0] - model(small)).square().sum(-1)
        return Output(losses, one.weight)


CONFIG = Config(
    model=PlaneConfig(),
    objective=AlikeConfig(),
    loader=LoaderConfig(batching=str(BATCHING)),
    optim=OptimConfig(lr=1e-2, warmup=0.0),
    augment=AugmentConfig(noise=0.5),
    run=RunConfig(precision="fp32", compile=False, steps=6),
    save=SaveConfig(every=3, keep=2),
    val=ValConfig(every=3),
    log=LogConfig(every=1, pictures=0, baseline=0),
)


@pytest.fixture
def job(dataset_folder: Path, tmp_path: Path) -> Callable[..., Job]:
    return lambda config=CONFIG, name="run": Job("toy", config, str(dataset_folder), tmp_path / name, None)


def _losses(run: Path) -> dict[str, list[tuple[int, float]]]:
    found = {name: (run / f"{name}.jsonl").read_text().splitlines() for name in ("metrics", "validation")}
    return {name: [(line["step"], line["loss"]) for line in map(json.loads, lines)] for name, lines in found.items()}


def test_it_trains_validates_and_goes_on_exactly(job: Any) -> None:
    assert train(job(), Terminal()) == 0
    whole = _losses(job().out)
    assert whole["metrics"][-1][1] < whole["metrics"][0][1]
    assert [step for step, _ in whole["validation"]] == [3, 6]
    for place in job().out.glob("checkpoints/step_00000006/*"):
        place.unlink()
    assert train(job(), Terminal()) == 0
    assert _losses(job().out) == whole


def test_validation_sees_the_same_views_each_time(job: Any) -> None:
    still = replace(CONFIG, optim=replace(CONFIG.optim, lr=1e-30))
    assert train(job(still), Terminal()) == 0
    (_, first), (_, second) = _losses(job().out)["validation"]
    assert first == pytest.approx(second, rel=1e-6)


def test_an_objective_of_single_images_refuses_them_and_says_what_to_take(job: Any) -> None:
    masked = replace(CONFIG, objective=MaskedConfig(), model=MaeConfig(patch=8, width=32, depth=1, heads=2))
    with pytest.raises(ArgumentError, match="shows several views of each: use resized:side=16 with its batch_size"):
        train(job(masked), Terminal())
    assert not (job().out / "checkpoints").exists()


def test_features_of_such_a_run_are_of_the_whole_image() -> None:
    text = str(replace(BATCHING, content=True, remainder="drop", level=1))
    assert plain(text) == str(Resized(16, 4, patch=8, per_step=2, content=True, level=1))
