"""Which network is judged: that of a run, or one of a recipe with weights of elsewhere; and the same one at random."""

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from shardkit import Dataset
from shardkit.errors import ArgumentError
from trainer.config import LoaderConfig, from_flat
from trainer.explain.opened import found
from trainer.models.base import EncoderConfig
from trainer.models.encoder import Encoder
from trainer.models.initial import facts_of, load_initial
from trainer.models.registry import described
from trainer.recipes.registry import RECIPES
from trainer.runs import best, checkpoint, folder, places
from trainer.runs.training_data import normalise_at
from trainer.tasks import trained


@dataclass(frozen=True)
class Weights:
    """A network and where its weights are.

    Attributes
    ----------
    source : str
        A checkpoint, a file, or a model of timm.
    model : EncoderConfig
        The network.
    loader : LoaderConfig
        How images come in.
    last_norm : bool
        Whether the network ends with a norm; that of a task may lie in its head instead.
    facts : dict
        What `run.json` says of the run that the weights are of; else empty.
    note : str
        What else is to be said of the weights, at the end of a sentence.
    """

    source: str
    model: EncoderConfig
    loader: LoaderConfig
    last_norm: bool = True
    facts: folder.Facts = field(default_factory=dict)
    note: str = ""

    def trained(self) -> tuple[Encoder, str]:
        """Return the network with its weights, and a sentence on them."""
        encoder = self.random(0)
        return encoder, load_initial(encoder, self.source) + self.note

    def loader_at(self, data: str) -> LoaderConfig:
        """Return how a dataset's images come in: with grey levels as the run saw them, where it was trained on them."""
        try:
            site = Dataset(data) if self.facts else None
        except ArgumentError:  # a mixture, whose file says it of its members itself; what is nothing, the loader names
            site = None
        return self.loader if site is None else replace(self.loader, normalise=normalise_at(self.facts, site))

    def random(self, seed: int) -> Encoder:
        """Return the network with random weights."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model.encoder(last_norm=self.last_norm)


def of_run(run: Path) -> Weights:
    """Return the network of a run, or of one of its checkpoints.

    Raises
    ------
    ArgumentError
        For what is no run, or a folder of several.
    """
    path, facts = found(run)
    if trained.has_task(facts):
        model, norm = _of_task(path)
    else:
        model, norm = _checked(described(_group(facts["config"], "model"))), True
    return Weights(str(path), model, loader_of(facts), norm, facts)


def of_recipe(recipe: str, init: str | None) -> Weights:
    """Return a recipe's network with weights of elsewhere.

    Those of a run get grey levels as the run saw them, for frozen features are worth less on others.

    Raises
    ------
    ArgumentError
        For an unknown recipe, or no weights.
    """
    if init is None:
        raise ArgumentError("name a run, or a recipe and its weights with --recipe and --init")
    if recipe not in RECIPES:
        raise ArgumentError(f"recipe {recipe} is unknown: choose one of {', '.join(RECIPES)}")
    config = RECIPES[recipe].config
    path = None if (run := places.run_at(init)) is None else checkpoint.named(run)
    facts = {} if path is None else facts_of(path)
    norm = _of_task(path)[1] if path is not None and trained.has_task(facts) else True
    loader, own = config.loader, facts.get("config", {}).get("loader.normalise")
    if own is None:
        return Weights(init, _checked(config.model), loader, norm)
    note = f"; images are normalised as for that run, by {own}, not as in the recipe {recipe}, by {loader.normalise}"
    seen = replace(loader, normalise=own)
    return Weights(init, _checked(config.model), seen, norm, facts, note if own != loader.normalise else "")


def loader_of(facts: folder.Facts) -> LoaderConfig:
    """Return how a run's images came in; options that this version does not know say how fast they did."""
    known = {f.name for f in fields(LoaderConfig)}
    named = {name: value for name, value in _group(facts["config"], "loader").items() if name in known}
    return replace(from_flat(LoaderConfig, {**named, "cache": None}))


def _of_task(path: Path) -> tuple[EncoderConfig, bool]:
    """Return the encoder of a run with a task, and whether it ends with a norm of its own."""
    run = trained.opened(best.run_of(path), str(path))
    return _checked(run.config.model), not run.task.head.norm


def _checked(model: Any) -> EncoderConfig:
    if not isinstance(model, EncoderConfig):
        kind = type(model).__name__.removesuffix("Config")
        raise ArgumentError(f"a {kind} has no encoder whose features could be judged: name a run of another model")
    return model


def _group(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in options.items() if key.startswith(f"{name}.")}
