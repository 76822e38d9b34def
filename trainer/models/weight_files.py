"""Weights in files: what programs wrap around them, and before their names. No file is run, whatever it holds."""

import argparse
import pathlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.models.base import FIRST_KERNEL, Weights


class _Passed:
    """Stands for a number or an array of NumPy's, which no weights are: nothing of NumPy is run to make it."""

    def __init__(self, *parts: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_OF_NUMPY = (
    "dtype",
    "ndarray",
    *(f"{of}.multiarray.{n}" for of in ("core", "_core") for n in ("scalar", "_reconstruct")),
)
_SAFE: list[Any] = [argparse.Namespace, pathlib.PosixPath, *((_Passed, f"numpy.{name}") for name in _OF_NUMPY)]
"""What training programs put beside the weights: their arguments, and numbers."""
_NESTED = ("model", "state_dict", "model_state_dict", "model_state", "module")
_AVERAGES = ("model_ema", "state_dict_ema", "ema")  # taken where nothing else is there


def in_file(path: Path, mark: str) -> tuple[Weights, str]:
    """Return weights by plain names, and where in the file they were.

    Parameters
    ----------
    path
        A .pth, .pt, .bin or .safetensors file.
    mark
        A name of ours, which shows where prefixes end.

    Raises
    ------
    ArgumentError
        For a file that holds no weights, or those of several models.
    """
    found, keys = _read(path), list[str]()
    while isinstance(found, dict):
        key = next((name for name in (*_NESTED, *_AVERAGES) if isinstance(found.get(name), dict)), None)
        if key is None:
            break
        keys.append(key)
        found = found[key]
    held = found if isinstance(found, dict) else {}
    weights = {name: value for name, value in held.items() if isinstance(value, Tensor)}  # numbers may stand beside
    if not any(value.ndim for value in weights.values()):
        named = ", ".join(map(str, list(held)[:8])) or f"one {type(found).__name__}"
        raise ArgumentError(f"--init {path} holds no weights by name, but {named}: save a model's state_dict()")
    state, prefix = _plain({str(name).replace("_orig_mod.", ""): value for name, value in weights.items()}, path, mark)
    where = [*keys, *([f"{prefix}*"] if prefix else [])]
    return state, f" ({' / '.join(where)})" if where else ""


def heads_in(path: Path) -> int | None:
    """Return the number of attention heads, where a file says it: exports of ours do."""
    if path.suffix != ".safetensors":
        return None
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        said = (file.metadata() or {}).get("model.heads", "")
    return int(said) if said.isdecimal() else None


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
