"""What methods on views cost is counted view by view: by size, and by whether a network has gradients."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from shardkit import MultiViewBatch
from shardkit.loader.batch import BatchPosition
from trainer.models.backbone import TimmConfig
from trainer.objectives.dino import DinoConfig
from trainer.objectives.gmml import GmmlConfig
from trainer.objectives.moco import MocoConfig
from trainer.objectives.sit import SitConfig

LOADER: Any = SimpleNamespace(batching=SimpleNamespace(batch_size=4, per_step=1), normalised={})
COSTS: dict[
    str, tuple[Any, int, float]
] = {  # two views of the encoder's size, in trainings of it; and how many of half its side there are
    "gmml": (GmmlConfig(), 0, 2.0),
    "sit": (SitConfig(hidden=16, out=8), 0, 2 * 4 / 3),
    "moco": (MocoConfig(queue=8, width=8), 0, 1 + 1 / 3),
    "dino": (DinoConfig(outputs=8, hidden=16, bottleneck=8), 4, 2 * 4 / 3),
}


@pytest.mark.parametrize("method", COSTS)
def test_operations_are_those_of_all_views_and_networks(method: str) -> None:
    config, small, trainings = COSTS[method]
    objective: Any = config.build(TimmConfig(name="test_vit", side=64), LOADER)
    views = [torch.rand(2, 4, 1, 64, 64), *([torch.rand(small, 4, 1, 32, 32)] if small else [])]
    rows = torch.tensor([0, 1, 2, -1])
    batch = MultiViewBatch(tuple(views), rows, torch.arange(4), BatchPosition(0, 0, 0, 1, True))
    encoder = objective.model.encoder
    heads = sum(objective.head_flops(number, 16 if number < 2 else 4) for number in range(2 + small))
    one = trainings * encoder.flops_at(64, 64) + (small * encoder.flops_at(32, 32) if small else 0) + heads
    assert objective.own_flops(batch).tolist() == pytest.approx([one] * 3 + [0])
    assert float(objective.run_flops(batch)) == pytest.approx(4 * one)
    own, run = objective.tokens(batch)
    assert own.tolist() == [32 + 4 * small] * 3 + [0]
    assert float(run) == 4 * (32 + 4 * small)
