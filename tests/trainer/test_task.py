"""A task with labels of somebody else's, all in this file: a recipe runs it, and it resumes and is told as ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from shardkit import Loader
from trainer.commands.cli import run as command
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig, ValConfig
from trainer.metrics import mean_of
from trainer.models.base import Batch, Model, ModelConfig
from trainer.models.mae import Mae, MaeConfig
from trainer.models.masking import draw
from trainer.models.output import Output
from trainer.models.sequences import sequences
from trainer.objectives.base import Objective
from trainer.recipes.base import Recipe
from trainer.recipes.registry import RECIPES
from trainer.runs import unpickling

UNKNOWN = -1


class Classifier(Model):
    """Scores of classes, from the mean patch of a masked autoencoder's encoder that sees all of them."""

    def __init__(self, encoder: Mae, classes: int) -> None:
        super().__init__()
        self.encoder, self.head = encoder, nn.Linear(encoder.config.width, classes)
        for name, parameter in encoder.named_parameters():
            parameter.requires_grad_(not name.startswith(("decoder_", "mask_token")))

    @property
    def patch(self) -> int:
        return self.encoder.patch

    @property
    def all_blocks(self) -> list[nn.Module]:
        return list(self.encoder.blocks)

    def forward(self, batch: Batch) -> Tensor:
        of = sequences(batch, self.patch)
        mask = draw(of, 0.0)
        found = self.encoder.encode(of, mask)[mask.decoder[mask.patches]]
        mean = found.new_zeros(len(of.weight), found.shape[1]).index_add(0, of.image.long(), found)
        return self.head(mean / of.lengths.clamp(min=1)[:, None])  # type: ignore[no-any-return]

    def flops(self, tokens: Tensor) -> Tensor:
        return self.encoder.flops(tokens)

    def run_flops(self, batch: Batch) -> Tensor:
        return self.encoder.run_flops(batch)


@dataclass(frozen=True, kw_only=True)
class ClassesConfig:
    """Which class an image is of, by a table of labels; images that it does not have do not count."""

    labels: Path = Path("labels.json")
    classes: int = 2

    def build(self, model: ModelConfig, loader: Loader) -> Classes:
        encoder, table = model.build(), json.loads(self.labels.read_text())
        assert isinstance(encoder, Mae)
        of = [table.get(loader.key(row), UNKNOWN) for row in range(len(loader.bins()[1]))]
        return Classes(Classifier(encoder, self.classes), torch.tensor(of), self.classes)


class Classes(Objective):
    """Cross-entropy with classes weighted by how rare they were so far: what was seen is a state of its own."""

    def __init__(self, model: Model, labels: Tensor, classes: int) -> None:
        super().__init__(model)
        self.labels, self.seen = labels, torch.ones(classes)

    @property
    def loss_meaning(self) -> str:
        return "Cross-entropy of the classes, rare ones counting more."

    def run(self, model: nn.Module, batch: Batch) -> Output:
        scores: Tensor = model(batch)
        labels = torch.where(batch.rows >= 0, self.labels[batch.rows.clamp(min=0)], UNKNOWN)
        known, target = (labels != UNKNOWN).float(), labels.clamp(min=0)
        rarity = self.seen.mean() / self.seen
        losses = nn.functional.cross_entropy(scores, target, rarity, reduction="none")
        if model.training:
            self.seen.index_add_(0, target, known)
        right = (scores.argmax(-1) == target).float()
        return Output(losses, known, metrics={"accuracy": mean_of(right, known)})

    def state_dict(self) -> dict[str, Tensor]:
        return {"seen": self.seen}


RECIPE = Recipe(
    Config(
        model=MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2),
        objective=ClassesConfig(),
        loader=LoaderConfig(batching="packed:patch=8,level=1,per_step=2,tokens=1024,remainder=drop"),
        optim=OptimConfig(lr=4e-3, warmup=0.1),
        run=RunConfig(precision="fp32", compile=False, steps=24),
        save=SaveConfig(every=12),
        val=ValConfig(every=12),
        log=LogConfig(every=1),
    ),
    "this test",
    "",
)


@pytest.fixture
def labels(dataset_folder: Path, tmp_path: Path) -> dict[str, int]:
    """Whether a sample is high, of two in three of every split; in a file, by key."""
    rows = pq.read_table(dataset_folder / "manifest.parquet", columns=["key", "height", "split"]).to_pylist()
    rows.sort(key=lambda row: row["split"])
    table = {row["key"]: int(row["height"] > 160) for at, row in enumerate(rows) if at % 3}
    (tmp_path / "labels.json").write_text(json.dumps(table))
    return table


@pytest.fixture
def train(
    dataset_folder: Path, labels: Mapping[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., int]:
    """Run the command with the recipe and other options; returns the exit code."""
    monkeypatch.setitem(RECIPES, "classes", RECIPE)

    def run(*more: str, recipe: str = "classes") -> int:
        where = ["--data", str(dataset_folder), "--out", str(tmp_path / "run")]
        own = ["--objective.labels", str(tmp_path / "labels.json")] if recipe == "classes" else []
        return command(["pretrain", "--recipe", recipe, *where, *own, *more])

    return run


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _lines(run: Path) -> list[Any]:
    """Of all lines, what does not depend on the clock."""
    names = ("step", "loss", "loss_by_bin", "metrics")
    return [[line[n] for n in names] for f in ("metrics", "validation") for line in _read(run / f"{f}.jsonl")]


def test_a_task_of_one_file_and_a_recipe_learns_and_tells_its_metric(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train() == 0
    run = tmp_path / "run"
    trained, validated = _read(run / "metrics.jsonl"), _read(run / "validation.jsonl")
    assert sum(line["metrics"]["accuracy"] for line in trained[-6:]) / 6 > 0.9
    assert validated[-1]["metrics"]["accuracy"] > 0.8
    told = capsys.readouterr().out
    assert f"  accuracy {trained[-1]['metrics']['accuracy']:.5g}  " in told
    assert f"  accuracy {validated[-1]['metrics']['accuracy']:.5g}  on " in told
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert {"metrics/accuracy", "val/metrics/accuracy"} <= set(events.Tags()["scalars"])
    about = json.loads((run / "run.json").read_text())
    meaning = "Cross-entropy of the classes, rare ones counting more."
    assert about["objective"] == {"kind": "Classes", "loss": meaning, "picture": ""}
    assert about["config"]["objective.classes"] == 2
    page = (run / "report.html").read_text()
    assert f"<p>{meaning}</p>" in page
    assert "<h3>accuracy</h3>" in page
    assert "pixel" not in page, "nothing of masked autoencoding"
    assert not (run / "pictures").exists(), "it draws none"


@pytest.mark.deep
def test_a_task_is_gone_on_with_exactly(train: Callable[..., int], tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train() == 0
    at_once, last = _lines(run), run / "checkpoints" / "step_00000024"
    names = unpickling.shapes(last)
    assert {"model.head.weight", "objective.seen"} <= names.keys()
    shutil.rmtree(last)
    assert train() == 0
    assert _lines(run) == at_once


def test_images_without_a_label_do_not_count(
    train: Callable[..., int], labels: dict[str, int], dataset_folder: Path, tmp_path: Path
) -> None:
    assert train("--run.steps", "2", "--val.every", "1") == 0
    rows = pq.read_table(dataset_folder / "manifest.parquet", columns=["key", "split"]).to_pylist()
    labelled = sum(row["split"] == "val" and row["key"] in labels for row in rows)
    assert 0 < labelled < sum(row["split"] == "val" for row in rows)
    run = tmp_path / "run"
    assert _read(run / "validation.jsonl")[-1]["images"] == labelled
    (tmp_path / "labels.json").write_text("{}")
    shutil.rmtree(run)
    assert train("--run.steps", "2", "--val.every", "1", "--optim.weight-decay", "0") == 0
    assert _read(run / "validation.jsonl")[-1]["loss"] is None
    assert _read(run / "metrics.jsonl")[-1]["metrics"]["accuracy"] is None
    assert _read(run / "metrics.jsonl")[-1]["images"] > 0, "seen they are all the same"


def test_another_task_does_not_go_on_in_its_folder(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--run.steps", "1", "--val.every", "0") == 0
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "objective": {"kind": "Sides"}}))
    assert train("--run.steps", "1", "--val.every", "0") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a run of the objective Sides, not Classes: go on with its recipe" in said


def test_an_objectives_tensors_move_with_its_model() -> None:
    model = Classifier(RECIPE.config.model.build(), 2)  # type: ignore[arg-type]
    objective = Classes(model, torch.zeros(3), 2)
    objective.to(torch.device("meta"))
    devices = {tensor.device.type for tensor in (objective.labels, objective.seen, *model.parameters())}
    assert devices == {"meta"}
