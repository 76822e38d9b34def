"""Masked autoencoders of chest radiographs resized to 224 pixels."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.mae import MaeConfig
from trainer.recipes.base import Recipe

_RESIZED = "resized:batch_size=256,crop=0.5/1.0,flip=0.5,level=auto,patch=16,per_step=8,side=224"
_MEDMAE_NOTES = """\
- lr: the paper says 1.5e-4, which the code scales by 2048/256 to 1.2e-3. Warm-up: 20 epochs in the paper, 40 in code.
- Weight decay acts on class and mask token too, as in the code: only biases and norms are without.
- int(196 * 0.1) = 19 patches are visible. The loss is over hidden pixels, not normalised by patch.
- They resized to 256, then cropped (RandomResizedCrop 0.5-1, bicubic) to 224; here the crop is of the full image and
  resized once.
- Normalised by the code's numbers for NIH ChestX-ray14; it gave other data sets ImageNet's. One grey channel here,
  three equal ones there.
- fp16; here bf16.
"""


def _medmae(width: int, heads: int, decoder_depth: int, note: str) -> Recipe:
    return Recipe(
        Config(
            model=MaeConfig(patch=16, width=width, heads=heads, decoder_depth=decoder_depth, mask_ratio=0.9),
            loader=LoaderConfig(batching=_RESIZED, normalise="0.5056,0.252"),
            optim=OptimConfig(lr=1.2e-3, warmup=0.05),  # 40 of 800 epochs
            run=RunConfig(epochs=800),
        ),
        "Xiao et al. 2023, Delving into masked autoencoders for multi-label thorax disease classification (WACV)",
        note + _MEDMAE_NOTES,
    )


RECIPES = {
    "medmae-s16": _medmae(384, 6, 2, "- ViT-S/16, a decoder of 2 blocks, 512 wide.\n"),
    "medmae-b16": _medmae(768, 12, 8, "- ViT-B/16: a decoder of 2 blocks in the paper, of 8 in the code.\n"),
}
