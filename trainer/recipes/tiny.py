"""A small network: a few hundred steps to see that all of it works, and more for features that are worth something."""

from dataclasses import replace
from typing import Literal

from trainer.config import (
    Config,
    LoaderConfig,
    LogConfig,
    OptimConfig,
    RunConfig,
    SaveConfig,
    SelectConfig,
    ValConfig,
)
from trainer.models.mae import MaeConfig
from trainer.recipes.base import Recipe
from trainer.tasks.config import TaskConfig

_MODEL = MaeConfig(
    patch=8, width=128, depth=4, heads=4, decoder_width=96, decoder_depth=2, decoder_heads=4, norm_pix=True
)
_LOADER = LoaderConfig(batching="packed:level=3,patch=8,per_step=2,remainder=drop,tokens=4096")
_RUN = RunConfig(steps=300, precision="fp32", compile=False)
_SAVE, _LOG = SaveConfig(every=100, keep=2), LogConfig(every=5, pictures=100)


def _labelled(command: Literal["finetune", "probe"], source: str, optim: OptimConfig, task: TaskConfig) -> Recipe:
    return Recipe(
        Config(
            model=_MODEL,
            loader=_LOADER,
            optim=optim,
            objective=task,
            run=_RUN,
            save=_SAVE,
            val=ValConfig(every=25),
            select=SelectConfig(metric="auc", patience=5),
            log=_LOG,
        ),
        f"shardkit: {source}",
        "- Batches and model are those of the recipe tiny, but for --init RUN, which takes the run's model.\n",
        command,
    )


RECIPES = {
    "tiny": Recipe(
        Config(
            model=_MODEL,
            loader=_LOADER,
            optim=OptimConfig(lr=1.5e-3, warmup=0.1, clip=1.0),
            run=replace(_RUN, steps=1600),
            save=_SAVE,
            log=_LOG,
        ),
        "shardkit: half an hour on a laptop's CPU, for features worth more than random weights",
        "- 300 steps show that all of it works. Their features are worth less than those of random weights.\n"
        "- Images are streamed at an eighth of their height and width; of images of 256 pixels take level=1.\n"
        "- Images left over at an epoch's end sit it out: in so short a run a half-empty step would count as much.\n",
    ),
    "tiny-finetune": _labelled(
        "finetune",
        "labels on all weights of a small encoder, in minutes on a laptop's CPU",
        OptimConfig(lr=1e-3, warmup=0.1, clip=1.0),
        TaskConfig(),
    ),
    "tiny-probe": _labelled(
        "probe",
        "labels on frozen features of a small encoder",
        OptimConfig(lr=1e-2, weight_decay=0.0, warmup=0.1),
        TaskConfig(freeze=True),
    ),
}
