"""What a model leaves out of weights that it begins with, and what of it begins at random, in words."""

from collections.abc import Mapping, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from trainer.models.base import Model
from trainer.models.classifier import Classifier
from trainer.models.formats import DECODER, position_table
from trainer.models.vit import VisionTransformer

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
    own = model.encoder if isinstance(model, Classifier) else model
    parts = [", the decoder begins at random"] if any(name.startswith(DECODER) for name in missing) else []
    if any(map(is_last_norm, state)) and not any(map(is_last_norm, own.state_dict())):
        parts.append(", without the last norm, in whose place the head has one of its own")
    if any(map(is_last_norm, missing)):
        parts.append(", the encoder's last norm begins anew, for there the head had one in its place")
        parts.append(" (as with --objective.head.norm)" if task else "")
    if "pos_embed" in state and isinstance(own, VisionTransformer) and not _is_formula(state["pos_embed"], own):
        parts.append(", without the table of positions that it had learned: positions are a formula here")
    if task:
        parts.append(", the head begins at random")
    return "".join(parts)


def is_last_norm(name: str) -> bool:
    """Return whether a parameter of an encoder is that of its last norm, or of its own pooling's."""
    return name.removeprefix("encoder.").startswith(_LAST_NORMS)


def _is_formula(table: Tensor, model: VisionTransformer) -> bool:
    """Return whether a table of positions holds what the formula gives."""
    side, c = isqrt(table.shape[1] - 1), model.config
    if side**2 + 1 != table.shape[1] or table.shape[2] != c.width:
        return False
    return torch.allclose(table[:, 1:].float(), position_table((side, side), c.width)[:, 1:], atol=1e-3)
