"""DINO as its authors trained it."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.dino import DinoConfig
from trainer.recipes.base import Recipe

VIEWS = (
    "224:crop=0.4/1.0:jitter=0.8:blur=1.0+224:crop=0.4/1.0:jitter=0.8:blur=0.1:solarise=0.2"
    "+96:n=8:crop=0.05/0.4:jitter=0.8:blur=0.5"
)
NOTES = """\
- ViT-S/16 of timm, whose positions are interpolated for small crops with antialiasing; theirs were without.
- Each micro-batch is a pass of its own, as each of their processes had one; a CNN's batch norms are not synchronised.
- The gain of the outputs is 1 (--objective.norm-last-layer, the code's default). Without, the student's is learnt and
  the teacher's stays 1.
"""

RECIPES = {
    "dino-s16": Recipe(
        Config(
            model=TimmConfig(name="vit_small_patch16_224", drop_path=0.1, channels=3, any_size=True),
            loader=LoaderConfig(
                batching=f"multiview:batch_size=64,level=auto,patch=16,per_step=8,remainder=drop,views={VIEWS}",
                normalise="0.449,0.226",
            ),
            optim=OptimConfig(
                lr=5e-4 * 512 / 256,
                betas=(0.9, 0.999),
                weight_decay=0.04,
                weight_decay_end=0.4,
                warmup=10 / 100,
                rise="both",
                floor=1e-6,
                clip=3.0,
                clip_by="tensor",
            ),
            objective=DinoConfig(),
            run=RunConfig(epochs=100),
        ),
        "Caron et al. 2021, Emerging properties in self-supervised vision transformers (arXiv:2104.14294)",
        """\
- lr: 5e-4 for 256 images, which the code scales to 1e-3 for 8 x 64. 100 epochs is the code's default; the paper's best
  are of 800 with 16 x 64 images.
- The boosted variant warms the teacher's temperature up from .04 to .07 over 30 epochs:
  --objective.teacher-temperature 0.07 --objective.temperature-epochs 30.
- For photographs of three channels there; grey images are shown three times here. Normalised by the means over colours
  of ImageNet's numbers.
- The clip of 3 is that of each tensor, not of the model. Biases and norms do not decay; class token and positions do.
- Crops are bicubic there; here they are resized as all images are. Colours change there by saturation, hue and a chance
  of grey, which grey images have not.
- fp16; here bf16.
"""
        + NOTES,
    ),
}
