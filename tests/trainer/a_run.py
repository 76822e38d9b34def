"""A run's folder, without a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from trainer.config import OptimConfig, flat
from trainer.models.base import Model, ModelConfig
from trainer.optim import optimizer
from trainer.parallel import World
from trainer.runs.saving import Checkpoints
from trainer.runs.state import TrainingState


def put_run(out: Path, config: ModelConfig, model: Model, **facts: Any) -> Path:
    """A run's folder, with a checkpoint of the model, and the options of model and task in run.json."""
    checkpoints = Checkpoints(out, 2, World(0, 1, torch.device("cpu")))
    checkpoints.save(7, TrainingState(model, optimizer(model, OptimConfig(lr=1.0)), None, 0), {"step": 7, "loader": {}})
    checkpoints.wait()
    needed = dict.fromkeys(("recipe", "baseline", "data", "digest", "parameters", "device", "world_size"))
    options = flat(config, "model.") | facts.pop("options", {})
    (out / "run.json").write_text(json.dumps({**needed, "config": options, **facts}))
    return out
