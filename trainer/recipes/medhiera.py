"""A masked autoencoder of radiographs with a hierarchical encoder, and the findings it was fine-tuned on."""

from trainer.augment import AugmentConfig
from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig, SelectConfig, ValConfig
from trainer.models.classifier import HeadConfig
from trainer.models.hiera import HieraConfig
from trainer.recipes.base import Recipe
from trainer.recipes.findings import NIH14, OFFICIAL
from trainer.tasks.config import TaskConfig

_BATCHES = "resized:batch_size=64,level=auto,patch=16,per_step=1,side=224"
_NORMALISE = "0.507,0.224"
_BETAS = """\
- Betas stay .9 and .999 here. The public code's OneCycleLR has torch's defaults, which also move the first one from .95
  to .85, where the rate is greatest, and back (cycle_momentum).
"""

RECIPES = {
    "medhiera-t224": Recipe(
        Config(
            model=HieraConfig(),
            loader=LoaderConfig(batching=_BATCHES, normalise=_NORMALISE),
            optim=OptimConfig(name="adam", lr=1e-4, weight_decay=0.0, betas=(0.9, 0.999), schedule="onecycle"),
            run=RunConfig(epochs=80),
        ),
        "med-hiera, a masked autoencoder of radiographs with Hiera-T at 224 pixels (report and public code)",
        """\
- They began with ImageNet's masked autoencoder: --init hiera_tiny_224.mae gives timm's encoder alone, --init with the
  public mae_hiera_tiny_224.pth the decoder, too.
- The report's table calls the model ViT-T/16; code and parameter count (27.9 M) are Hiera-T. 20 epochs in the ablation.
- They resized to 256 and cropped the centre to 224; here the central square is resized to 224.
- Normalised by (.516, .501, .503) / (.222, .225, .226) there; by their means here, as one channel.
- No weight decay, so that lists of exceptions do not matter. With one, tables of positions are without it: the
  encoder's as in the public code, and the decoder's, which the public code does not name.
- per_step=1 is for one rank, as theirs was: raise it, and lower batch_size, for more.
"""
        + _BETAS,
    ),
    "medhiera-t224-nih": Recipe(
        Config(
            model=HieraConfig(),
            loader=LoaderConfig(batching=_BATCHES, normalise=_NORMALISE),
            optim=OptimConfig(name="adam", lr=1e-4, weight_decay=1e-8, betas=(0.9, 0.999), schedule="onecycle"),
            objective=TaskConfig(
                labels="nih14", columns=(*NIH14, "No Finding"), head=HeadConfig(pool="own", norm=False)
            ),
            augment=AugmentConfig(rotate=30.0),
            run=RunConfig(epochs=10),
            val=ValConfig(every=86_524 // 64),
            select=SelectConfig(metric="auc"),
        ),
        "med-hiera, fine-tuned on 14 findings of chest radiographs and No Finding (report and public code)",
        """\
- Published: mean AUC 81.69 over 15 outputs, 81.86 over the 14 findings, at epoch 7 of 10.
- They cut the official test list in thirds, two for validation; the figures are of the last third.
- Weight decay is 1e-8 in the report, 0 in the code.
- They resized to 256 and cropped the centre to 224, then rotated by up to 30 degrees, to the nearest pixel; here the
  central square is resized to 224, and rotation is bilinear.
- Normalised by (.516, .501, .503) / (.222, .225, .226) there; by their means here, as one channel.
- --init runs/t224 for a pre-trained encoder.
"""
        + _BETAS
        + OFFICIAL,
        "finetune",
    ),
}
