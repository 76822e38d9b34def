"""Weights by the names of other programs, in and out: timm's vision transformers, the original masked autoencoders.

Positions are a formula here and a table there. A table is exact for one grid, which is why the grid has to be named.
"""

from typing import TYPE_CHECKING, Final, Literal

import torch
from timm.layers import resample_patch_embed
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.models.base import FIRST_KERNEL, Grey, Weights
from trainer.models.positions import Mode, positions

if TYPE_CHECKING:  # they read and write their weights with this module
    from trainer.models.mae import Mae
    from trainer.models.vit import VisionTransformer

DECODER: Final = ("decoder_", "mask_token", "multi_scale_fusion_heads.")
_PREDICTION = "decoder_pred."


def position_table(grid: tuple[int, int], width: int, mode: Mode = "absolute", table: int = 64) -> Tensor:
    """Return the table of positions for a grid.

    Parameters
    ----------
    grid
        Rows and columns of patches.
    width
        Channels.
    mode, table
        As of `trainer.models.positions.positions`.

    Returns
    -------
    Tensor
        float32 (1, 1 + rows * cols, width): a zero for the class token, then the patches row by row.
    """
    rows, cols = grid
    yx = torch.cartesian_prod(torch.arange(rows), torch.arange(cols)).int()
    places = positions(yx, torch.tensor([[rows, cols]]).expand(len(yx), 2), width, mode, table)
    return torch.cat([torch.zeros(1, width), places])[None]


def encoder_state(model: "VisionTransformer", grid: tuple[int, int], channels: Literal[1, 3] = 1) -> Weights:
    """Return the encoder's weights for timm's vision transformer of this grid; they load strictly.

    `trainer.commands.usage` says how that model is made.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(DECODER)}
    if channels == 3:
        state["patch_embed.proj.weight"] = to_colour(state["patch_embed.proj.weight"])
    c = model.config
    return {**state, "pos_embed": position_table(grid, c.width, c.position, c.position_table)}


def original_state(model: "Mae", grid: tuple[int, int], channels: Literal[1, 3] = 1) -> Weights:
    """Return all weights by the names of `facebookresearch/mae`.

    With three channels the model predicts the grey level of each of them.
    """
    state, c = model.state_dict(), model.config
    if channels == 3:
        state |= {name: value.repeat_interleave(3, 0) for name, value in state.items() if name.startswith(_PREDICTION)}
    decoder = position_table(grid, c.decoder_width, c.position, c.position_table)
    return {**state, **encoder_state(model, grid, channels), "decoder_pos_embed": decoder}


def load_original(model: "VisionTransformer", state: Weights, channels: Grey = "sum") -> list[str]:
    """Load a whole model, or an encoder alone, of the original or of timm.

    Position tables and heads are left out; so are a decoder and a last norm that the model does not have. A last norm
    begins anew where the weights have one after the pooling in its place (fc_norm), as fine-tuned ones do.

    Parameters
    ----------
    model
        Takes the weights.
    state
        Weights by name.
    channels
        How a patch embedding of three channels becomes one of grey.

    Returns
    -------
    list of str
        Names of the parameters that it had no values for.

    Raises
    ------
    ArgumentError
        For values of another shape, or for names that belong to another architecture.
    """
    own = model.state_dict()
    absent = tuple(part for part in (*DECODER, "norm.") if not any(name.startswith(part) for name in own))
    if not any(name.startswith("decoder_") for name in state):
        absent += ("mask_token",)  # what an encoder of another kind (SimMIM) has in place of hidden patches
    taken: Weights = {}
    for name, value in state.items():
        if name in ("pos_embed", "decoder_pos_embed") or name.startswith(("head.", "fc_norm.", *absent)):
            continue
        if name not in own:
            raise ArgumentError(f"{name} is in the checkpoint and not in this model: {_remedy(model, state)}")
        if (fitted := _fitted(name, value, own[name], channels)).shape != own[name].shape:
            raise ArgumentError(
                f"{name} is {tuple(fitted.shape)} in the checkpoint and {tuple(own[name].shape)} in this model:"
                f" {_remedy(model, state)}"
            )
        taken[name] = fitted
    missing = sorted(own.keys() - taken.keys())
    anew = ("norm.",) if any(name.startswith("fc_norm.") for name in state) else ()  # the head has it in its place
    if lacking := [name for name in missing if not name.startswith((*DECODER, *anew))]:
        raise ArgumentError(f"the checkpoint lacks {lacking[0]}: {_remedy(model, state)}")
    model.load_state_dict({**own, **taken})
    return missing


def _fitted(name: str, value: Tensor, own: Tensor, channels: Grey) -> Tensor:
    if name == "patch_embed.proj.weight" and value.shape[1] == 3:
        value = to_grey(value, channels)
    if name == "patch_embed.proj.weight" and value.shape[0] == own.shape[0]:
        value = resample_patch_embed(value, list(own.shape[2:]))  # patches of another size (FlexiViT); same size: as is
    if name.startswith(_PREDICTION) and value.shape[0] == 3 * own.shape[0]:
        value = value.reshape(own.shape[0], 3, *own.shape[1:]).mean(1)  # rows are pixels, colours innermost
    return value


def _remedy(model: "VisionTransformer", state: Weights) -> str:
    """Return words on the options that make the model the one that weights are of, as far as they show it."""
    kernel, c = state.get(FIRST_KERNEL), model.config
    if kernel is None or kernel.ndim != 4:
        return "choose the architecture it is of"
    width, inner = kernel.shape[0], state.get("blocks.0.mlp.fc1.weight")
    found: dict[str, float] = {"width": width, "depth": _blocks(state, "blocks."), "patch": kernel.shape[-1]}
    if inner is not None:
        found["mlp_ratio"] = inner.shape[0] / width
    if (into := state.get("decoder_embed.weight")) is not None and hasattr(c, "decoder_width"):
        found |= {"decoder_width": into.shape[0], "decoder_depth": _blocks(state, "decoder_blocks.")}
    other = {name: value for name, value in found.items() if getattr(c, name) != value}
    if not other:
        return "choose the architecture it is of"
    heads = f", and the heads that it had, mostly --model.heads {max(1, width // 64)}" if "width" in other else ""
    options = " ".join(f"--model.{name.replace('_', '-')} {value:g}" for name, value in other.items())
    return f"use {options}{heads}"


def _blocks(state: Weights, prefix: str) -> int:
    return len({name.split(".")[1] for name in state if name.startswith(prefix)})


def to_grey(weight: Tensor, how: Grey = "sum") -> Tensor:
    """Return a patch embedding for one channel: (width, 3, p, p) -> (width, 1, p, p)."""
    return weight.sum(1, keepdim=True) if how == "sum" else weight.mean(1, keepdim=True)


def to_colour(weight: Tensor) -> Tensor:
    """Return a patch embedding that gives three equal channels the features of one.

    (width, 1, p, p) -> (width, 3, p, p).
    """
    return weight.expand(-1, 3, -1, -1) / 3
