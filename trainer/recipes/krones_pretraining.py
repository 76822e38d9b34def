"""Self-supervised vision transformers of chest radiographs: four methods, by a schedule that all of them share."""

from dataclasses import replace

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.base import ObjectiveConfig
from trainer.objectives.dino import DinoConfig
from trainer.objectives.gmml import GmmlConfig
from trainer.objectives.simmim import SimMimConfig
from trainer.objectives.sit import SitConfig
from trainer.recipes import dino
from trainer.recipes.base import Recipe
from trainer.recipes.simmim import SHARED_BIAS

_SOURCE = "Krones et al., self-supervised vision transformers for chest radiographs (report and public forks)"
_NOTES = """\
- ViT-S/16 of one channel, 4 x 64 images a step: a rate of 1e-4, which a batch of 256 leaves as it is, falls to 1e-6
  along a cosine after a warm-up of 10 epochs; weight decay .04.
- 1,000 epochs; 300 in the study of data set sizes: --run.epochs 300 --optim.warmup 0.0333 keeps 10 of warm-up.
- Normalised by ImageNet's numbers; by their means here, as one channel.
"""
_OF_VIEWS = """\
- The clip of 3 is that of each tensor, not of the model. Biases and norms do not decay; class token and positions do.
- Crops are bicubic there; here they are resized as all images are. Colours change there by saturation, hue and a chance
  of grey, which grey images have not.
- fp16; here bf16.
"""
_OF_REPAIRING = """\
- Half of the images lose blocks, the others get blocks of another image on .3 of them, after normalisation. An image
  may be its own donor. A micro-batch of 64 is what one of their processes had: donors, statistics and the mean of the
  loss are of it.
- Upper left corners of blocks lie anywhere, and what reaches over the border is cut off, so that the lower right is
  corrupted more.
"""
_MODEL = TimmConfig(name="vit_small_patch16_224")
_OPTIM = OptimConfig(
    lr=1e-4,
    betas=(0.9, 0.999),
    weight_decay=0.04,
    warmup=10 / 1000,
    rise="both",
    floor=1e-6,
    clip=3.0,
    clip_by="tensor",
)


def _recipe(model: TimmConfig, batching: str, optim: OptimConfig, objective: ObjectiveConfig, note: str) -> Recipe:
    loader = LoaderConfig(batching=batching, normalise="0.449,0.226")
    config = Config(model=model, loader=loader, optim=optim, objective=objective, run=RunConfig(epochs=1000))
    return Recipe(config, _SOURCE, note + _NOTES)


def _of_views(model: TimmConfig, views: str, objective: ObjectiveConfig, note: str) -> Recipe:
    batching = f"multiview:batch_size=64,level=auto,patch=16,per_step=4,remainder=drop,views={views}"
    return _recipe(model, batching, _OPTIM, objective, note + _OF_VIEWS)


RECIPES = {
    "krones-gmml": _of_views(
        replace(_MODEL, drop_path=0.1),
        "224:n=2:crop=0.05/1.0:jitter=0.3:blur=0.1",
        GmmlConfig(),
        """\
- GMML (Atito et al. 2022): what images lose is noise on .5 to .75 of them.
- Its own rate is 5e-4 for 256 images, and its weight decay rises: --optim.lr 5e-4 --optim.weight-decay-end 0.4.
- Published: AUC .777 (50,000 images), .792 (100,000), .801 (250,000) over 14 findings, after fine-tuning.
- The jitter is called light; how much brightness and contrast change by is not known here: .4, as in SiT.
"""
        + _OF_REPAIRING,
    ),
    "krones-sit": _of_views(
        _MODEL,
        "224:crop=0.2/1.0:jitter=0.8:blur=1.0+224:crop=0.2/1.0:jitter=0.8:blur=0.1:solarise=0.2",
        SitConfig(),
        """\
- SiT (Atito et al. 2021): what images lose is .5 of them, which becomes 0.
- Its own rate is 5e-4 for 256 images, and its weight decay rises: --optim.lr 5e-4 --optim.weight-decay-end 0.1.
- Published: AUC .759 (50,000 images), .766 (100,000), .782 (250,000) over 14 findings, after fine-tuning.
- Negatives are the keys of all micro-batches of a step, as of all their processes: 256 a view.
- Batch norms of the contrast's head take both views of a micro-batch together, and are not synchronised. Linear maps
  before them have no offsets. No stochastic depth: none is known here.
"""
        + _OF_REPAIRING,
    ),
    "krones-simmim": _recipe(
        TimmConfig(name="beit_base_patch16_224", drop_path=0.1, changes=("embed_dim=384", "num_heads=6", *SHARED_BIAS)),
        "resized:batch_size=64,crop=0.67/1.0,flip=0.5,level=auto,patch=16,per_step=4,side=224",
        replace(_OPTIM, clip=5.0, clip_by="model"),
        SimMimConfig(mask_ratio=0.6, unit=32),
        """\
- SimMIM with its own numbers elsewhere: crops (.67, 1) and flips, squares of 32 pixels, 30 of 49 hidden, stochastic
  depth .1, the gradient of the whole model clipped at 5. No AUC of it is published that we know: those are of GMML, SiT
  and DINO.
- ViT-S/16 is timm's BEiT at that size with one table of relative positions for all blocks, no absolute ones, a layer
  scale of .1 and a last norm, as SimMIM's code has it; its keys have no bias.
- Weight decay is constant, as SimMIM's; in the code of GMML, SiT and DINO it rises.
""",
    ),
    "krones-dino-s16": _of_views(
        replace(_MODEL, drop_path=0.1, any_size=True),
        dino.VIEWS,
        DinoConfig(),
        """\
- Weight decay stays at .04; DINO's own rises to .4 (--optim.weight-decay-end 0.4).
- Published: AUC .732 (50,000 images), .761 (100,000), .786 (250,000) over 14 findings, after fine-tuning.
"""
        + dino.NOTES,
    ),
}
