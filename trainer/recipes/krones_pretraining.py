"""Self-supervised vision transformers of chest radiographs: the pre-training, by a schedule that all methods share."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.simmim import SimMimConfig
from trainer.recipes.base import Recipe
from trainer.recipes.simmim import SHARED_BIAS

_SOURCE = "Krones et al., self-supervised vision transformers for chest radiographs (report and public forks)"
_NOTES = """\
- lr: 1e-4, falling to 1e-6 along a cosine after a warm-up of 10 epochs; 4 x 64 images a step; weight decay .04; 1,000
  epochs, 300 in their study of sizes. One channel, normalised as for fine-tuning.
"""
_SIMMIM = Recipe(
    Config(
        model=TimmConfig(
            name="beit_base_patch16_224", drop_path=0.1, changes=("embed_dim=384", "num_heads=6", *SHARED_BIAS)
        ),
        loader=LoaderConfig(
            batching="resized:batch_size=64,crop=0.67/1.0,flip=0.5,level=auto,patch=16,per_step=4,side=224",
            normalise="0.449,0.226",
        ),
        optim=OptimConfig(
            lr=1e-4, betas=(0.9, 0.999), weight_decay=0.04, warmup=10 / 1000, rise="both", floor=1e-6, clip=5.0
        ),
        objective=SimMimConfig(mask_ratio=0.6, unit=32),
        run=RunConfig(epochs=1000),
    ),
    _SOURCE,
    _NOTES
    + """\
- SimMIM with its own numbers elsewhere: crops (.67, 1) and flips, squares of 32 pixels, 30 of 49 hidden, stochastic
  depth .1, the gradient of the whole model clipped at 5. No AUC of it is published that we know: those are of GMML, SiT
  and DINO.
- ViT-S/16 is timm's BEiT at that size with one table of relative positions for all blocks, no absolute ones, a layer
  scale of .1 and a last norm, as SimMIM's code has it; its keys have no bias.
- Weight decay is constant, as SimMIM's; in the code of GMML, SiT and DINO it rises.
""",
)

RECIPES = {"krones-simmim": _SIMMIM}
