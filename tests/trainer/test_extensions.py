"""A model, an objective and a metric of somebody else's, all in this file: they train, resume and are told as ours."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from shardkit import Loader
from shardkit.errors import ArgumentError
from shardkit.terminal.output import Terminal
from trainer.commands.training import train
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig, ValConfig, flat
from trainer.metrics import mean_of
from trainer.models import registry
from trainer.models.base import Batch, Model, ModelConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.output import Output
from trainer.models.sequences import sequences
from trainer.objectives.base import Objective
from trainer.objectives.masked import MaskedConfig
from trainer.runs import unpickling
from trainer.runs.start import Job


@dataclass(frozen=True, kw_only=True)
class GreyConfig:
    """A linear map of patches whose mean over an image is a guess of its mean grey level."""

    patch: int = 8

    def build(self) -> Grey:
        return Grey(self)


class Grey(Model):
    def __init__(self, config: GreyConfig) -> None:
        super().__init__()
        self.config, self.linear = config, nn.Linear(config.patch**2, 1)

    @property
    def patch(self) -> int:
        return self.config.patch

    @property
    def all_blocks(self) -> list[nn.Module]:
        return [self.linear]

    def forward(self, batch: Batch) -> Output:
        of = sequences(batch, self.patch)
        error = self.linear(of.patches).squeeze(-1) - of.patches.mean(-1)
        zeros = torch.zeros(len(of.weight))
        mean = zeros.index_add(0, of.image.long(), error) / of.lengths.clamp(min=1)
        return Output(mean, of.weight)

    def flops(self, tokens: Tensor) -> Tensor:
        return 6.0 * tokens * self.patch**2

    def run_flops(self, batch: Batch) -> Tensor:
        return self.flops(torch.tensor(float(len(sequences(batch, self.patch).image)), dtype=torch.float64))


@dataclass(frozen=True, kw_only=True)
class CentredConfig:
    """How fast the centre follows."""

    momentum: float = 0.5

    def build(self, model: ModelConfig, loader: Loader) -> Centred:
        return Centred(model.build(), self.momentum)


class Centred(Objective):
    """Squares of the errors about a centre that follows them: what is minimised depends on what was seen before."""

    def __init__(self, model: Model, momentum: float) -> None:
        super().__init__(model)
        self.momentum, self.centre = momentum, torch.zeros(())

    def run(self, model: nn.Module, batch: Batch) -> Output:
        out: Output = model(batch)
        losses = (out.losses - self.centre).square() + 0.1 * out.losses.square()
        if model.training and out.images > 0:
            self.centre.lerp_((out.losses * out.weight).sum().detach() / out.images, self.momentum)
        return Output(losses, out.weight, metrics={"error": mean_of(out.losses.abs(), out.weight)})

    def state_dict(self) -> dict[str, Tensor]:
        return {"centre": self.centre}


CONFIG = Config(
    model=GreyConfig(),
    objective=CentredConfig(),
    loader=LoaderConfig(batching="packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop"),
    optim=OptimConfig(lr=1e-2, warmup=0.0),
    run=RunConfig(precision="fp32", compile=False, steps=6),
    save=SaveConfig(every=3),
    val=ValConfig(every=3),
    log=LogConfig(every=1, pictures=2),
)


@pytest.fixture
def job(dataset_folder: Path, tmp_path: Path) -> Job:
    return Job("toy", CONFIG, str(dataset_folder), tmp_path / "run", None)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _numbers(run: Path) -> list[Any]:
    """Of all lines, what does not depend on the clock; and the last checkpoint's tensors."""
    lines = [(line["step"], line["loss"], line["metrics"]) for name in ("metrics", "validation")
             for line in _read(run / f"{name}.jsonl")]  # fmt: skip
    place = run / "checkpoints" / "step_00000006"
    shapes = {name: shape for name, shape in unpickling.shapes(place).items() if name[:5] in ("model", "objec")}
    held: dict[str, Any] = {"model": {}, "objective": {}}
    for name, shape in shapes.items():
        kind, _, rest = name.partition(".")
        held[kind][rest] = torch.zeros(shape or ())
    unpickling.load(held, place, alone=True)
    return [*lines, *(value.tolist() for of in held.values() for value in of.values())]


def test_a_metric_of_an_objective_is_told_wherever_the_loss_is(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(job, Terminal()) == 0
    trained, validated = _read(job.out / "metrics.jsonl"), _read(job.out / "validation.jsonl")
    assert [line["step"] for line in trained] == [1, 2, 3, 4, 5, 6]
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert all(line["metrics"]["error"] > 0 for line in (*trained, *validated))
    told = capsys.readouterr().out.splitlines()
    assert sum(f"  error {trained[0]['metrics']['error']:.5g}  " in line for line in told) == 1
    assert any("val loss" in line and f"  error {validated[0]['metrics']['error']:.5g}  " in line for line in told)
    assert "<h3>error</h3>" in (job.out / "report.html").read_text()
    events = EventAccumulator(str(job.out / "tensorboard")).Reload()
    assert {"metrics/error", "val/metrics/error"} <= set(events.Tags()["scalars"])
    assert json.loads((job.out / "run.json").read_text())["config"]["objective.momentum"] == 0.5


def test_an_objective_s_own_state_is_gone_on_with_exactly(job: Job) -> None:
    assert train(job, Terminal()) == 0
    at_once = _numbers(job.out)
    shutil.rmtree(job.out / "checkpoints" / "step_00000006")
    assert train(job, Terminal()) == 0
    assert _numbers(job.out) == at_once
    assert "objective.centre" in unpickling.shapes(job.out / "checkpoints" / "step_00000006")


def test_a_metric_is_a_mean_over_images_and_steps_not_of_means(job: Job) -> None:
    assert train(job, Terminal()) == 0
    lines = _read(job.out / "metrics.jsonl")
    counts = [after["images"] - before for before, after in zip([0, *(x["images"] for x in lines)], lines)]  # noqa: B905
    wanted = sum(x["metrics"]["error"] * n for x, n in zip(lines, counts, strict=True)) / sum(counts)
    once = replace(job, out=job.out.with_name("once"), config=replace(CONFIG, log=replace(CONFIG.log, every=6)))
    assert train(once, Terminal()) == 0
    assert _read(once.out / "metrics.jsonl")[0]["metrics"]["error"] == pytest.approx(wanted, rel=1e-12)


def test_a_model_that_no_other_program_knows_says_so() -> None:
    with pytest.raises(ArgumentError, match="Grey takes no weights of other programs"):
        GreyConfig().build().load_weights({})
    with pytest.raises(ArgumentError, match="Grey cannot be exported"):
        GreyConfig().build().exported_size(None)


def test_an_objective_s_values_are_options_and_one_without_has_none() -> None:
    assert {name for name in flat(CONFIG) if name.startswith("objective.")} == {"objective.momentum"}
    assert not any(name.startswith("objective") for name in flat(replace(CONFIG, objective=MaskedConfig())))


def test_a_registered_model_with_few_options_is_found_again_by_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MODELS", (*registry.MODELS, GreyConfig))
    assert registry.described({"patch": 4}) == GreyConfig(patch=4)
    for config in (MaeConfig(), HieraConfig()):
        assert registry.described(asdict(config)) == config
