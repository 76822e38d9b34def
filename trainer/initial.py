"""Weights to begin with: of timm by name, of a file, or of a checkpoint of ours."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shardkit.errors import ArgumentError
from trainer import checkpoint
from trainer.formats import load_original
from trainer.hiera import HieraMae, load_timm
from trainer.mae import Mae

State = dict[str, Tensor]


def load_initial(model: Mae | HieraMae, source: str) -> str:
    """Begin with what `source` names; returns a sentence on what was taken and what begins at random.

    source: a run's folder or one of its checkpoints; a .pth, .pt, .bin or .safetensors file of timm's or of the
    original's masked autoencoder; or a timm model, e.g. vit_base_patch16_224.mae, whose weights timm downloads.
    Raises ArgumentError where it is none of these or belongs to another architecture.
    """
    path = Path(source)
    if path.is_dir():
        place = checkpoint.named(path)
        checkpoint.weights(place, model)
        return f"all weights are those of {place}"
    state = _file(path) if path.exists() else _timm(source)
    missing = load_timm(model, state) if isinstance(model, HieraMae) else load_original(model, state)
    return f"weights are those of {source}" + (", the decoder begins at random" if missing else "")


def _file(path: Path) -> State:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ArgumentError(f"--init {path} cannot be read as weights: {type(error).__name__}") from error
    for name in ("model", "state_dict", "model_state"):  # as training programs nest them
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise ArgumentError(f"--init {path} holds no weights by name")
    return found


def _timm(name: str) -> State:
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
