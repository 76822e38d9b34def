"""Weights to begin with: of timm by name, of a file, or of a checkpoint of ours. No file is run, whatever it holds."""

import argparse
import pathlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer.models.base import Model, ModelConfig, Weights
from trainer.models.classifier import Classifier
from trainer.models.registry import described
from trainer.runs import checkpoint, folder, unpickling

_SAFE: list[Any] = [
    argparse.Namespace,
    pathlib.PosixPath,
]  # what training programs put beside the weights: their arguments
_NESTED = ("model", "state_dict", "model_state_dict", "model_state", "module")
_AVERAGES = ("model_ema", "state_dict_ema", "ema")  # taken where nothing else is there
_MARK = "patch_embed.proj.weight"  # every model that fits has it, whatever stands before


def load_initial(model: Model, source: str) -> str:
    """Begin with weights of elsewhere.

    Parameters
    ----------
    model
        Takes the weights.
    source
        A run's folder, or one of its checkpoints; a .pth, .pt, .bin or .safetensors file of timm's or of the
        original's masked autoencoder, with what programs wrap around it; or a timm model, e.g.
        vit_base_patch16_224.mae, whose weights timm downloads.

    Returns
    -------
    str
        A sentence on what was taken, and what begins at random.

    Raises
    ------
    ArgumentError
        Where the source is none of these, or belongs to another architecture.
    """
    path = Path(source)
    if path.is_dir():
        path = checkpoint.named(path)
        if isinstance(model, Classifier) and not any(
            name.startswith("model.head.") for name in unpickling.shapes(path)
        ):
            checkpoint.weights(path, model.encoder)
            return f"the encoder's weights are those of {path}, the head begins at random"
        checkpoint.weights(path, model)
        return f"all weights are those of {path}"
    mark = next((name for name in model.state_dict() if name.endswith(_MARK)), _MARK)
    state, where = _file(path, mark) if path.exists() else (_timm(source), "")
    try:
        missing = model.load_weights(state)
    except ArgumentError as error:
        raise ArgumentError(f"--init {source}: {error}") from None
    return f"weights are those of {source}{where}" + (", the decoder begins at random" if missing else "")


def described_encoder(source: str) -> ModelConfig | None:
    """Return the model of the run that weights are to be taken of; None where they are no run's."""
    path = Path(source)
    if not path.is_dir():
        return None
    options = folder.facts(checkpoint.run_of(checkpoint.named(path)))["config"]
    return described({n.removeprefix("model."): value for n, value in options.items() if n.startswith("model.")})


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
    end = mark if any(name.endswith(mark) for name in state) else _MARK
    prefixes = sorted({name.removesuffix(end) for name in state if name.endswith(end)})
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

    if not timm.is_model(name.split(".")[0]):
        raise ArgumentError(f"--init {name} is neither a file, a run, nor a model of timm")
    try:
        found: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        raise ArgumentError(
            f"--init {name} could not be had from timm ({type(error).__name__}): download its file and name that"
        ) from error
    return found.state_dict()
