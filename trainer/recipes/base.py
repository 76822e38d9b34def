"""What a recipe is."""

from dataclasses import dataclass

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
    """

    config: Config
    source: str
    notes: str
