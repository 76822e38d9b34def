"""Weights of a Hiera by the names of other programs, in and out: timm's, and the public code's masked autoencoders."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import torch
from timm.models.hiera import checkpoint_filter_fn
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.models.base import Grey
from trainer.models.formats import to_colour, to_grey

if TYPE_CHECKING:  # it reads and writes its weights with this module
    from trainer.models.hiera import HieraMae


def load_timm(model: "HieraMae", state: Mapping[str, Tensor], channels: Grey = "sum") -> list[str]:
    """Load timm's Hiera, or a masked autoencoder of the public code or of ours.

    Heads are left out. Kernels of three channels become ones of grey as `channels` says; predictions of three channels
    are averaged.

    Returns
    -------
    list of str
        Names of the parameters that it had no values for.

    Raises
    ------
    ArgumentError
        For values of another shape, or for names that belong to another architecture.
    """
    own, c = model.state_dict(), model.config
    taken: dict[str, Tensor] = {}
    for name, value in checkpoint_filter_fn(dict(state)).items():  # type: ignore[no-untyped-call]
        if name.startswith(("head.fc.", "head.pre_logits.")):
            continue
        own_name = name if name in own else f"encoder.{name}"
        if own_name not in own:
            raise ArgumentError(f"{name} is in the checkpoint and not in {c.arch}: choose the arch it is of")
        wanted = own[own_name].shape
        if own_name == "encoder.patch_embed.proj.weight" and value.ndim == 4 and value.shape[1] == 3:
            value = to_grey(value, channels)
        if own_name.startswith("decoder_pred.") and value.shape[0] == 3 * wanted[0]:
            value = value.view(3, *wanted).mean(0)  # rows are pixels, colours outermost
        if value.shape != wanted:
            raise ArgumentError(
                f"{name} is {tuple(value.shape)} in the checkpoint and {tuple(wanted)} in {c.arch} of side {c.side}:"
                " choose the arch and side it is of"
            )
        taken[own_name] = value
    missing = sorted(own.keys() - taken.keys())
    if lacking := [name for name in missing if name.startswith("encoder.")]:
        raise ArgumentError(
            f"the checkpoint lacks {lacking[0].removeprefix('encoder.')} of {c.arch}: choose the arch it is of"
        )
    model.load_state_dict({**own, **taken})
    return missing


def hiera_state(model: "HieraMae", whole: bool, channels: Literal[1, 3] = 1) -> dict[str, Tensor]:
    """Return the encoder's weights for timm, or all of them.

    With three channels the model predicts the grey level of each of them.
    """
    state = dict((model if whole else model.encoder).state_dict())
    if channels == 3:
        state |= {name: to_colour(value) for name, value in state.items() if name.endswith("patch_embed.proj.weight")}
        state |= {
            name: torch.cat([value] * 3) for name, value in state.items() if name.startswith("decoder_pred.")
        }  # colours outermost
    return state
