"""Masked autoencoders of chest radiographs resized to 224 pixels, and what findings they were fine-tuned on."""

from trainer.augment import AugmentConfig
from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig, SelectConfig, ValConfig
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import HeadConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig
from trainer.objectives.inpainting import InpaintingConfig
from trainer.recipes.base import Recipe
from trainer.recipes.findings import CHEXPERT5, NIH14, OFFICIAL
from trainer.tasks.config import TaskConfig

_RESIZED = "resized:batch_size=256,crop=0.5/1.0,flip=0.5,level=auto,patch=16,per_step=8,side=224"
_NORMALISE = "0.5056,0.252"
_SOURCE = "Xiao et al. 2023, Delving into masked autoencoders for multi-label thorax disease classification (WACV)"
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
            loader=LoaderConfig(batching=_RESIZED, normalise=_NORMALISE),
            optim=OptimConfig(lr=1.2e-3, warmup=0.05),  # 40 of 800 epochs
            run=RunConfig(epochs=800),
        ),
        _SOURCE,
        note + _MEDMAE_NOTES,
    )


_INPAINTING = Recipe(
    Config(
        model=TimmConfig(name="densenet121"),
        loader=LoaderConfig(batching=_RESIZED, normalise=_NORMALISE),
        optim=OptimConfig(lr=1.2e-3, warmup=0.05),  # 40 of 800 epochs
        objective=InpaintingConfig(mask_ratio=0.75, unit=16),
        run=RunConfig(epochs=800),
    ),
    _SOURCE,
    """\
- DenseNet-121 in a U-Net, as segmentation_models_pytorch makes one. Fine-tuning takes the encoder alone.
- Patches of 16 pixels, 3 of 4 hidden: zeros after normalisation, so that a hidden pixel has the data set's mean. The
  loss is over all pixels, hidden or not.
- timm's DenseNet has a ReLU behind its last norm, theirs has not; the other maps of the U-Net are the same.
- lr: 1.5e-4, which the code scales by 2048/256 to 1.2e-3; betas .9 and .95, weight decay .05. Warm-up of 40 epochs.
- Batch normalisation is over a micro-batch, 256 images; running statistics are the mean over processes.
- They resized to 256, then cropped (RandomResizedCrop 0.5-1, bicubic) to 224; here the crop is of the full image and
  resized once. One grey channel here, three equal ones there.
- fp16; here bf16.
""",
)
_HEAD = HeadConfig(pool="mean", norm=True, std=2e-5)
_NIH = TaskConfig(labels="nih14", columns=NIH14, head=_HEAD)
_CHEXPERT = TaskConfig(
    labels="chexpert", columns=CHEXPERT5, uncertain="zeros", ones=("Atelectasis", "Edema"), head=_HEAD
)
_COVIDX = TaskConfig(labels="covidx", columns=("class",), kind="multiclass", head=_HEAD)
_TUNED_NOTES = """\
- Begin with a pre-trained encoder: --init runs/s16, or the authors' file. Without, weights are random.
- lr: 2.5e-4 in the paper, which the code scales by 1024/256 to 1e-3. The paper says "the same optimiser as in
  pre-training", betas .9 and .95; the code has .9 and .999.
- Mean of the patches with a fresh norm, a head of deviation 2e-5, layer decay .55, DropPath .2. No mixup, no erasing.
- They cropped images of 256 pixels; here the crop is of the full image and resized once. RandAugment interpolates
  bicubically there, and bilinearly here. They tested the central 224 of 256 pixels; here the central square is resized.
- They chose the epoch of the greatest AUC of the test list, looking every 10 epochs; the validation list was not used.
  Here the epoch is chosen on val.
"""
_PUBLISHED = {
    "nih": "- Published: mean AUC 82.3 (S), 83.0 (B), over 14 findings.\n" + OFFICIAL,
    "chexpert": """\
- Published: mean AUC 89.2 (S), 89.3 (B), over 5 findings. -1 counts as 1 for Edema and Atelectasis, else as 0; a
  blank as 0.
- Frontal images alone: build the dataset of these. They took a loss for the AUC; here it is the binary cross-entropy.
""",
    "covidx": """\
- Published: accuracy 95.2 (S) on COVIDx 9A. Four classes of older lists are folded into normal, pneumonia and COVID-19:
  --objective.fold for a table that has more.
- A class and its source go together in the test list: a good score may be the hospital's.
""",
}


def _tuned(width: int, heads: int, data: str, task: TaskConfig, images: int) -> Recipe:
    batching = "resized:batch_size=128,crop=0.08/1.0,flip=0.5,level=auto,patch=16,per_step=8,side=224"
    return Recipe(
        Config(
            model=VitConfig(patch=16, width=width, heads=heads, drop_path=0.2),
            loader=LoaderConfig(batching=batching, normalise=_NORMALISE),
            optim=OptimConfig(lr=1e-3, betas=(0.9, 0.999), layer_decay=0.55, warmup=5 / 75, floor=1e-5),
            objective=task,
            augment=AugmentConfig(rand="rand-m6-mstd0.5-inc1"),
            run=RunConfig(epochs=75),
            val=ValConfig(every=10 * images // 1024),  # 10 epochs of theirs
            select=SelectConfig(metric="accuracy" if task is _COVIDX else "auc"),
        ),
        _SOURCE,
        _PUBLISHED[data] + _TUNED_NOTES,
        "finetune",
    )


_PROBE = Recipe(
    Config(
        model=VitConfig(patch=16, width=384, heads=6, drop_path=0.1),
        loader=LoaderConfig(
            batching="resized:batch_size=256,crop=0.08/1.0,flip=0.5,level=auto,patch=16,per_step=64,side=224",
            normalise=_NORMALISE,
        ),
        optim=OptimConfig(name="lars", lr=6.4, momentum=0.9, trust=0.001, weight_decay=0.0, warmup=10 / 100),
        objective=TaskConfig(
            labels="nih14",
            columns=NIH14,
            freeze=True,
            head=HeadConfig(pool="token", norm=False, std=0.01, batch_norm=True),
        ),
        run=RunConfig(epochs=100),
        val=ValConfig(every=10 * 75_312 // 16_384),
        select=SelectConfig(metric="auc"),
    ),
    _SOURCE,
    """\
- lr: .1 in the paper, which the code scales by 16384/256 to 6.4. 100 epochs in the paper, 90 in the code.
- Class token, BatchNorm without weights of its own (eps 1e-6), a head of deviation .01. Published as a figure.
- DropPath .1 stays on in the frozen encoder, as in the code: --model.drop-path 0 for none.
- Images are cropped and flipped as for fine-tuning, without RandAugment.
"""
    + OFFICIAL,
    "probe",
)

RECIPES = {
    "medmae-s16": _medmae(384, 6, 2, "- ViT-S/16, a decoder of 2 blocks, 512 wide.\n"),
    "medmae-b16": _medmae(768, 12, 8, "- ViT-B/16: a decoder of 2 blocks in the paper, of 8 in the code.\n"),
    "medmae-densenet121-mae": _INPAINTING,
    "medmae-s16-nih": _tuned(384, 6, "nih", _NIH, 75_312),
    "medmae-b16-nih": _tuned(768, 12, "nih", _NIH, 75_312),
    "medmae-s16-chexpert": _tuned(384, 6, "chexpert", _CHEXPERT, 191_027),
    "medmae-b16-chexpert": _tuned(768, 12, "chexpert", _CHEXPERT, 191_027),
    "medmae-s16-covidx": _tuned(384, 6, "covidx", _COVIDX, 30_130),
    "medmae-s16-probe": _PROBE,
}
