"""All recipes: published pre-training runs as data, and a small one; a study is a module with `RECIPES` by name.

Each says where paper and code disagree, and what is not here. Learning rates are those that act: where code scales a
base rate by the batch, the product is given.
"""

from typing import Final

from trainer.recipes import (
    dino,
    krones,
    krones_pretraining,
    medhiera,
    medmae,
    medmae_moco,
    simmim,
    thesis,
    tiny,
)
from trainer.recipes.base import Recipe

_STUDIES = (thesis, medmae, medmae_moco, medhiera, krones, krones_pretraining, simmim, dino, tiny)

RECIPES: Final[dict[str, Recipe]] = {name: recipe for study in _STUDIES for name, recipe in study.RECIPES.items()}
