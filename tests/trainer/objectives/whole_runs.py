"""A small run of every method by the real loop, loader, validation and checkpoints: also of processes of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from timm.models import register_model
from timm.models.hiera import Hiera, hiera_tiny_224
from torch import Tensor, nn

from shardkit import Loader
from shardkit.terminal.output import Terminal
from tests.trainer.objectives.squares import shared_bias, swin
from tests.trainer.objectives.two_views import micro
from tests.trainer.objectives.views_made import ALONE, model
from trainer.commands.training import open_loader
from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig, ValConfig
from trainer.loop import Loop
from trainer.models.base import ModelConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.objectives.base import Objective, ObjectiveConfig
from trainer.objectives.dino import DinoConfig
from trainer.objectives.gmml import GmmlConfig
from trainer.objectives.inpainting import InpaintingConfig
from trainer.objectives.masked import MaskedConfig
from trainer.objectives.moco import MocoConfig
from trainer.objectives.simmim import SimMimConfig
from trainer.objectives.sit import SitConfig
from trainer.parallel import World
from trainer.runs.log import Log, read
from trainer.validation import Validation

STEPS = 3


@register_model
def hiera_of_runs(pretrained: bool = False, **changes: Any) -> Hiera:
    """timm's own code with few parameters, by a name that only tests know."""
    made = hiera_tiny_224(pretrained, **{"embed_dim": 16, "stages": (1, 1, 1, 1), **changes})
    assert isinstance(made, Hiera)
    return made


def _resized(side: int, patch: int) -> str:
    return f"resized:batch_size=3,crop=0.3/1.0,level=auto,patch={patch},per_step=2,remainder=drop,side={side}"


def _views(views: str, patch: int) -> str:
    return f"multiview:batch_size=3,level=auto,patch={patch},per_step=2,remainder=drop,views={views}"


def _two(side: int, patch: int = 8) -> str:
    return _views(f"{side}:n=2:crop=0.2/1.0:jitter=0.5:blur=0.5", patch)


def _four(side: int, patch: int = 8) -> str:
    return _views(f"{side}:n=2:crop=0.4/1.0:jitter=0.5+{side // 2}:n=2:crop=0.1/0.4:blur=0.5", patch)


# eps: of a gradient that is nought but for rounding, AdamW would make a step of the whole learning rate.
_OPTIM = OptimConfig(
    lr=1e-2, eps=1e-3, weight_decay=0.04, weight_decay_end=0.4, clip=3.0, clip_by="tensor", warmup=0.4, floor=1e-3
)
_SMALL: dict[str, Any] = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2, "drop_path": 0.3}
_DINO = DinoConfig(
    outputs=24, hidden=16, bottleneck=8, temperature_epochs=2, teacher_temperature=0.07, momentum=0.9, freeze_last=1
)
_MOCO = MocoConfig(queue=24, width=8, momentum=0.9)


@dataclass(frozen=True)
class Method:
    """What a method trains, on which batches.

    Attributes
    ----------
    model, objective : record
        As of a recipe.
    batching : str
        Of two micro-batches of three images, so that an epoch of the test split is two steps; the val split has three.
    """

    model: ModelConfig
    objective: ObjectiveConfig
    batching: str


_REPAIRING = replace(micro(drop_path=0.3), changes=("depth=2",))
_SIT = SitConfig(hidden=16, out=8, momentum=0.9)
_MAE = MaeConfig(patch=8, width=32, depth=2, heads=2, **_SMALL)
_PACKED = "packed:patch=8,level=2,crop=0.3/1.0,per_step=2,tokens=512"

METHODS = {
    "mae": Method(_MAE, MaskedConfig(), _PACKED),
    "hiera": Method(HieraConfig(arch="hiera_of_runs", side=64, **_SMALL), MaskedConfig(), _resized(64, 16)),
    "simmim-vit": Method(shared_bias(drop_path=0.3), SimMimConfig(), _resized(96, 16)),
    "simmim-swin": Method(replace(swin(), drop_path=0.3), SimMimConfig(), _resized(64, 32)),
    "inpainting-cnn": Method(model("cnn", drop_path=0.3), InpaintingConfig(), _resized(64, 32)),
    "gmml-vit": Method(_REPAIRING, GmmlConfig(), _two(32)),
    "sit-vit": Method(_REPAIRING, _SIT, _two(32)),
    "dino-vit": Method(model("vit", drop_path=0.3), _DINO, _four(32)),
    "dino-cnn": Method(model("cnn", drop_path=0.3), _DINO, _four(64, 32)),
    "moco-vit": Method(model("vit", drop_path=0.3), _MOCO, _two(32)),
    "moco-cnn": Method(model("cnn", drop_path=0.3), _MOCO, _two(64, 32)),
}


def config_of(name: str, steps: int = STEPS, save: int = 99, per_step: int = 2) -> Config:
    """A method's run, with what recipes turn on: decay along a cosine, clipping; one has an average of its weights."""
    of, o = METHODS[name], _OPTIM
    if name == "mae":
        o = replace(o, ema=0.9)
    if name.startswith("moco"):
        o = replace(o, name="sgd", decay="all")
    return Config(
        model=of.model,
        objective=of.objective,
        loader=LoaderConfig(
            batching=of.batching.replace("per_step=2", f"per_step={per_step}"), split="test", threads=1
        ),
        optim=o,
        run=RunConfig(precision="fp32", compile=False, steps=steps),
        save=SaveConfig(every=save, keep=steps),
        val=ValConfig(every=2),
        log=LogConfig(every=1, pictures=2, tensorboard=False),
    )


def _open(config: Config, data: Path, world: World, **changes: Any) -> Loader:
    return open_loader(config, str(data), world.device, world.rank, world.size, **changes)


def go(
    name: str,
    data: Path,
    out: Path,
    world: World = ALONE,
    until: int = STEPS,
    seed: int = 0,
    steps: int = STEPS,
    save: int = 99,
    per_step: int = 2,
    change: Callable[[Objective], None] = lambda objective: None,
) -> bool:
    """Train, or go on, as the command does, until asked to stop after a step; whether the run is at its end.

    What is built has other random weights with another seed; `change` is done to it before the loop begins.
    """
    config = config_of(name, steps, save, per_step)
    torch.manual_seed(seed)
    loader = _open(config, data, world, augmented=True)
    objective = config.objective.build(config.model, loader)
    objective.model.check_batching(loader.batching)
    change(objective)
    plain = replace(loader.batching, crop=None, flip=0.0, remainder="fill")
    tested = replace(config, loader=replace(config.loader, batching=str(plain), split="val"))
    out.mkdir(exist_ok=True)
    log = Log(out, loader.bins()[0], steps, None, world.size, Terminal(quiet=True) if world.is_main else None, False)
    loop = Loop(
        objective, loader, config, out, world, log, steps,
        lambda: loop.progress.step + 1 >= until, validation=Validation(objective, _open(tested, data, world), world),
    )  # fmt: skip
    return loop.go()


def in_double(objective: Objective) -> None:
    """Make all of an objective float64: what is left of differences between machines and numbers of processes."""
    for name, value in {**vars(objective), "model": objective.model}.items():
        if isinstance(value, nn.Module):
            value.double()
        elif isinstance(value, Tensor) and value.is_floating_point():
            setattr(objective, name, value.double())


def held(out: Path, step: int = STEPS) -> dict[str, Any]:
    """All tensors of a step's checkpoint by name: weights, moments, the objective's, the average, random states."""
    path = out / "checkpoints" / f"step_{step:08d}"
    shapes: dict[str, Any] = dict(dcp.FileSystemReader(path).read_metadata().state_dict_metadata)
    found = {n: torch.empty(m.size, dtype=m.properties.dtype) for n, m in shapes.items() if hasattr(m, "size")}
    dcp.load(found, checkpoint_id=path, no_dist=True)
    return found


_TIMES = ("images_per_s", "tokens_per_s", "data_wait", "tflops", "seconds", "eta")


def told(out: Path) -> list[dict[str, Any]]:
    """All that the log of a run says of steps and validations, but how long they took."""
    lines = read(out / "metrics.jsonl") + read(out / "validation.jsonl")
    return [{name: value for name, value in line.items() if name not in _TIMES} for line in lines]


def pictures(out: Path) -> dict[str, bytes]:
    """Files of pictures by name."""
    return {path.name: path.read_bytes() for path in sorted((out / "pictures").glob("*.png"))}
