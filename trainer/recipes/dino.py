"""DINO: as its authors trained it, and as a study of chest radiographs did."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.dino import DinoConfig
from trainer.recipes.base import Recipe

_VIEWS = (
    "224:crop=0.4/1.0:jitter=0.8:blur=1.0+224:crop=0.4/1.0:jitter=0.8:blur=0.1:solarise=0.2"
    "+96:n=8:crop=0.05/0.4:jitter=0.8:blur=0.5"
)
_NOTES = """\
- Crops are bicubic there; here they are resized as all images are. Colours change there by saturation, hue and a chance
  of grey, which grey images have not.
- ViT-S/16 of timm, whose positions are interpolated for small crops with antialiasing; theirs were without.
- Each micro-batch is a pass of its own, as each of their processes had one; a CNN's batch norms are not synchronised.
- The clip of 3 is that of each tensor, not of the model. Biases and norms do not decay; class token and positions do.
- The gain of the outputs is 1 (--objective.norm-last-layer, the code's default). Without, the student's is learnt and
  the teacher's stays 1.
- fp16; here bf16.
"""


def _dino(batch: int, processes: int, channels: int, optim: OptimConfig, epochs: int, source: str, note: str) -> Recipe:
    per = f"batch_size={batch},level=auto,patch=16,per_step={processes},remainder=drop"
    return Recipe(
        Config(
            model=TimmConfig(
                name="vit_small_patch16_224", drop_path=0.1, channels=3 if channels == 3 else 1, any_size=True
            ),
            loader=LoaderConfig(batching=f"multiview:{per},views={_VIEWS}", normalise="0.449,0.226"),
            optim=optim,
            objective=DinoConfig(),
            run=RunConfig(epochs=epochs),
        ),
        source,
        note + _NOTES,
    )


RECIPES = {
    "krones-dino-s16": _dino(
        batch=64,
        processes=4,
        channels=1,
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
        epochs=1000,
        source="Krones et al., self-supervised vision transformers for chest radiographs (report and public forks)",
        note="""\
- ViT-S/16 of one channel, 4 x 64 images a step: a rate of 1e-4, which a batch of 256 leaves as it is.
- 1,000 epochs; 300 in the study of data set sizes: --run.epochs 300 --optim.warmup 0.0333 keeps 10 of warm-up.
- Weight decay stays at .04; DINO's own rises to .4 (--optim.weight-decay-end 0.4).
- Published: AUC .732 (50,000 images), .761 (100,000), .786 (250,000) over 14 findings, after fine-tuning.
- Normalised by ImageNet's numbers; by their means here, as one channel.
""",
    ),
    "dino-s16": _dino(
        batch=64,
        processes=8,
        channels=3,
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
        epochs=100,
        source="Caron et al. 2021, Emerging properties in self-supervised vision transformers (arXiv:2104.14294)",
        note="""\
- lr: 5e-4 for 256 images, which the code scales to 1e-3 for 8 x 64. 100 epochs is the code's default; the paper's best
  are of 800 with 16 x 64 images.
- The boosted variant warms the teacher's temperature up from .04 to .07 over 30 epochs:
  --objective.teacher-temperature 0.07 --objective.temperature-epochs 30.
- For photographs of three channels there; grey images are shown three times here. Normalised by the means over colours
  of ImageNet's numbers.
""",
    ),
}
