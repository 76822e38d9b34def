"""Batches of made-up views, micro models of timm's code, and training by the loop: also of processes of their own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from timm.models import register_model
from timm.models.resnet import ResNet, resnet10t
from timm.models.vision_transformer import VisionTransformer, vit_tiny_patch16_224
from torch import Tensor, nn

from shardkit import MultiViewBatch
from shardkit.loader.batch import BatchPosition
from shardkit.terminal.output import Terminal
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig
from trainer.loop import Loop
from trainer.models.backbone import TimmConfig
from trainer.objectives.dino import DinoConfig
from trainer.objectives.moco import MocoConfig
from trainer.parallel import World
from trainer.runs.log import Log

ALONE = World(0, 1, torch.device("cpu"))
SIDES = {"vit": 32, "cnn": 64}


@register_model
def vit_of_views(pretrained: bool = False, **changes: Any) -> VisionTransformer:
    """timm's own code with few parameters, by a name that only tests know."""
    made = vit_tiny_patch16_224(pretrained, **{"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, **changes})
    assert isinstance(made, VisionTransformer)
    return made


@register_model
def resnet_of_views(pretrained: bool = False, **changes: Any) -> ResNet:
    """The same with batch norms; it takes images of any size."""
    changes.pop("img_size", None)
    made = resnet10t(pretrained, **{"channels": (8, 8, 16, 16), "stem_width": 8, **changes})
    assert isinstance(made, ResNet)
    return made


def views(
    step: int = 0, micro: int = 0, micros: int = 1, last: bool = True, epoch: int = 0, places: int = 3, empty: int = 0,
    side: int = 32,
) -> MultiViewBatch:  # fmt: skip
    """Two large and three small views of each of `places` samples, the last `empty` of which are none."""
    made = torch.Generator().manual_seed(1000 * step + 10 * micro + 1)
    rows = torch.arange(places)
    rows[places - empty :] = -1
    images = tuple(torch.randn(n, places, 1, s, s, generator=made) for n, s in ((2, side), (3, side // 2)))
    for of in images:
        of[:, rows < 0] = 0.0
    seeds = torch.randint(1 << 60, (places,), generator=made) * (rows >= 0)
    return MultiViewBatch(images, rows, seeds, BatchPosition(epoch, step, micro, micros, last))


def steps_of(rank: int, size: int, steps: int, side: int, micros: int = 4, empty: int = 0) -> list[MultiViewBatch]:
    """The micro-batches of a process; in every odd step the last one has empty places."""
    own = range(rank, micros, size)
    return [
        views(step, m, micros, m == own[-1], epoch=step, empty=empty if step % 2 and m == micros - 1 else 0, side=side)
        for step in range(steps)
        for m in own
    ]


def model(kind: str, **changes: Any) -> TimmConfig:
    """The record of a micro model, vit or cnn."""
    name = {"vit": "vit_of_views", "cnn": "resnet_of_views"}[kind]
    return TimmConfig(name=name, side=SIDES[kind], any_size=True, **changes)


def loader(batch_size: int, per_step: int) -> Any:
    """What an objective is built for."""
    return SimpleNamespace(batching=SimpleNamespace(batch_size=batch_size, per_step=per_step, patch=8))


def objective(method: str, kind: str, seed: int = 0, **changes: Any) -> Any:
    """An objective in float64, the same for the same seed, in training mode."""
    torch.manual_seed(seed)
    if method == "dino":
        small = {"outputs": 24, "hidden": 16, "bottleneck": 8, "temperature_epochs": 3, "teacher_temperature": 0.07}
        made: Any = DinoConfig(**{**small, **changes}).build(model(kind), loader(3, 4))
    else:
        made = MocoConfig(**{"queue": 36, "width": 8, **changes}).build(model(kind), loader(3, 4))
    made.model.train()
    return doubled(made)


def doubled(made: Any) -> Any:
    """The same objective in float64."""
    for name, value in vars(made).items():
        if isinstance(value, nn.Module) or (isinstance(value, Tensor) and value.is_floating_point()):
            setattr(made, name, value.double())
    return made


class Batches:
    """A loader as the loop needs it."""

    batching = None

    def __init__(self, given: list[MultiViewBatch]) -> None:
        self.given = given

    def bins(self) -> Any:
        """One bin."""
        return ["all"], np.zeros(99, np.int64)

    def __iter__(self) -> Any:
        """Go through them."""
        return iter(self.given)


SGD = OptimConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=1e-2, decay="all", warmup=0.0, schedule="constant")


def trained(
    made: Any, batches: list[MultiViewBatch], steps: int, folder: Path, world: World = ALONE, optim: OptimConfig = SGD
) -> dict[str, Any]:
    """Train by the loop's own steps: weights, the objective's tensors, and losses by step."""
    config = Config(
        model=model("vit"),
        loader=LoaderConfig(batching=""),
        optim=optim,
        run=RunConfig(precision="fp32", compile=False),
        log=LogConfig(pictures=0, tensorboard=False),
    )
    log = Log(folder, ["all"], 99, None, world.size, Terminal(quiet=True), False)
    loop = Loop(made, Batches(batches), config, folder, world, log, steps)  # type: ignore[arg-type]
    for _ in range(steps):
        loop._step()
    lines = [float(s.sums["loss"] / s.sums["weight"]) for s in log._since] if world.is_main else []
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    return {"weights": made.model.state_dict(), "kept": kept, "losses": lines}
