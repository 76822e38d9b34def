"""Self-supervised vision transformers of chest radiographs: pre-training by repairing corrupted images."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.base import ObjectiveConfig
from trainer.objectives.gmml import GmmlConfig
from trainer.objectives.sit import SitConfig
from trainer.recipes.base import Recipe

_SOURCE = "Krones et al., self-supervised vision transformers for chest radiographs (report and public forks)"
_NOTES = """\
- ViT-S/16 of one channel with learnt positions, 4 x 64 images a step: a rate of 1e-4, which a batch of 256 leaves as it
  is. A micro-batch of 64 is what one of their processes had: donors, statistics and the mean of the loss are of it.
- 1,000 epochs; 300 in the study of data set sizes: --run.epochs 300 --optim.warmup 0.0333 keeps 10 of warm-up.
- The clip of 3 is that of each tensor, not of the model. Biases and norms do not decay; class token and positions do.
- Normalised by ImageNet's numbers; by their means here, as one channel. Images are corrupted after it.
- Upper left corners of blocks lie anywhere, and what reaches over the border is cut off, so that the lower right is
  corrupted more. An image may be its own donor.
- Crops are bicubic there; here they are resized as all images are. Colours change there by saturation, hue and a chance
  of grey, which grey images have not.
- fp16; here bf16.
"""


def _recipe(objective: ObjectiveConfig, views: str, note: str, drop_path: float = 0.0) -> Recipe:
    return Recipe(
        Config(
            model=TimmConfig(name="vit_small_patch16_224", drop_path=drop_path),
            loader=LoaderConfig(
                batching=f"multiview:batch_size=64,level=auto,patch=16,per_step=4,remainder=drop,views={views}",
                normalise="0.449,0.226",
            ),
            optim=OptimConfig(
                lr=1e-4,
                betas=(0.9, 0.999),
                weight_decay=0.04,
                warmup=10 / 1000,
                rise="both",
                floor=1e-6,
                clip=3.0,
                clip_by="tensor",
            ),
            objective=objective,
            run=RunConfig(epochs=1000),
        ),
        _SOURCE,
        note + _NOTES,
    )


RECIPES = {
    "krones-gmml": _recipe(
        GmmlConfig(),
        "224:n=2:crop=0.05/1.0:jitter=0.3:blur=0.1",
        """\
- GMML (Atito et al. 2022): half of the images have noise on .5 to .75 of them, the others .3 of another image.
- Its own rate is 5e-4 for 256 images, and its weight decay rises: --optim.lr 5e-4 --optim.weight-decay-end 0.4.
- Published: AUC .777 (50,000 images), .792 (100,000), .801 (250,000) over 14 findings, after fine-tuning.
- The jitter is called light; how much brightness and contrast change by is not known here: .4, as in SiT.
""",
        drop_path=0.1,
    ),
    "krones-sit": _recipe(
        SitConfig(),
        "224:crop=0.2/1.0:jitter=0.8:blur=1.0+224:crop=0.2/1.0:jitter=0.8:blur=0.1:solarise=0.2",
        """\
- SiT (Atito et al. 2021): half of the images have zeros on .5 of them, the others .3 of another image.
- Its own rate is 5e-4 for 256 images, and its weight decay rises: --optim.lr 5e-4 --optim.weight-decay-end 0.1.
- Published: AUC .759 (50,000 images), .766 (100,000), .782 (250,000) over 14 findings, after fine-tuning.
- Negatives are the keys of all micro-batches of a step, as of all their processes: 256 a view.
- Batch norms of the contrast's head take both views of a micro-batch together, and are not synchronised. Linear maps
  before them have no offsets. No stochastic depth: none is known here.
""",
    ),
}
