"""What a model leaves out of weights that it begins with, and what of it begins at random, in words."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, get_args

import torch
from torch import Tensor

from trainer.models.base import FIRST_KERNEL, Model
from trainer.models.classifier import Classifier
from trainer.models.formats import DECODER, position_table
from trainer.models.positions import Mode
from trainer.models.vit import VisionTransformer, VitConfig
from trainer.models.with_heads import WithHeads

_LAST_NORMS = ("norm.", "fc_norm.", "head.norm.")


def rest(model: Model, state: Mapping[str, Any], missing: Sequence[str]) -> str:
    """Say what was left out, and what begins at random.

    Parameters
    ----------
    model
        That has taken the weights; a classifier whose head has not, or an encoder.
    state
        Weights by name.
    missing
        Names of the parameters that they had no values for.
    """
    task = isinstance(model, Classifier)
    own = model.encoder if isinstance(model, WithHeads) else model
    parts = [_decoder(own, missing)]
    if any(map(is_last_norm, state)) and not any(map(is_last_norm, own.state_dict())):
        parts.append(", without the last norm, in whose place the head has one of its own")
    if any(map(is_last_norm, missing)):
        parts.append(", the encoder's last norm begins anew, for there the head had one in its place")
        parts.append(" (as with --objective.head.norm)" if task else "")
    if isinstance(own, VisionTransformer):
        parts += [_patches(state.get(FIRST_KERNEL), own.config), _positions(state.get("pos_embed"), own.config)]
    if task:
        parts.append(", the head begins at random")
    elif own is not model:
        parts.append(", what the method puts on it begins at random")
    return "".join(parts)


def is_last_norm(name: str) -> bool:
    """Return whether a parameter of an encoder is that of its last norm, or of its own pooling's."""
    return name.removeprefix("encoder.").startswith(_LAST_NORMS)


def _decoder(model: Model, missing: Sequence[str]) -> str:
    """Say what of a decoder begins at random: all of it, or the parts that the weights lack."""
    lacking = [name for name in missing if name.startswith(DECODER)]
    if not lacking:
        return ""
    if len(lacking) == sum(name.startswith(DECODER) for name in model.state_dict()):
        return ", the decoder begins at random"
    parts = dict.fromkeys(".".join(name.split(".")[: 2 if "_blocks." in name else 1]) for name in lacking)
    return f", of the decoder {', '.join(parts)} {'begins' if len(parts) == 1 else 'begin'} at random"


def _patches(kernel: Tensor | None, c: VitConfig) -> str:
    if kernel is None or kernel.shape[-1] == c.patch:
        return ""
    moved = "" if c.position == "stretch" else ", so that every position lies elsewhere"
    return f", its patches of {kernel.shape[-1]} pixels resampled to {c.patch}{moved}"


def _positions(table: Tensor | None, c: VitConfig) -> str:
    """Say what becomes of a table of positions: nothing where it holds what the model's formula gives."""
    if table is None or (mode := _formula(table, c)) == c.position:
        return ""
    if mode is None:
        return ", without the table of positions that it had learned: positions are a formula here"
    return f", its positions were {mode} and are {c.position} here (--model.position {mode} keeps them)"


def _formula(table: Tensor, c: VitConfig) -> Mode | None:
    """Return the formula whose values a table holds, of any grid; None where it was learned."""
    count = table.shape[1] - 1
    grids = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    modes: tuple[Mode, ...] = (c.position, *get_args(Mode))
    for mode, grid in product(modes, grids if table.shape[2] == c.width else ()):
        made = position_table(grid, c.width, mode, c.position_table)
        if torch.allclose(table[:, 1:].float(), made[:, 1:], atol=1e-3):
            return mode
    return None
