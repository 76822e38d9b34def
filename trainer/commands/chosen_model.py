"""A model in place of the recipe's: a backbone of timm's, `--model timm:NAME`, or that of a run, `--init RUN`."""

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from shardkit.errors import ArgumentError
from trainer.config import Config, flat
from trainer.models.backbone import TimmConfig
from trainer.models.base import ModelConfig
from trainer.models.classifier import HEAD, HeadConfig
from trainer.models.initial import described_encoder, facts_of
from trainer.models.mae import MaeConfig
from trainer.models.registry import described
from trainer.models.timm_names import parted
from trainer.models.vit import VitConfig
from trainer.objectives.masked import MaskedConfig
from trainer.runs import checkpoint

_OPTION, _OF_TIMM = "--model", "timm:"
_OF_A_MODEL = ("optim.layer_decay", "model.drop_path", "objective.head.pool", "objective.head.norm")
"""Options whose values in a recipe are for its own model."""
_ONLY_IN_THE_RECORD = frozenset({"heads", "decoder_heads"})
"""What weights are wrong with another value of, though they have the same shapes."""


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
    return _with_backbone(config, TimmConfig(name=name))


def with_run(config: Config, source: str, typed: frozenset[str]) -> Config:
    """Return a command's values with the model of the run that weights are to be taken of.

    What the command says of the model stays. So does stochastic depth, which is no part of an architecture.

    Parameters
    ----------
    config
        The command's values.
    source
        As of `trainer.models.initial.load_initial`; where it is no run, the values stay as they are.
    typed
        Names of the options in the command.

    Raises
    ------
    ArgumentError
        For an option that the run's model does not have, or a folder that says of no model.
    """
    asked, found = _options(typed, "model."), described_encoder(source)
    if found is None:
        if Path(source).is_dir() and not asked:
            raise ArgumentError(
                f"--init {source} has no run.json that says which model it is of: add --model.* options"
            )
        return config
    return _with_found(config, found, source, typed)


def with_model_of(config: Config, run: dict[str, Any], source: str, typed: frozenset[str]) -> Config:
    """Return a command's values with the model of the run that it goes on with, whatever it began with.

    Parameters
    ----------
    config, typed
        As of `with_run`.
    run
        The run's `run.json`.
    source
        What `--init` names: it may be gone, or elsewhere.

    Raises
    ------
    ArgumentError
        As of `with_run`.
    """
    options = {name: value for name, value in run["config"].items() if name.startswith("model.")}
    found = described({name.removeprefix("model."): value for name, value in options.items()})
    return _with_found(config, found, source, typed)


def _with_found(config: Config, found: ModelConfig, source: str, typed: frozenset[str]) -> Config:
    """Return values with a model, but for what was typed of it."""
    asked = _options(typed, "model.")
    changed = {name: getattr(config.model, name) for name in _known(asked, found, source)}
    if isinstance(found, TimmConfig) and not _same_backbone(found, config.model):
        return _with_backbone(config, replace(found, **{"drop_path": 0.0, **changed}), _options(typed))
    if hasattr(found, "drop_path") and hasattr(config.model, "drop_path"):
        changed["drop_path"] = config.model.drop_path
    model: Any = found
    return replace(config, model=replace(model, **changed))


def backbone_note(recipe: Config, now: Config, typed: frozenset[str]) -> str:
    """Return a sentence on the recipe's values that a backbone in place of its model does not have; empty without one.

    Parameters
    ----------
    recipe, now
        The recipe's values, and the command's.
    typed
        Names of the options in the command.
    """
    if not isinstance(now.model, TimmConfig) or _same_backbone(now.model, recipe.model):
        return ""
    before, after, asked = flat(recipe), flat(now), _options(typed)
    own = [n for n in _OF_A_MODEL if n not in asked and n in before and n in after and before[n] != after[n]]
    if not own:
        return ""
    was, has = (", ".join(f"--{n.replace('_', '-')} {values[n]}" for n in own) for values in (before, after))
    return f"{now.model.name} is in place of the recipe's model: it has {has}, not {was}"


def check_record(model: ModelConfig, source: str, typed: frozenset[str]) -> None:
    """Compare a model with that of the run that weights are to be taken of: shapes do not show all of it.

    Parameters
    ----------
    model
        The command's.
    source
        As of `trainer.models.initial.load_initial`; where no run describes it, nothing is compared.
    typed
        Names of the options in the command; what they say of positions, norms and sizes of images is meant so.

    Raises
    ------
    ArgumentError
        Where the run's model is another one: the options that make it the same are named.
    """
    before = {} if not Path(source).is_dir() else facts_of(path := checkpoint.named(Path(source))).get("config", {})
    now, there = flat(model, "model."), {n: value for n, value in before.items() if n.startswith("model.")}
    if not there or not (there.keys() <= now.keys() or now.keys() <= there.keys()):
        return  # of another kind, which shapes show
    free = {"drop_path", "mask_ratio", "norm_pix", "loss"} | (_options(typed, "model.") - _ONLY_IN_THE_RECORD)
    if "stretch" not in (now.get("model.position"), there.get("model.position")):
        free.add("position_table")
    if HEAD in checkpoint.names(path):
        free |= {f.name for f in fields(MaeConfig)} - {f.name for f in fields(VitConfig)}  # its decoder is not trained
    shared = [n for n in now if n in there and n.removeprefix("model.") not in free]
    if other := [n for n in shared if now[n] != there[n]]:
        add = " ".join(f"--{n.replace('_', '-')} {there[n]}" for n in other)
        raise ArgumentError(
            f"--init {source} is of another model than the command's: use {add}, or another recipe, instead of"
            f" {', '.join(str(now[n]) for n in other)}"
        )


def _options(typed: frozenset[str], prefix: str = "") -> frozenset[str]:
    """Return the fields that typed options with a prefix change: model.drop-path is drop_path, no-norm is norm."""
    names = (name.removeprefix(prefix).replace("-", "_") for name in typed if name.startswith(prefix))
    parts = (name.rpartition(".") for name in names)
    return frozenset(f"{before}{dot}{last.removeprefix('no_')}" for before, dot, last in parts)


def _known(asked: frozenset[str], found: Any, source: str) -> frozenset[str]:
    """Return the options that the run's model has; those of a decoder say nothing here."""
    own = {f.name for f in fields(found)}
    decoder = {f.name for f in fields(MaeConfig)} if isinstance(found, VitConfig) else set()
    if foreign := sorted(asked - own - decoder):
        option, kind = foreign[0].replace("_", "-"), type(found).__name__.removesuffix("Config")
        raise ArgumentError(f"--init {source} is of a model of the kind {kind}, without --model.{option}: leave it out")
    return asked & own


def _same_backbone(one: TimmConfig, other: ModelConfig) -> bool:
    return isinstance(other, TimmConfig) and parted(one.name)[0] == parted(other.name)[0]


def _with_backbone(config: Config, model: TimmConfig, typed: frozenset[str] = frozenset()) -> Config:
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
