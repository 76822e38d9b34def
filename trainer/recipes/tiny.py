"""A small network: a few hundred steps to see that all of it works, and more for features that are worth something."""

from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig
from trainer.models.mae import MaeConfig
from trainer.recipes.base import Recipe

RECIPES = {
    "tiny": Recipe(
        Config(
            model=MaeConfig(
                patch=8,
                width=128,
                depth=4,
                heads=4,
                decoder_width=96,
                decoder_depth=2,
                decoder_heads=4,
                norm_pix=True,
            ),
            loader=LoaderConfig(batching="packed:level=3,patch=8,per_step=2,remainder=drop,tokens=4096"),
            optim=OptimConfig(lr=1.5e-3, warmup=0.1, clip=1.0),
            run=RunConfig(steps=1600, precision="fp32", compile=False),
            save=SaveConfig(every=100, keep=2),
            log=LogConfig(every=5, pictures=100),
        ),
        "shardkit: half an hour on a laptop's CPU, for features worth more than random weights",
        "- 300 steps show that all of it works. Their features are worth less than those of random weights: see the\n"
        "  downstream benchmark.\n"
        "- Images are streamed at an eighth of their height and width; of images of 256 pixels take level=1.\n"
        "- Images left over at an epoch's end sit it out: in so short a run a half-empty step would count as much.\n",
    )
}
