"""A probe and a fine-tuning on two real processes end as on one: weights, and statistics over images."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shardkit.loader.batch import BatchPosition

SCRIPT = """
import sys
import numpy as np
import torch
from pathlib import Path
from rich.console import Console
from shardkit import from_text
from trainer import parallel
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig
from trainer.loop import Loop
from trainer.models.classifier import Classifier, HeadConfig
from trainer.models.vit import VitConfig
from trainer.runs.log import Log
from trainer.tasks.targets import Targets
from trainer.tasks.task import Task
from trainer.tasks.training_targets import TrainingTargets

given = torch.load(sys.argv[1], weights_only=False)
run, frozen = Path(sys.argv[2]), sys.argv[3] == "frozen"
world = parallel.start()

class Batches:
    batching = from_text("packed:patch=8,tokens=64")
    def bins(self):
        return ["all"], np.zeros(99, np.int64)
    def __iter__(self):
        for step in given:
            own = step[world.rank :: world.size]
            for micro, batch in enumerate(own):
                last = micro == len(own) - 1
                yield type(batch)(**{**{f: getattr(batch, f) for f in batch.__dataclass_fields__},
                    "position": type(batch.position)(0, 0, micro, len(own), last)})

torch.manual_seed(0)
head = HeadConfig(norm=not frozen, batch_norm=True, std=0.1)
encoder = VitConfig(patch=8, width=32, depth=2, heads=2, drop_path=0.3).encoder(last_norm=frozen)
encoder.requires_grad_(not frozen)
values = (np.arange(20).reshape(10, 2) % 3 == 0).astype(np.float32)
targets, ones = Targets(("a", "b"), values, values >= 0), np.ones(2, np.float32)
trained = TrainingTargets.of(targets, np.arange(10), "multilabel")
task = Task(Classifier(encoder, 2, head).double(), targets, trained, (ones, ones))
lars, adamw = OptimConfig(name="lars", lr=0.5, weight_decay=0.0), OptimConfig(lr=1e-2, eps=1e-3, layer_decay=0.5)
optim = lars if frozen else adamw
config = Config(model=VitConfig(), loader=LoaderConfig(batching=""), optim=optim,
    run=RunConfig(precision="fp32", compile=False), log=LogConfig(pictures=0, tensorboard=False))
log = Log(run, ["all"], 99, None, world.size, Console(quiet=True), False)
loop = Loop(task, Batches(), config, run, world, log, 1000)
for _ in given:
    loop._step()
if world.is_main:
    torch.save(task.model.state_dict(), run / "out.pt")
del loop, task, world  # their groups have threads, which must not live longer than Python
parallel.stop()
"""


@pytest.mark.deep
@pytest.mark.parametrize("kind", ["frozen", "whole"])
def test_two_processes_train_a_head_as_one_does(kind: str, make_packed: Any, tmp_path: Path) -> None:
    sizes = [(32, 24), (17, 40), (8, 8), (25, 25)]
    given = []
    for step in range(3):
        batches = []
        for micro, count in enumerate((3, 1, 2, 0)):
            batch, _ = make_packed(sizes[:count], patch=8, tokens=64, sequences=5, seed=10 * step + micro)
            rows = torch.where(batch.rows >= 0, batch.rows + micro, -1)
            batches.append(replace(batch, rows=rows, position=BatchPosition(0, step, micro, 4, micro == 3)))
        given.append(batches)
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "rank.py").write_text(SCRIPT)
    found = []
    for count in (1, 2):
        run = tmp_path / str(count)
        run.mkdir()
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command = [*launch, str(tmp_path / "rank.py"), str(tmp_path / "given.pt"), str(run), kind]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(run / "out.pt", weights_only=False))
    one, two = found
    assert one["head.batch_norm.running_mean"].abs().max() > 0.01
    for name, value in one.items():
        torch.testing.assert_close(value, two[name], rtol=1e-6, atol=1e-7, msg=name)
