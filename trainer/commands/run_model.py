"""The model of a run whose weights a command begins with, `--init RUN`, and what the command says of it."""

from dataclasses import fields, replace
from typing import Any

from shardkit.errors import ArgumentError
from trainer.commands.chosen_model import changed_fields, same_backbone, with_backbone
from trainer.config import Config, flat
from trainer.models.backbone import TimmConfig
from trainer.models.base import ModelConfig
from trainer.models.classifier import HEAD
from trainer.models.initial import described_encoder, facts_of
from trainer.models.mae import MaeConfig
from trainer.models.registry import described
from trainer.models.vit import VitConfig
from trainer.runs import checkpoint, places

_ONLY_IN_THE_RECORD = frozenset({"heads", "decoder_heads"})
"""What weights are wrong with another value of, though they have the same shapes."""
_OF_A_DECODER = {f.name for f in fields(MaeConfig)} - {f.name for f in fields(VitConfig)}


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
    asked, found = changed_fields(typed, "model."), described_encoder(source)
    if found is None:
        if places.run_at(source) is not None and not asked:
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
    asked = changed_fields(typed, "model.")
    changed = {name: getattr(config.model, name) for name in _known(asked, found, source)}
    if isinstance(found, TimmConfig) and not same_backbone(found, config.model):
        return with_backbone(config, replace(found, **{"drop_path": 0.0, **changed}), changed_fields(typed))
    if hasattr(found, "drop_path") and hasattr(config.model, "drop_path"):
        changed["drop_path"] = config.model.drop_path
    model: Any = found
    return replace(config, model=replace(model, **changed))


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
    run = places.run_at(source)
    before = {} if run is None else facts_of(path := checkpoint.named(run)).get("config", {})
    now, there = flat(model, "model."), {n: value for n, value in before.items() if n.startswith("model.")}
    if not there or not (there.keys() <= now.keys() or now.keys() <= there.keys()):
        return  # of another kind, which shapes show
    free = {"drop_path", "mask_ratio", "norm_pix", "loss"} | (changed_fields(typed, "model.") - _ONLY_IN_THE_RECORD)
    if "stretch" not in (now.get("model.position"), there.get("model.position")):
        free.add("position_table")
    if HEAD in checkpoint.names(path):
        free |= _OF_A_DECODER  # which it has not trained
    shared = [n for n in now if n in there and n.removeprefix("model.") not in free]
    if other := [n for n in shared if now[n] != there[n]]:
        add = " ".join(f"--{n.replace('_', '-')} {there[n]}" for n in other)
        raise ArgumentError(
            f"--init {source} is of another model than the command's: use {add}, or another recipe, instead of"
            f" {', '.join(str(now[n]) for n in other)}"
        )


def _known(asked: frozenset[str], found: Any, source: str) -> frozenset[str]:
    """Return the options that the run's model has; those of a decoder say nothing here."""
    own = {f.name for f in fields(found)}
    if foreign := sorted(asked - own - (_OF_A_DECODER if isinstance(found, VitConfig) else set())):
        option, kind = foreign[0].replace("_", "-"), type(found).__name__.removesuffix("Config")
        raise ArgumentError(f"--init {source} is of a model of the kind {kind}, without --model.{option}: leave it out")
    return asked & own
