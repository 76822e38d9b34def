"""All recipes: published pre-training runs as data, and a small one; a study is a module with `RECIPES` by name.

Each says where paper and code disagree, and what is not here. Learning rates are those that act: where code scales a
base rate by the batch, the product is given.
"""

from typing import Final

from trainer.recipes import krones, krones_pretraining, medhiera, medmae, simmim, thesis, tiny
from trainer.recipes.base import Recipe

_STUDIES = (thesis, medmae, medhiera, krones_pretraining, krones, simmim, tiny)

RECIPES: Final[dict[str, Recipe]] = {name: recipe for study in _STUDIES for name, recipe in study.RECIPES.items()}
