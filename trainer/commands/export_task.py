"""A classifier as a file for timm's own model with a head, compared with the run's before it is written."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import timm
import torch
from torch import Tensor, nn

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchPosition
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Channels, Grid, Weights
from trainer.models.classifier import Classifier, Head

_NEAR: Final = 1e-3
"""How far scores may be apart, in shares of the largest: rounding, through all layers."""
_POOLS: Final = {"mean": "avg", "token": "token"}
"""Ours -> timm's of its vision transformers."""
_NORMS: Final = ("head.norm", "fc_norm", "norm")
_LASTS: Final = ("head.fc", "head", "fc", "classifier")
"""Names of the linear map in models of timm that do not say theirs."""
_SCORES: Final = {
    "multilabel": "logits, whose sigmoids are the probabilities of",
    "multiclass": "logits, whose softmax is the probabilities of",
    "regression": "numbers, in the labels' unit, of",
}
Call = tuple[str, dict[str, Any]]


def with_head(model: Classifier, grid: Grid | None, channels: Channels) -> tuple[Call, Weights]:
    """Find timm's model that is this classifier on images of one size.

    Parameters
    ----------
    model
        With its weights.
    grid
        Rows and columns of patches; None for encoders that need none.
    channels
        Channels of the images.

    Returns
    -------
    tuple
        Name and arguments for `timm.create_model`, and its weights: they load strictly, and give the same scores.

    Raises
    ------
    ArgumentError
        Where timm has no such head.
    """
    name, own = model.encoder.timm_call(grid)
    encoder = model.encoder.encoder_weights(grid, channels)
    weight, bias = folded(model.head)
    images = torch.randn(2, 1, *model.encoder.exported_size(grid), generator=torch.Generator().manual_seed(0))
    wanted = _scores(model, images)
    for more, norm, last in _heads(model, name):
        given = {**own, "num_classes": len(bias), **more}
        state = {**encoder, f"{last}.weight": weight, f"{last}.bias": bias}
        state |= {f"{norm}.{part}": value for part, value in model.head.fc_norm.state_dict().items()}
        made = _made(name, given, model.encoder.exported_eps, channels)
        if made is None or {n: v.shape for n, v in made.state_dict().items()} != {n: v.shape for n, v in state.items()}:
            continue
        made.load_state_dict(state)
        with torch.no_grad():
            found = made(images.expand(-1, channels, -1, -1))
        if float((found - wanted).abs().max()) <= _NEAR * float(wanted.abs().max().clamp(min=1e-6)):
            return (name, given), state
    pool = model.head.config
    raise ArgumentError(
        f"timm's {name} has no head like this run's (--objective.head.pool {pool.pool},"
        f" --objective.head.{'norm' if pool.norm else 'no-norm'}): export the run that it began from, or go on from it"
        " with --init"
    )


def folded(head: Head) -> tuple[Tensor, Tensor]:
    """Return weight and bias of one linear map that is all of a head after its pooling and norm.

    Normalisation over images, by running statistics, and the unit of a regression are linear, too.
    """
    weight, bias = head.fc.weight.detach().double(), head.fc.bias.detach().double()
    if (over := head.batch_norm) is not None:
        scale = (over.running_var.double() + over.eps).rsqrt()
        bias = bias - weight @ (over.running_mean.double() * scale)
        weight = weight * scale
    unit, offset = head.scale.double(), head.offset.double()
    return (weight * unit[:, None]).float(), (bias * unit + offset).float()


def meaning(kind: str, classes: tuple[str, ...]) -> str:
    """Return a sentence on what the scores are."""
    return f"It gives {_SCORES[kind]}, in this order: {', '.join(classes)}."


def _heads(model: Classifier, name: str) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Give what timm's head may be: more arguments, and the names of its norm and of its linear map."""
    pool, norm = model.head.config.pool, model.head.config.norm
    if isinstance(model.encoder, TimmEncoder):
        told = (model.encoder.encoder.pretrained_cfg or {}).get("classifier")
        for last in (told,) if isinstance(told, str) else _LASTS:
            for place in _NORMS if norm else _NORMS[:1]:
                yield {}, place, last
    if pool in _POOLS:
        yield {"global_pool": _POOLS[pool], "fc_norm": norm}, "fc_norm", "head"


def _made(name: str, given: dict[str, Any], eps: float | None, channels: Channels) -> nn.Module | None:
    """Build timm's model; None where it does not take such arguments."""
    given = given if eps is None else {**given, "norm_layer": partial(nn.LayerNorm, eps=eps)}
    try:
        return timm.create_model(name, in_chans=channels, **given).eval()
    except TypeError:
        return None


@torch.no_grad()
def _scores(model: Classifier, images: Tensor) -> Tensor:
    count, side = len(images), list(images.shape[2:])
    sizes, none = torch.tensor([side] * count), torch.zeros(count, dtype=torch.int64)
    scores: Tensor = model.eval()(BinnedBatch(images, sizes, none, none, BatchPosition(0, 0, 0, 1, True)))
    return scores
