"""The models that there are, found again from the options of a run."""

from dataclasses import fields
from typing import Any, Final

from trainer.config import from_flat
from trainer.models.base import ModelConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig

MODELS: Final[tuple[type[Any], ...]] = (MaeConfig, HieraConfig)


def described(options: dict[str, Any]) -> ModelConfig:
    """The record of a model from its options by name; its class is the one that knows all of them.

    Raises ArgumentError where none does.
    """
    kind = min(MODELS, key=lambda kind: len(options.keys() - {f.name for f in fields(kind)}))
    found: ModelConfig = from_flat(kind, options)
    return found
