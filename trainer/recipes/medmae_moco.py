"""MoCo v2 of chest radiographs, a DenseNet-121: what masked autoencoders were compared with."""

from trainer.config import Config, LoaderConfig, OptimConfig, RunConfig
from trainer.models.backbone import TimmConfig
from trainer.objectives.moco import MocoConfig
from trainer.recipes.base import Recipe

RECIPES = {
    "medmae-densenet121-moco": Recipe(
        Config(
            model=TimmConfig(name="densenet121", channels=1),
            loader=LoaderConfig(
                batching=(
                    "multiview:batch_size=32,level=auto,patch=16,per_step=8,remainder=drop,"
                    "views=224:n=2:crop=0.2/1.0:jitter=0.8:blur=0.5"
                ),
                normalise="0.5056,0.252",
            ),
            optim=OptimConfig(
                name="sgd", lr=0.03, momentum=0.9, weight_decay=1e-4, decay="all", warmup=0.0, rate_by="epoch"
            ),
            objective=MocoConfig(),
            run=RunConfig(epochs=200),
        ),
        "Xiao et al. 2023, Delving into masked autoencoders for multi-label thorax disease classification (WACV);"
        " numbers of MoCo v2's code (Chen et al. 2020, arXiv:2003.04297)",
        """\
- All numbers are MoCo v2's own: the study does not publish those of its MoCo.
- MoCo's code cannot build DenseNet-121 with the perceptron (it looks for `fc`, and this network has `classifier`), and
  the study's head is not published. Here: the mean of the last feature map (1,024), a linear map to 1,024, ReLU, and a
  linear map to 128.
- 8 x 32 images a step, as on their 8 GPUs; batch norms see 32 images each, and keys are shuffled over all 256. The
  queue holds 256 steps.
- Keys are made of the same weights as in the code; the key encoder follows after an update here, and before the next
  step there.
- Crops of .2 to 1, brightness and contrast by .4 with a chance of .8, blur with .5, mirror images. Saturation, hue and
  a chance of grey, which grey images have not, are not here. One channel, three there.
- The rate falls along a cosine by epoch, without warm-up. All weights decay, biases too, as torch's SGD has it.
- Running statistics are the mean over processes; there each process had its own, and the first one's were saved.
""",
    ),
}
