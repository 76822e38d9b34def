"""What a recipe is."""

from dataclasses import dataclass
from typing import Literal

from trainer.config import Config


@dataclass(frozen=True, slots=True)
class Recipe:
    """Published settings as data.

    Attributes
    ----------
    config : Config
        All values.
    source : str
        Whose numbers they are.
    notes : str
        What differs, between paper and code, or from here.
    command : {"pretrain", "finetune", "probe"}
        The command that it is for.
    """

    config: Config
    source: str
    notes: str
    command: Literal["pretrain", "finetune", "probe"] = "pretrain"
