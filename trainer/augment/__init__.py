"""Random changes of images of any size, by a seed, on the device: what they are, and their formulas.

Each module has an idea: what is drawn, and a function of an image and the numbers drawn, without any randomness.
"""

from trainer.augment.config import AugmentConfig
from trainer.augment.levels import Levels, check_levels, levels

__all__ = ["AugmentConfig", "Levels", "check_levels", "levels"]
