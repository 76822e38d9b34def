"""A masked autoencoder of 640,000 radiographs of any size, from a thesis, and what it was fine-tuned on."""

from trainer.augment import AugmentConfig
from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig, SelectConfig, ValConfig
from trainer.models.backbone import TimmConfig
from trainer.models.base import ModelConfig
from trainer.models.classifier import HeadConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig
from trainer.recipes.base import Recipe
from trainer.tasks.config import TaskConfig

_B48 = VitConfig(patch=48, position="stretch", position_table=64, norm_eps=1e-12)
_IMAGENET = TimmConfig(name="vit_base_patch16_224.augreg_in21k")
_PACKED = "packed:crop=0.9/1.0,flip=0.5,patch=48,per_step=4,tokens=23040"  # 64 images of 1,441 tokens
_RESIZED = "resized:batch_size=64,crop=0.9/1.0,flip=0.5,level=auto,patch=16,per_step=1,side=224"
_AUGMENT = AugmentConfig(affine=0.5, gamma=0.5, noise=0.3, bias_field=0.3, blur=0.3)
_HEAD = HeadConfig(pool="token", norm=False)
_TASKS = {
    "arc": TaskConfig(labels="facts", columns=("body_part",), kind="multiclass", head=_HEAD),
    "fmd": TaskConfig(labels="foreign", kind="multiclass", head=_HEAD),
    "frac": TaskConfig(labels="fractures", kind="multiclass", head=_HEAD),
}
_ABOUT = {
    "arc": "- One of 14 body regions: here the body part that DICOM headers name. --labels for a table of yours.\n",
    "fmd": "- Foreign material, or none, by a table of labels: --labels NAME. Theirs is private.\n",
    "frac": "- A fracture, or none, by a table of labels: --labels NAME. Theirs is private; FracAtlas has such ones:\n"
    "  --labels fracatlas --objective.columns fractured.\n",
}
_SCORES = {  # balanced accuracy in percent: random weights, ImageNet-21k, masked autoencoder
    "arc": (56.9, 92.2, 73.6),
    "fmd": (46.9, 92.9, 58.0),
    "frac": (50.0, 56.9, 58.5),
}
_TUNED_NOTES = """\
- All weights train; class token and a linear map. lr is 3e-5 for the masked autoencoder and 1e-4 for the baselines.
- One image a micro-batch and 64 of these a step there; about as many in four packs here. The rate changes by epoch.
- Early stopping on the balanced accuracy of the validation split, patience 10 epochs, of some 750 images each:
  --val.every 11 is such an epoch in steps of 64, whatever your labels have. Of n images take --val.every n / 64.
- Their split was 75/10/15 by patient; test sets of 100 to 150 images and one seed: a point or two is chance.
- Crops of 90 to 100 % of the area have sides 3:4 to 4:3. They were resized to the image's size, and are not here.
- They divided images by their maximum; minmax moves their minimum to 0, too.
- The code logs a validation accuracy of exactly 1 as 0. Its module for a frozen encoder fails.
"""
_BEGIN = {
    "": "- --init runs/b48: the encoder of the recipe thesis-b48.\n",
    "-scratch": "- Random weights.\n",
    "-imagenet": """\
- Weights of ImageNet-21k in a ViT-B/16, by timm. The thesis gave it images of native size, with stretched positions;
  here images are resized to 224 pixels, as in its pre-training.
""",
}


def _tuned(task: str, begin: str) -> Recipe:
    model: ModelConfig = _IMAGENET if begin == "-imagenet" else _B48
    random, imagenet, mae = _SCORES[task]
    published = (
        f"- Published balanced accuracy: {mae} %; with ImageNet-21k {imagenet} %, from random weights {random} %.\n"
    )
    return Recipe(
        Config(
            model=model,
            loader=LoaderConfig(batching=_RESIZED if begin == "-imagenet" else _PACKED, normalise="minmax"),
            optim=OptimConfig(lr=1e-4 if begin else 3e-5, weight_decay=0.0, warmup=0.1, floor=1e-6, rate_by="epoch"),
            objective=_TASKS[task],
            augment=_AUGMENT,
            run=RunConfig(epochs=100),
            val=ValConfig(every=750 // 64),
            select=SelectConfig(metric="balanced_accuracy", patience=10),
        ),
        "Buehler 2024, fine-tuned on few labelled radiographs (thesis)",
        _BEGIN[begin] + _ABOUT[task] + published + _TUNED_NOTES,
        "finetune",
    )


RECIPES = {
    "thesis-b48": Recipe(
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
    ),
    **{f"thesis-b48-{task}{begin}": _tuned(task, begin) for task in _TASKS for begin in _BEGIN},
}
