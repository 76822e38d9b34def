"""Self-supervised vision transformers of chest radiographs, fine-tuned on NIH's findings in two ways."""

from trainer.augment import AugmentConfig
from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig, SelectConfig, ValConfig
from trainer.models.classifier import HeadConfig
from trainer.models.vit import VitConfig
from trainer.recipes.base import Recipe
from trainer.recipes.findings import NIH14, OFFICIAL
from trainer.tasks.config import TaskConfig

_EPOCH = 75_312 // 128  # steps of theirs
_NOTES = """\
- ViT-S/16 of one channel, pre-trained by GMML (masked pixels): --init with its weights. Class token and a linear map.
- Published: mean AUC .7505 to .8106 over 14 findings, means over five seeds, deviation of the mean over classes.
- Normalised by ImageNet's numbers; by their means here, as one channel. Rotation of up to 7 degrees is bilinear here.
- Early stopping on the validation loss, patience 10 epochs.
- The warm-up is 5 of 30 epochs, then a cosine; the public fork gives the validation loss to timm's schedule in place of
  the epoch, so that
"""


def _tuned(optim: OptimConfig, note: str) -> Recipe:
    return Recipe(
        Config(
            model=VitConfig(patch=16, width=384, heads=6),
            loader=LoaderConfig(
                batching="resized:batch_size=128,crop=0.08/1.0,flip=0.5,level=auto,patch=16,per_step=1,side=224",
                normalise="0.449,0.226",
            ),
            optim=optim,
            objective=TaskConfig(labels="nih14", columns=NIH14, head=HeadConfig(pool="token", norm=False)),
            augment=AugmentConfig(rotate=7.0),
            run=RunConfig(epochs=30, seeds=(0, 1, 2, 3, 4)),
            val=ValConfig(every=_EPOCH),
            select=SelectConfig(metric="loss", patience=10),
        ),
        "Krones et al., self-supervised vision transformers for chest radiographs (report and public forks)",
        _NOTES + note + OFFICIAL,
        "finetune",
    )


RECIPES = {
    "krones-a": _tuned(
        OptimConfig(lr=2.5e-6, betas=(0.9, 0.999), weight_decay=0.05, warmup=5 / 30),
        "  the rate stays at 1.05e-6: --optim.schedule constant --optim.lr 1.05e-6 --optim.warmup 0.\n"
        "- Betas are timm's, .9 and .999.\n",
    ),
    "krones-b": _tuned(
        OptimConfig(name="sgd", lr=0.01, momentum=0.9, weight_decay=0.0, warmup=5 / 30),
        "  the rate hardly moves: --optim.schedule constant keeps it.\n- Momentum is timm's, .9.\n",
    ),
}
