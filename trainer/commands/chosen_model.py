"""The option `--model timm:NAME`: a backbone of timm's in place of the recipe's model."""

from dataclasses import is_dataclass, replace
from typing import Any

from shardkit.errors import ArgumentError
from trainer.config import Config
from trainer.models.backbone import TimmConfig
from trainer.models.classifier import HeadConfig
from trainer.models.timm_names import parted
from trainer.objectives.masked import MaskedConfig

_OPTION, _OF_TIMM = "--model", "timm:"


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
    changed = replace(config, model=TimmConfig(name=name))
    head: Any = getattr(config.objective, "head", None)
    if isinstance(head, HeadConfig) and is_dataclass(config.objective):
        own: Any = replace(config.objective, head=replace(head, pool="own", norm=False))
        changed = replace(changed, objective=own)
    return changed
