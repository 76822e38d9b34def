"""Weights to begin with: of timm by name, of a file, or of a checkpoint of ours. No file is run, whatever it holds."""

import argparse
import pathlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import FIRST_KERNEL, Grey, Model, ModelConfig, Weights
from trainer.models.classifier import ENCODER, HEAD, Classifier
from trainer.models.encoder import Encoder
from trainer.models.formats import DECODER, position_table
from trainer.models.registry import described
from trainer.models.timm_names import parted, seen_in_pretraining, tags
from trainer.models.vit import VisionTransformer, VitConfig
from trainer.runs import checkpoint, folder

_SAFE: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
]  # what training programs put beside the weights: their arguments
_NESTED = ("model", "state_dict", "model_state_dict", "model_state", "module")
_AVERAGES = ("model_ema", "state_dict_ema", "ema")  # taken where nothing else is there


def load_initial(model: Model, source: str, channels: Grey = "sum", classes: Sequence[str] = ()) -> str:
    """Begin with weights of elsewhere.

    Parameters
    ----------
    model
        Takes the weights: a model, or a classifier, whose encoder does.
    source
        A run's folder, or one of its checkpoints; a .pth, .pt, .bin or .safetensors file of timm's or of the
        original's masked autoencoder, with what programs wrap around it; or weights of timm by name and tag, e.g.
        vit_base_patch16_224.mae, which timm downloads.
    channels
        How kernels of three channels become ones of grey.
    classes
        Names of the classifier's classes: the head of a run with the same ones is taken, too.

    Returns
    -------
    str
        A sentence on what was taken, what it had been pre-trained on where that is known, and what begins at random.

    Raises
    ------
    ArgumentError
        Where the source is none of these, or belongs to another architecture.
    """
    path = Path(source)
    if path.is_dir():
        return from_run(model, checkpoint.named(path), classes)
    state, where = _file(path, _mark(model)) if path.exists() else (_timm(source), "")
    try:
        missing = model.load_weights(state, channels)
    except ArgumentError as error:
        raise ArgumentError(f"--init {source}: {error}") from None
    seen = "" if path.exists() else f", {seen_in_pretraining(source)}{_scale(source)}"
    return f"weights are those of {source}{where}{seen}{_rest(model, state, bool(missing))}"


def _mark(model: Model) -> str:
    """Return the name in files that shows where prefixes end: an encoder alone has it without one of ours."""
    own = model.encoder if isinstance(model, Classifier) else model
    if isinstance(own, Encoder):
        return own.first_kernel
    return next((name for name in own.state_dict() if name.endswith(FIRST_KERNEL)), own.first_kernel)


def _rest(model: Model, state: Mapping[str, Any], lacking: bool, head: bool = False) -> str:
    """Say what was left out, and what begins at random."""
    own = model.encoder if isinstance(model, Classifier) else model
    parts = [", the decoder begins at random"] if lacking else []
    if any(name.endswith("norm.weight") for name in _last_norms(state)) and not _last_norms(own.state_dict()):
        parts.append(", without the last norm, in whose place the head has one of its own")
    if "pos_embed" in state and isinstance(own, VisionTransformer) and not _is_formula(state["pos_embed"], own):
        parts.append(", without the table of positions that it had learned: positions are a formula here")
    if isinstance(model, Classifier) and not head:
        parts.append(", the head begins at random")
    return "".join(parts)


def _last_norms(state: Mapping[str, Any]) -> list[str]:
    return [name for name in state if name.removeprefix("encoder.") in ("norm.weight", "head.norm.weight")]


def _is_formula(table: Tensor, model: VisionTransformer) -> bool:
    """Return whether a table of positions holds what the formula gives."""
    side, c = isqrt(table.shape[1] - 1), model.config
    if side**2 + 1 != table.shape[1] or table.shape[2] != c.width:
        return False
    return torch.allclose(table[:, 1:].float(), position_table((side, side), c.width)[:, 1:], atol=1e-3)


def _scale(name: str) -> str:
    """Say what images such weights expect: grey ones, by the mean over colours."""
    config = get_pretrained_cfg(name)
    if config is None:
        return ""
    mean, deviation = (sum(values) / len(values) for values in (config.mean, config.std))
    return (
        f" with images of mean {mean:.3g} and deviation {deviation:.3g} (--loader.normalise {mean:.3g},{deviation:.3g})"
    )


def from_run(model: Model, path: Path, classes: Sequence[str] = ()) -> str:
    """Begin with a checkpoint's weights: all of them where it is of the same model, else those of the encoder.

    Parameters
    ----------
    model
        Takes the weights.
    path
        The checkpoint.
    classes
        As of `load_initial`.

    Returns
    -------
    str
        A sentence on what was taken.

    Raises
    ------
    TrainingError
        For a checkpoint of another architecture, or one that cannot be read.
    """
    there = checkpoint.names(path)
    labelled, own = HEAD in there, model.encoder if isinstance(model, Classifier) else model
    facts = facts_of(path)
    began = f", which began so: {facts['weights']}" if facts.get("weights") else ""
    if not labelled and own is model:
        checkpoint.weights(path, model)
        return f"all weights are those of {path}{began}"
    before = ENCODER if labelled else ""
    state = dict(own.state_dict())
    taken = {f"{before}{name}": value for name, value in state.items()}
    decoder = [name for name in taken if name.removeprefix(before).startswith(DECODER) and name not in there]
    whole = {name: value for name, value in taken.items() if name not in decoder}
    head = isinstance(model, Classifier) and labelled and bool(classes) and facts.get("classes") == [*classes]
    if head:
        whole |= {name: value for name, value in model.state_dict().items() if name.startswith("head.")}
    checkpoint.fill(path, whole)
    own.load_state_dict({name: taken[f"{before}{name}"] for name in state})
    known = {name.removeprefix(before): None for name in there}
    what = "weights of encoder and head are" if head else "the encoder's weights are"
    return f"{what} those of {path}{began}{_rest(model, known, bool(decoder), head)}"


def described_encoder(source: str) -> ModelConfig | None:
    """Return the record of the encoder of a run that weights are to be taken of; None where nothing describes one.

    Parameters
    ----------
    source
        As of `load_initial`.

    Raises
    ------
    ArgumentError
        Where the folder is no run's.
    """
    if not Path(source).is_dir():
        return None
    options = facts_of(checkpoint.named(Path(source))).get("config", {})
    if not options:
        return None
    found = described({name.removeprefix("model."): v for name, v in options.items() if name.startswith("model.")})
    if isinstance(found, VitConfig):
        return VitConfig(**{f.name: getattr(found, f.name) for f in fields(VitConfig)})
    return found


def facts_of(path: Path) -> dict[str, Any]:
    """Return what the run of a checkpoint says of itself; nothing of a checkpoint that was moved."""
    run = next((p for p in path.resolve().parents[:2] if (p / folder.FACTS).exists()), None)
    return {} if run is None else folder.facts(run)


def _file(path: Path, mark: str) -> tuple[Weights, str]:
    """Return weights by plain names, and where in the file they were."""
    found, keys = _read(path), []
    while isinstance(found, dict) and not _is_state(found):
        key = next((name for name in (*_NESTED, *_AVERAGES) if isinstance(found.get(name), dict)), None)
        if key is None:
            named = ", ".join(map(str, list(found)[:8])) or "nothing"
            raise ArgumentError(f"--init {path} holds no weights by name, but {named}: save a model's state_dict()")
        keys.append(key)
        found = found[key]
    if not isinstance(found, dict):
        raise ArgumentError(f"--init {path} holds no weights by name: save a model's state_dict()")
    state, prefix = _plain({str(name).replace("_orig_mod.", ""): value for name, value in found.items()}, path, mark)
    where = [*keys, *([f"{prefix}*"] if prefix else [])]
    return state, f" ({' / '.join(where)})" if where else ""


def _is_state(found: dict[Any, Any]) -> bool:
    return bool(found) and all(isinstance(value, Tensor) for value in found.values())


def _plain(state: Weights, path: Path, mark: str) -> tuple[Weights, str]:
    """Take from names what wrappers (DDP, Lightning, a larger model) put before them; return that prefix, too.

    `mark` is a name of ours, which shows where the prefix ends.
    """
    end = mark if any(name.endswith(mark) for name in state) else FIRST_KERNEL
    prefixes = sorted({name.removesuffix(end) for name in state if name.endswith(end)})
    if end != FIRST_KERNEL:  # parts of a backbone may have kernels of that name, too
        prefixes = [p for p in prefixes if not any(p != other and p.startswith(other) for other in prefixes)]
    if len(prefixes) > 1:
        raise ArgumentError(f"--init {path} holds several models, {', '.join(prefixes)}: save the state_dict of one")
    prefix = prefixes[0] if prefixes else ""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}, prefix


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is not None:
            raise ArgumentError(
                f"--init {path} holds {foreign[1]}, which is no weights and could run code, and was not read: in the"
                " program that wrote it, save the model's state_dict() alone"
            ) from None
        raise ArgumentError(f"--init {path} cannot be read as weights: {type(error).__name__}") from error


def _timm(name: str) -> Weights:
    import timm

    arch, tag = _known(name)
    if not tag:
        raise ArgumentError(
            f"--init {name} does not say which weights: choose one of"
            f" {', '.join(f'{arch}.{one}' for one in tags(arch)) or 'another model, for timm has none of it'}"
        )
    try:
        found: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise ArgumentError(
            f"the weights {name} could not be had from timm ({type(error).__name__}): download their file,"
            f" https://huggingface.co/timm/{name}, and name it with --init"
        ) from error
    return found.state_dict()


def _known(name: str) -> tuple[str, str]:
    try:
        return parted(name)
    except ArgumentError as error:
        raise ArgumentError(f"--init {name} is neither a file nor a run, and {error}") from None
