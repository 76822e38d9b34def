"""GMML and SiT on two real processes train as on one: the same donors, negatives, statistics, and the same teacher."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

RANK = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from rich.console import Console
from shardkit import from_text
from tests.trainer.objectives.two_views import batch_of, micro
from trainer import parallel
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig
from trainer.loop import Loop
from trainer.objectives import sit
from trainer.objectives.gmml import Gmml, GmmlConfig, GmmlModel
from trainer.objectives.sit import Sit, SitConfig, SitModel
from trainer.runs.log import Log

STEPS, MICROS = 3, 4
HELD = [(True, True, True, False), (True,) * 4, (False, True, False, True), (False,) * 4]
world = parallel.start()
out = Path(sys.argv[1])

class Batches:
    batching = from_text("resized:side=32,patch=8,batch_size=4")
    plan = [None] * 99
    def bins(self):
        return ["all"], np.zeros(999, np.int64)
    def __iter__(self):
        for step in range(STEPS):
            mine = range(world.rank, MICROS, world.size)
            for number in mine:
                there = HELD[(number + step) % 4]
                yield batch_of(7 * step + number, there, (step, number, MICROS), number == mine[-1])

def train(name, objective, config):
    folder = out / f"{name}_{world.size}"
    folder.mkdir(exist_ok=True)
    log = Log(folder, ["all"], 99, None, world.size, Console(quiet=True), False)
    loop = Loop(objective, Batches(), config, folder, world, log, 10)
    for _ in range(STEPS):
        loop._step()
    lines = [(float(s.sums["loss"] / s.sums["weight"]), s.norm, s.images) for s in log._since]
    state = {**objective.model.state_dict(), **objective.state_dict()}
    if world.is_main:
        torch.save({"state": state, "lines": lines}, out / f"{name}_{world.size}.pt")

config = Config(
    model=micro(),
    loader=LoaderConfig(batching=""),
    optim=OptimConfig(lr=1e-2, eps=1e-3, weight_decay=0.1, warmup=0.0, clip=3.0, clip_by="tensor"),
    run=RunConfig(precision="fp32", compile=False),
    log=LogConfig(pictures=0, tensorboard=False),
)
for name in ("gmml", "sit", "alone"):
    torch.manual_seed(0)
    if name == "gmml":
        made = Gmml(GmmlModel(micro()), GmmlConfig())
    else:
        options = SitConfig(hidden=24, out=8, momentum=0.9)
        made = Sit(SitModel(micro(), 24, 8), options)
        made.teacher.double()
    made.model.double()
    if name == "alone":  # keys stay on their process
        sit.parallel = type("Alone", (), {"all_reduce_sum": staticmethod(lambda values: values)})
    train(name, made, config)
    del made
del world
parallel.stop()
"""


def _off(one: dict[str, Any], two: dict[str, Any]) -> float:
    assert one["state"].keys() == two["state"].keys()
    return max(float((one["state"][n] - two["state"][n]).abs().max()) for n in one["state"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of each objective on one process and on two."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "rank.py"
    script.write_text(RANK)
    for launch in ([], ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]):
        command = [sys.executable, *launch, str(script), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=False) for path in folder.glob("*.pt")}


@pytest.mark.deep
@pytest.mark.parametrize("name", ["gmml", "sit"])
def test_two_processes_train_as_one(runs: Any, name: str) -> None:
    one, two = runs[f"{name}_1"], runs[f"{name}_2"]
    assert [images for _, _, images in one["lines"]] == [9.0] * 3
    for line, other in zip(one["lines"], two["lines"], strict=True):
        assert line == pytest.approx(other, rel=1e-6)
    assert _off(one, two) < 1e-5
    if name == "sit":
        assert any("teacher" in n and "running" in n for n in one["state"])


@pytest.mark.deep
def test_keys_that_stay_on_their_process_train_otherwise(runs: Any) -> None:
    assert _off(runs["alone_1"], runs["sit_1"]) == 0
    assert _off(runs["alone_2"], runs["sit_1"]) > 1e-4
