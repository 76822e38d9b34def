"""What a recipe is."""

from dataclasses import dataclass

from trainer.config import Config


@dataclass(frozen=True, slots=True)
class Recipe:
    """config: all values. source: whose numbers they are. notes: what differs, between paper and code or from here."""

    config: Config
    source: str
    notes: str
