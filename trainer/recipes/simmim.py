"""SimMIM: masked images of squares, predicted by a linear map; a Swin as published, and a vision transformer."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.simmim import SimMimConfig
from trainer.recipes.base import Recipe

_SOURCE = "Xie et al. 2022, SimMIM: a simple framework for masked image modeling (CVPR)"
_NOTES = """\
- lr: 1e-4, which the code scales by 2048/512 to 4e-4, and the 5e-7 that the warm-up begins with to 2e-6; times .1 at
  epoch 700 of 800. The gradient of the whole model is clipped at 5.
- Biases, norms and tables of relative positions do not decay, the mask token does, as in the code.
- Squares of 32 pixels, ceil(.6 n) of n hidden; their embedding is one learned token. Loss: the mean absolute error of
  hidden pixels of a micro-batch of 128 images, as they had it on a GPU.
- Weights begin as timm's do. Their fine-tuning pools the mean of the patches (pool mean of finetune).
- Images of ImageNet there, normalised by its colours; here radiographs, by their own percentiles.
- fp16; here bf16.
"""
SHARED_BIAS = ("use_rel_pos_bias=False", "use_shared_rel_pos_bias=True", "init_values=0.1", "global_pool=token")
"""What makes SimMIM's vision transformer of timm's BEiT: a table of relative positions for all blocks, a last norm."""


def _batching(side: int) -> str:
    return f"resized:batch_size=128,crop=0.67/1.0,flip=0.5,level=auto,patch=16,per_step=16,side={side}"


def _published(model: TimmConfig, note: str) -> Recipe:
    return Recipe(
        Config(
            model=model,
            loader=LoaderConfig(batching=_batching(model.side)),
            optim=OptimConfig(
                lr=1e-4 * 2048 / 512,
                betas=(0.9, 0.999),
                weight_decay=0.05,
                schedule="multistep",
                milestones=(700 / 800,),
                warmup=10 / 800,
                warmup_from=5e-7 * 2048 / 512,
                rise="start",
                clip=5.0,
            ),
            objective=SimMimConfig(mask_ratio=0.6, unit=32),
            run=RunConfig(epochs=800),
        ),
        _SOURCE,
        note + _NOTES,
    )


RECIPES = {
    "simmim-swin-b192": _published(
        TimmConfig(name="swin_base_patch4_window7_224", side=192, changes=("window_size=6",)),
        "- Swin-B, windows of 6 x 6, 192 pixels, no stochastic depth; 22 of 36 squares are hidden.\n",
    ),
    "simmim-b16": _published(
        TimmConfig(name="beit_base_patch16_224", drop_path=0.1, changes=SHARED_BIAS),
        "- ViT-B/16, stochastic depth .1; 30 of 49 squares are hidden, 120 of 196 patches.\n"
        "- The model is timm's BEiT with one table of relative positions for all blocks, no absolute ones, a layer\n"
        "  scale of .1 and a last norm: the code's. Its keys have no bias, as in BEiT and in the code.\n",
    ),
}
