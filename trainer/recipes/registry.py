"""Published pre-training runs as data, and a small one. Each says where paper and code disagree, and what is not here.

Learning rates are those that act: where code scales a base rate by the batch, the product is given.
"""

from dataclasses import dataclass

from trainer.config import Config, LoaderConfig, LogConfig, OptimConfig, RunConfig, SaveConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """config: all values. source: whose numbers they are. notes: what differs, between paper and code or from here."""

    config: Config
    source: str
    notes: str


_THESIS = Recipe(
    Config(
        model=MaeConfig(patch=48, loss="all", position="stretch", position_table=64, norm_eps=1e-12),
        # 64 packs of 23,040 tokens hold 1,024 images of the thesis' 1,441 tokens on average.
        loader=LoaderConfig(batching="packed:patch=48,per_step=64,tokens=23040", normalise="minmax"),
        optim=OptimConfig(lr=1e-4, floor=1e-5, warmup=0.5, decay="all"),
        run=RunConfig(epochs=10),
    ),
    "Buehler 2024, a masked autoencoder of 640,000 radiographs (thesis): ViT-B/48",
    """\
- 5 epochs of warm-up and 5 of cosine, by step. The code's warm-up peaks at lr + floor = 1.1e-4; here at 1e-4.
- The paper says "mean squared error"; the code takes it over all pixels, visible ones and padding too (loss=all).
  The usual loss: --model.loss masked.
- The paper says that positions are interpolated bilinearly; the code does it bicubically and stretches a table of
  64 x 64 over every grid (position=stretch). Equal distances in equal steps: --model.position absolute.
- In the code, weight decay acts on all parameters (decay=all). No clipping, no augmentation.
- fp16 with loss scaling; here bf16. 64 accumulated batches of 16 images in 36 bins; here packed.
  Theirs: --loader.batching binned:batch_size=16,bins=thesis,patch=48,per_step=64
- They divided images by their maximum; minmax moves their minimum to 0, too.
- Their split was 80/5/15 by patient, stratified by body region; shardkit's goes by a hash of the patient.
""",
)

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


_HIERA = Recipe(
    Config(
        model=HieraConfig(),
        loader=LoaderConfig(
            batching="resized:batch_size=64,level=auto,patch=16,per_step=1,side=224", normalise="0.507,0.224"
        ),
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
""",
)

_TINY = Recipe(
    Config(
        model=MaeConfig(patch=8, width=128, depth=4, heads=4, decoder_width=96, decoder_depth=2, decoder_heads=4),
        loader=LoaderConfig(batching="packed:level=3,patch=8,per_step=2,remainder=drop,tokens=4096"),
        optim=OptimConfig(lr=4e-3, warmup=0.1, clip=1.0),
        run=RunConfig(steps=300, precision="fp32", compile=False),
        save=SaveConfig(every=100, keep=2),
        log=LogConfig(every=5, pictures=100),
    ),
    "shardkit: a few hundred steps on a laptop's CPU, to see that all of it works",
    "- Images are streamed at an eighth of their height and width.\n"
    "- Images left over at an epoch's end sit it out: in so short a run a half-empty step would count as much.\n",
)

RECIPES: dict[str, Recipe] = {
    "thesis-b48": _THESIS,
    "medmae-s16": _medmae(384, 6, 2, "- ViT-S/16, a decoder of 2 blocks, 512 wide.\n"),
    "medmae-b16": _medmae(768, 12, 8, "- ViT-B/16: a decoder of 2 blocks in the paper, of 8 in the code.\n"),
    "medhiera-t224": _HIERA,
    "tiny": _TINY,
}
