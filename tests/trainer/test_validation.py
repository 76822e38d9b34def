"""Losses on the val split, and where a run's numbers go."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shardkit import Loader, Packed
from trainer.commands.cli import run as command
from trainer.models.mae import MaeConfig
from trainer.objectives.masked import Masked
from trainer.parallel import World
from trainer.runs import writers
from trainer.runs.log import duration
from trainer.validation import Validation

MODEL = MaeConfig(patch=8, width=32, depth=1, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
SMALL = """
--model.width 32 --model.depth 1 --model.heads 2
--model.decoder-width 32 --model.decoder-depth 1 --model.decoder-heads 2
--loader.batching packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop
--run.steps 4 --save.every 3 --log.every 2 --log.pictures 2 --log.baseline 0 --val.every 3
"""
FILLED = "packed:patch=8,level=1,per_step=2,tokens=512"


@pytest.fixture
def words(dataset_folder: Path, tmp_path: Path) -> Callable[..., list[str]]:
    def make(*more: str) -> list[str]:
        options = [*SMALL.split(), *more]
        pairs = {"--data": str(dataset_folder), "--out": str(tmp_path / "run")}
        pairs |= dict(zip(options[::2], options[1::2], strict=True))
        return ["pretrain", *(word for pair in pairs.items() for word in pair)]

    return make


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _validation(dataset_folder: Path, tokens: int, per_step: int) -> tuple[Validation, Masked]:
    torch.manual_seed(1)
    task = Masked(MODEL.build())
    batching = Packed(tokens=tokens, patch=8, level=1, per_step=per_step)
    loader = Loader(dataset_folder, batching=batching, split="val", device="cpu")
    return Validation(task, loader, World(0, 1, torch.device("cpu"))), task


def test_every_image_of_the_split_counts_once_and_the_same_each_time(dataset_folder: Path) -> None:
    """However they are batched: what differs is the order that numbers are added in."""
    (one, task), (two, _) = _validation(dataset_folder, 512, 3), _validation(dataset_folder, 1024, 2)
    before = torch.get_rng_state()
    first = one.measure(task.model, nullcontext)
    again, other = one.measure(task.model, nullcontext), two.measure(task.model, nullcontext)
    assert torch.equal(torch.get_rng_state(), before), "training goes on as if nothing had been"
    held = Loader(dataset_folder, batching=Packed(tokens=1024, patch=8), device="cpu").splits
    assert first.images == other.images == held["val"] > 0
    assert again.loss == first.loss
    assert task.model.training
    assert set(first.by_bin) == set(other.by_bin)


def test_a_run_tells_its_loss_on_the_val_split(words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words()) == 0
    told, run = capsys.readouterr().out, tmp_path / "run"
    records = _read(run / "validation.jsonl")
    assert [record["step"] for record in records] == [3, 4], "every third, and the last"
    assert records[-1]["loss_by_bin"]
    assert f"step 4/4  val loss {records[-1]['loss']:.5f}  on {records[-1]['images']} images" in told
    assert {path.name for path in (run / "pictures").iterdir()} >= {"val_00000003.png", "step_00000004.png"}
    assert "on the val split" in (run / "report.html").read_text()
    # What follows the checkpoint that is gone on with is measured again, to the same numbers.
    for place in run.glob("checkpoints/step_00000004/*"):
        place.unlink()
    assert command(words()) == 0
    assert _read(run / "validation.jsonl") == records


@pytest.mark.parametrize("split", ["all", "val"])
def test_a_run_that_trains_on_the_val_split_says_that_nothing_is_validated(
    words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str
) -> None:
    assert command(words("--loader.split", split, "--run.steps", "1", "--loader.batching", FILLED)) == 0
    assert f"no validation: --loader.split {split} trains on the val split" in capsys.readouterr().out
    assert not (tmp_path / "run" / "validation.jsonl").exists()


def test_lines_say_how_long_is_left(words: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(words("--val.every", "0")) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.endswith(" to go") for line in lines] == [True, False]
    first = _read(tmp_path / "run" / "metrics.jsonl")[0]
    assert lines[0].endswith(f"{duration(first['eta'])} to go")
    assert first["eta"] == pytest.approx(first["seconds"], rel=0.01), "two steps done, two to go"


class _Project:
    """Weights & Biases as far as it is called, writing down what it is told."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []

    def init(self, **facts: Any) -> Any:
        self.begun.append(facts)
        return SimpleNamespace(define_metric=lambda *_, **__: None, log=self.lines.append, finish=lambda: None)


@pytest.mark.deep
def test_numbers_go_to_one_run_of_weights_and_biases(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project = _Project()
    monkeypatch.setitem(sys.modules, "wandb", project)
    assert command(words("--log.wandb", "bones", "--run.steps", "2")) == 0
    assert command(words("--log.wandb", "bones", "--run.steps", "4")) == 0
    first, second = project.begun
    assert first["id"] == second["id"]
    assert (first["project"], first["resume"]) == ("bones", "allow")
    assert [line["step"] for line in project.lines if "loss" in line] == [2, 4]
    assert [line["step"] for line in project.lines if "val/loss" in line] == [2, 3, 4]


def test_a_package_that_is_missing_is_named_before_anything_is_made(
    words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(name: str) -> Any:
        if name == "wandb":
            raise ImportError(name)
        return importlib.import_module(name)

    monkeypatch.setattr(writers, "import_module", missing)
    assert command(words("--log.wandb", "bones")) == 1
    assert "pip install wandb" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()
