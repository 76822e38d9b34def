"""A classifier as a file for timm's own model with a head, compared with the run's before it is written."""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import timm
import torch
from torch import Tensor, nn

from shardkit import BatchPosition, BinnedBatch
from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Channels, Grid, Weights
from trainer.models.classifier import Classifier, Head

_IMAGES: Final = 4
_NEAR: Final = 1e-3
"""How far a score may be off, in shares of how far it differs between images: rounding, through all layers."""
_ROUNDING: Final = 1e-6
"""The same in shares of itself: float32, where an offset is large."""
_POOLS: Final = {"mean": "avg", "token": "token", "own": "token"}
"""Ours -> timm's of its vision transformers; our encoder's own is its class token."""
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
    images = torch.randn(_IMAGES, 1, *model.encoder.exported_size(grid), generator=torch.Generator().manual_seed(0))
    wanted = _scores(model, images)
    if not bool(torch.isfinite(wanted).all()):
        raise ArgumentError("the run's scores are not finite: export another checkpoint of it")
    for more, norm, last in _heads(model):
        given = {**own, "num_classes": len(bias), **more}
        state = {**encoder, f"{last}.weight": weight, f"{last}.bias": bias}
        state |= {f"{norm}.{part}": value for part, value in model.head.fc_norm.state_dict().items()}
        made = _made(name, given, model.encoder.exported_eps, channels)
        taken = {n: state.get(n) for n in made.state_dict()} if made is not None else {}
        if made is not None and _same(made, taken, images.expand(-1, channels, -1, -1), wanted):
            return (name, given), {n: value for n, value in taken.items() if value is not None}
    head = model.head.config
    raise ArgumentError(
        f"no head was found that timm's {name} has and that gives this run's scores (--objective.head.pool {head.pool}"
        f" --objective.head.{'norm' if head.norm else 'no-norm'}): train one that it has, by --init with this run and"
        " --objective.head.pool own --objective.head.no-norm"
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
    return f"It gives {_SCORES[kind]}, in this order: {json.dumps(classes, ensure_ascii=False)}."


def _heads(model: Classifier) -> Iterator[tuple[dict[str, Any], str, str]]:
    """Give what timm's head may be, the likeliest first: more arguments, and the names of its norm and linear map."""
    pool, norm = model.head.config.pool, model.head.config.norm
    norms = _NORMS if norm else _NORMS[:1]
    if not isinstance(model.encoder, TimmEncoder):
        yield {"global_pool": _POOLS[pool], "fc_norm": norm}, "fc_norm", "head"
        return
    told = (model.encoder.encoder.pretrained_cfg or {}).get("classifier")
    lasts = (told,) if isinstance(told, str) else _LASTS
    if pool != "own":
        yield from (({"global_pool": _POOLS[pool], "fc_norm": norm}, "fc_norm", last) for last in lasts)
        yield from (({"global_pool": _POOLS[pool]}, place, last) for last in lasts for place in norms)
    yield from (({}, place, last) for last in lasts for place in norms)


def _made(name: str, given: dict[str, Any], eps: float | None, channels: Channels) -> nn.Module | None:
    """Build timm's model; None where it does not take such arguments, of which it says so in many ways."""
    given = given if eps is None else {**given, "norm_layer": partial(nn.LayerNorm, eps=eps)}
    try:
        return timm.create_model(name, in_chans=channels, **given).eval()
    except Exception:
        return None


@torch.no_grad()
def _same(made: nn.Module, state: Mapping[str, Tensor | None], images: Tensor, wanted: Tensor) -> bool:
    """Load weights, and say whether the scores of these images are those that are wanted."""
    shapes = {name: value.shape for name, value in made.state_dict().items()}
    if shapes != {name: None if value is None else value.shape for name, value in state.items()}:
        return False
    made.load_state_dict(dict(state))
    found = made(images)
    if not isinstance(found, Tensor) or found.shape != wanted.shape:
        return False
    spread = (wanted - wanted.mean(0)).abs().amax(0)  # an offset that all images share shows nothing
    return bool(((found - wanted).abs().amax(0) <= _NEAR * spread + _ROUNDING * wanted.abs().amax(0)).all())


@torch.no_grad()
def _scores(model: Classifier, images: Tensor) -> Tensor:
    count, side = len(images), list(images.shape[2:])
    sizes, none = torch.tensor([side] * count), torch.zeros(count, dtype=torch.int64)
    scores: Tensor = model.eval()(BinnedBatch(images, sizes, none, none, BatchPosition(0, 0, 0, 1, True)))
    return scores
