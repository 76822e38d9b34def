"""Two real processes that see unequal numbers of images train as a plain loop over all of them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shardkit.loader.batch import BatchPosition
from trainer.models.mae import Mae, MaeConfig
from trainer.models.sequences import sequences

MODEL = MaeConfig(patch=8, width=32, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2)
STEPS = 3
RANK = """
import sys
import numpy as np
import torch
from rich.console import Console
from pathlib import Path
from shardkit import from_text
from trainer import parallel
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig
from trainer.runs.log import Log
from trainer.loop import Loop
from trainer.models.mae import MaeConfig
from trainer.objectives.masked import Masked

given = torch.load(sys.argv[1], weights_only=False)
world = parallel.start()

class Batches:
    batching = from_text("packed:patch=8,tokens=64")
    def bins(self):
        return ["all"], np.zeros(99, np.int64)
    def __iter__(self):
        return iter(given["batches"][world.rank])

config = Config(
    model=given["model"],
    loader=LoaderConfig(batching=""),
    optim=OptimConfig(lr=1e-2, eps=1e-3, weight_decay=0.5, warmup=0.0, clip=0.5),
    run=RunConfig(precision="fp32", compile=False),
    log=LogConfig(pictures=0, tensorboard=False),
)
task = Masked(config.model.build())
task.model.load_state_dict(given["start"])
task.model.double()
run = Path(sys.argv[2])
log = Log(run, ["all"], 99, None, 2, Console(quiet=True), False)
loop = Loop(task, Batches(), config, run, world, log, 1000000)
for _ in range(given["steps"]):
    loop._step()
if world.is_main:
    lines = [(float(s.sums["loss"] / s.sums["weight"]), s.norm, s.images) for s in log._since]
    torch.save({"weights": task.model.state_dict(), "lines": lines}, sys.argv[2] + "/out.pt")
del loop, task, world  # their groups have threads, which must not live longer than Python
parallel.stop()
"""


@pytest.fixture
def batches(make_packed: Any) -> list[list[Any]]:
    """Of two ranks: two micro-batches a step of 3 and 1, and of 1 and no image; sizes differ from step to step."""
    found: list[list[Any]] = [[], []]
    sizes = [(32, 24), (17, 40), (8, 8), (40, 16), (25, 25)]
    for step in range(STEPS):
        for rank, counts in enumerate(((3, 1), (1, 0))):
            for micro, count in enumerate(counts):
                seed = 100 * step + 10 * rank + micro
                chosen = [sizes[(seed + i) % len(sizes)] for i in range(count)]
                batch, _ = make_packed(chosen, patch=8, tokens=64, sequences=5, seed=seed)
                found[rank].append(replace(batch, position=BatchPosition(0, step, micro, 2, micro == 1)))
    return found


def _plain(model: Mae, batches: list[list[Any]]) -> list[tuple[float, float, float]]:
    """The same by hand: all images of a step in one sum, its mean, clipping, AdamW."""
    params = dict(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in params.values() if p.ndim > 1], "weight_decay": 0.5},
            {"params": [p for p in params.values() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-2, betas=(0.9, 0.95), eps=1e-3,
    )  # fmt: skip
    lines = []
    for step in range(STEPS):
        outs = [model(sequences(batch, 8)) for rank in batches for batch in rank if batch.position.step == step]
        images = sum(float(out.images) for out in outs)
        loss: Tensor = torch.stack([out.loss.double() for out in outs]).sum() / images
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(params.values(), 0.5)
        optimizer.step()
        lines.append((loss.item(), norm.item(), images))
    return lines


@pytest.mark.deep
def test_ranks_with_unequal_numbers_of_images_train_as_a_plain_loop(batches: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mae(MODEL)
    given, script = tmp_path / "given.pt", tmp_path / "rank.py"
    torch.save({"batches": batches, "model": MODEL, "start": model.state_dict(), "steps": STEPS}, given)
    script.write_text(RANK)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run([*launch, script, given, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "out.pt", weights_only=False)
    model.double()
    lines = _plain(model, batches)
    assert [images for _, _, images in lines] == [5.0] * STEPS
    assert min(norm for _, norm, _ in lines) > 0.5, "gradients are clipped"
    for one, two in zip(found["lines"], lines, strict=True):
        assert one == pytest.approx(two, rel=1e-6)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found["weights"][name], value, rtol=1e-6, atol=1e-6, msg=name)
