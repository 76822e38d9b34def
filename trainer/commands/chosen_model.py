"""The option `--model timm:NAME`: a backbone of timm's in place of the recipe's model."""

from dataclasses import is_dataclass, replace
from typing import Any

from shardkit.errors import ArgumentError
from trainer.config import Config, flat
from trainer.models.backbone import TimmConfig
from trainer.models.base import ModelConfig
from trainer.models.classifier import HeadConfig
from trainer.models.timm_names import parted
from trainer.objectives.masked import MaskedConfig

_OPTION, _OF_TIMM = "--model", "timm:"
_OF_A_MODEL = ("optim.layer_decay", "model.drop_path", "objective.head.pool", "objective.head.norm")
"""Options whose values in a recipe are for its own model."""


def without_model(words: list[str]) -> tuple[list[str], str | None]:
    """Take `--model timm:NAME` out of a command's words; return the others, and the name.

    Raises
    ------
    ArgumentError
        For another value, or a name that timm does not know.
    """
    for at, word in enumerate(words):
        joined = word.startswith(f"{_OPTION}=")
        if not joined and word != _OPTION:
            continue
        value = word.partition("=")[2] if joined else "".join(words[at + 1 : at + 2])
        if not value.startswith(_OF_TIMM) or value == _OF_TIMM:
            raise ArgumentError(
                f"--model {value} must be timm:NAME, e.g. timm:densenet121.tv_in1k; the recipe's own model has the"
                " options --model.*"
            )
        name = value.removeprefix(_OF_TIMM)
        try:
            parted(name)
        except ArgumentError as error:
            raise ArgumentError(f"--model {value}: {error}") from None
        return words[:at] + words[at + (1 if joined else 2) :], name
    return words, None


def with_model(config: Config, name: str) -> Config:
    """Return a recipe's values with a backbone of timm's, pooled as its authors do.

    Raises
    ------
    ArgumentError
        For masked autoencoding, which hides patches of its own models.
    """
    if isinstance(config.objective, MaskedConfig):
        raise ArgumentError(
            f"--model timm:{name} is for finetune and probe: pre-train the recipe's model, with --init from weights of"
            " timm that it has an architecture for"
        )
    return with_backbone(config, TimmConfig(name=name))


def backbone_note(recipe: Config, now: Config, typed: frozenset[str]) -> str:
    """Return a sentence on the recipe's values that a backbone in place of its model does not have; empty without one.

    Parameters
    ----------
    recipe, now
        The recipe's values, and the command's.
    typed
        Names of the options in the command.
    """
    if not isinstance(now.model, TimmConfig) or same_backbone(now.model, recipe.model):
        return ""
    before, after, asked = flat(recipe), flat(now), changed_fields(typed)
    own = [n for n in _OF_A_MODEL if n not in asked and n in before and n in after and before[n] != after[n]]
    if not own:
        return ""
    was, has = (", ".join(f"--{n.replace('_', '-')} {values[n]}" for n in own) for values in (before, after))
    return f"{now.model.name} is in place of the recipe's model: it has {has}, not {was}"


def changed_fields(typed: frozenset[str], prefix: str = "") -> frozenset[str]:
    """Return the fields that typed options with a prefix change: model.drop-path is drop_path, no-norm is norm."""
    names = (name.removeprefix(prefix).replace("-", "_") for name in typed if name.startswith(prefix))
    parts = (name.rpartition(".") for name in names)
    return frozenset(f"{before}{dot}{last.removeprefix('no_')}" for before, dot, last in parts)


def same_backbone(one: TimmConfig, other: ModelConfig) -> bool:
    """Return whether both are the same model of timm's, whatever weights their tags name."""
    return isinstance(other, TimmConfig) and parted(one.name)[0] == parted(other.name)[0]


def with_backbone(config: Config, model: TimmConfig, typed: frozenset[str] = frozenset()) -> Config:
    """Return values with a backbone, pooled as its authors do, but for what was typed.

    Rates that fall from layer to layer fit a model's number of layers: those of another have no such factor.
    """
    changed = replace(config, model=model)
    if "optim.layer_decay" not in typed:
        changed = replace(changed, optim=replace(config.optim, layer_decay=1.0))
    head: Any = getattr(config.objective, "head", None)
    if isinstance(head, HeadConfig) and is_dataclass(config.objective):
        usual = {"pool": "own", "norm": False}
        own: Any = {name: value for name, value in usual.items() if f"objective.head.{name}" not in typed}
        objective: Any = replace(config.objective, head=replace(head, **own))
        changed = replace(changed, objective=objective)
    return changed
