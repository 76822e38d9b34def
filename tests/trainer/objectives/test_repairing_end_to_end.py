"""GMML and SiT by their commands: batches of the loader, lines, pictures, weights for a task."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.trainer.objectives.two_views import SIDE, micro
from tests.trainer.objectives.whole_runs import held
from trainer.commands.cli import run as command
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.initial import load_initial

BATCHES = {
    "gmml": f"resized:batch_size=2,crop=0.2/1.0,level=auto,patch=8,per_step=2,remainder=drop,side={SIDE}",
    "sit": f"multiview:batch_size=2,level=auto,patch=8,per_step=2,remainder=drop,"
    f"views={SIDE}:n=2:crop=0.2/1.0:jitter=0.5:blur=0.5",
}
SMALL = (
    f"--model.name vit_micro --model.side {SIDE} --model.drop-path 0.2 --loader.split all --run.precision fp32"
    " --run.steps 2 --run.no-compile --save.every 2 --val.every 0 --log.every 1 --log.pictures 2 --log.no-tensorboard"
    " --optim.warmup 0"
)


@pytest.mark.parametrize("name", BATCHES)
def test_a_run_draws_and_its_encoder_begins_a_task(name: str, dataset_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = f"pretrain --recipe krones-{name} --data {dataset_folder} --loader.batching {BATCHES[name]} {SMALL}"
    words += " --objective.hidden 16 --objective.out 8" if name == "sit" else ""
    assert command([*words.split(), "--out", str(out)]) == 0
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["loss"]) for line in lines)
    wanted = {"feature_deviation", "effective_rank"} | ({"contrast", "reconstruction"} if name == "sit" else set())
    assert all(line["metrics"].keys() == wanted for line in lines)
    picture = np.asarray(Image.open(next((out / "pictures").glob("*.png"))))
    assert picture.std() > 10

    kept = held(out, 2)
    task = Classifier(micro().encoder(), 2, HeadConfig(pool="token", norm=False))
    assert "the encoder's weights" in load_initial(task, str(out))
    for tensor, value in task.encoder.state_dict().items():
        assert torch.equal(value, kept[f"model.encoder.{tensor}"])
