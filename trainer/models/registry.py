"""All models, and how one is found again from the options of a run."""

from dataclasses import fields
from typing import Any, Final

from trainer.config import from_flat
from trainer.models.backbone import TimmConfig
from trainer.models.base import ModelConfig
from trainer.models.hiera import HieraConfig
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig

MODELS: Final[tuple[type[Any], ...]] = (MaeConfig, HieraConfig, VitConfig, TimmConfig)


def described(options: dict[str, Any]) -> ModelConfig:
    """Return the record of a model, found by its options: its class knows all of them, and has the fewest others.

    Raises
    ------
    ArgumentError
        Where no class knows all of them.
    """
    names = {kind: {f.name for f in fields(kind)} for kind in MODELS}
    kind = min(MODELS, key=lambda kind: (len(options.keys() - names[kind]), len(names[kind] - options.keys())))
    found: ModelConfig = from_flat(kind, options)
    return found
