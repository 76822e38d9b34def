"""Grad-CAM: which tokens speak for a class. Selvaraju et al. 2017 (arXiv:1610.02391), on packs of images of any size.

Activations of a layer are weighted by the mean over an image's tokens of the score's gradient, summed over channels,
and cut off below 0. Images of a batch do not see each other, so that one backward pass serves all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor, nn

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.explain.maps import Tokens
from trainer.models.backbone import TimmEncoder
from trainer.models.base import Batch
from trainer.models.classifier import Classifier
from trainer.models.encoder import Encoder, real_tokens
from trainer.models.masking import draw
from trainer.models.sequences import without_padding
from trainer.models.vit import VisionTransformer

FEATURES: Final = "features"
"""In place of a layer's name: what the head is given."""
VIT: Final = "blocks.-1.norm1"
"""A vision transformer's layer, by the convention of pytorch-grad-cam and EVA-X."""
_ROWS: Final = {"NCHW": 2, "NHWC": 1}
"""Which dimension of feature maps is rows; the next one is columns."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Scores of a batch, and the activations that they are a function of.

    Attributes
    ----------
    scores : Tensor
        (S, K), with the graph behind them.
    activations : Tensor
        As the layer gives them, with a gradient.
    tokens : Tokens
        Where N tokens lie.
    by_token : callable
        Brings activations, or their gradient, to (N, channels).
    """

    scores: Tensor
    activations: Tensor
    tokens: Tokens
    by_token: Callable[[Tensor], Tensor]


def usual_layer(model: Classifier) -> str:
    """Return the layer that is meant where none is named: behind the usual one of a ViT, patches still mix."""
    encoder = model.encoder
    if isinstance(encoder, VisionTransformer):
        return VIT
    if isinstance(encoder, TimmEncoder) and encoder.layout.prefix and hasattr(encoder.encoder, "blocks"):
        return f"encoder.{VIT}"
    return FEATURES


def see(model: Classifier, batch: Batch, layer: str = "") -> Seen:
    """Run a batch, and keep what a layer gives.

    Parameters
    ----------
    model
        In evaluation mode.
    batch
        Images of any size.
    layer
        Name of a module of the encoder, parted by dots, where a negative number counts from the end; or features.

    Raises
    ------
    ArgumentError
        For a layer that the encoder does not have, or whose output has no place in the image.
    """
    encoder, name = model.encoder, layer or usual_layer(model)
    if name == FEATURES:
        with torch.no_grad():
            features = encoder.features(batch)
        leaf = features.tokens.detach().requires_grad_()
        scores = model.head(replace(features, tokens=leaf))
        if not scores.requires_grad:
            raise ArgumentError(f"the head takes the class token and no patch: name another --layer than {FEATURES}")
        tokens = Tokens(features.image, features.yx, features.real, features.places, features.stride)
        return Seen(scores, leaf, tokens, lambda x: x)
    kept: list[Tensor] = []

    def keep(module: nn.Module, given: Any, output: Any) -> Any:
        if not isinstance(output, Tensor):
            raise ArgumentError(f"--layer {layer} gives no tensor: name another one, or {FEATURES}")
        kept.append(output.detach().requires_grad_())  # what comes before needs no gradient
        return kept[-1]

    hook = _module(encoder, name).register_forward_hook(keep)
    try:
        features = encoder.features(batch)
        scores = model.head(features)
    finally:
        hook.remove()
    if not kept:
        raise ArgumentError(f"--layer {layer} does not run on the way to the scores: name another one, or {FEATURES}")
    tokens = Tokens(features.image, features.yx, features.real, features.places, features.stride)
    return _placed(encoder, batch, Seen(scores, kept[0], tokens, lambda x: x), name)


def gradcam(seen: Seen, classes: Tensor) -> Tensor:
    """Return the value of each token for its image's class.

    Parameters
    ----------
    seen
        A batch with S places.
    classes
        int64 (S,), number of the class that is asked for of each image.

    Returns
    -------
    Tensor
        (N,), at least 0.
    """
    score = seen.scores.gather(1, classes[:, None]).sum()
    gradient, of = torch.autograd.grad(score, seen.activations, retain_graph=True)[0], seen.tokens
    a, g = seen.by_token(seen.activations.detach()), seen.by_token(gradient)
    real = of.real.to(a.dtype)[:, None]
    number = real.new_zeros(of.places, 1).index_add(0, of.image, real).clamp(min=1)
    weight = g.new_zeros(of.places, g.shape[1]).index_add(0, of.image, g * real) / number
    return (a * weight[of.image]).sum(1).clamp(min=0)


def _module(encoder: Encoder, name: str) -> nn.Module:
    found: nn.Module = encoder
    for part in name.replace("[", ".").replace("]", "").split("."):
        children = dict(found.named_children())
        if part.startswith("-") and part[1:].isdecimal() and 0 < int(part) + len(children) + 1 <= len(children):
            part = list(children)[int(part)]
        if part not in children:
            there = ", ".join(children) or "nothing"
            raise ArgumentError(f"there is no --layer {name}: behind {part!r} there should be one of {there}")
        found = children[part]
    return found


def _placed(encoder: Encoder, batch: Batch, seen: Seen, name: str) -> Seen:
    """Say where a layer's activations lie."""
    a, tokens = seen.activations, seen.tokens
    if isinstance(encoder, VisionTransformer) and a.ndim == 2:
        of = without_padding(batch, encoder.patch)  # as its features are made
        mask = draw(of, 0.0)
        order = mask.decoder[mask.patches]
        if len(a) == len(order) + len(of.weight):  # the encoder's own order, with class tokens
            return replace(seen, by_token=lambda x: x[order])
    if isinstance(encoder, TimmEncoder) and a.ndim == 3 and len(a) == tokens.places:
        before = encoder.layout.prefix
        if a.shape[1] - before == len(tokens.image) // tokens.places:
            return replace(seen, by_token=lambda x: x[:, before:].flatten(0, 1))
    if isinstance(batch, BinnedBatch) and a.ndim == 4 and len(a) == tokens.places:
        own = encoder.layout.order if isinstance(encoder, TimmEncoder) else "NCHW"
        if (placed := _of_maps(batch, seen, own)) is not None:
            return placed
    raise ArgumentError(f"--layer {name} has an output of {tuple(a.shape)}, which has no place in an image")


def _of_maps(batch: BinnedBatch, seen: Seen, own: str) -> Seen | None:
    """Say where feature maps lie; None for what is no grid over the images.

    Channels are before rows and columns, or behind them. The model's own order does not tell: modules of one model
    differ in it. It is asked only where both would fit.
    """
    shape, (height, width) = seen.activations.shape, batch.images.shape[2:]
    strides = {
        order: height // shape[row]
        for order, row in _ROWS.items()
        if height * shape[row + 1] == width * shape[row] and height % shape[row] == 0
    }
    if not strides:
        return None
    order = own if own in strides else next(iter(strides))
    count, device, stride, row = len(seen.activations), seen.activations.device, strides[order], _ROWS[order]
    rows, cols = shape[row : row + 2]
    yx = torch.cartesian_prod(torch.arange(rows, device=device), torch.arange(cols, device=device)).repeat(count, 1)
    image = torch.arange(count, device=device).repeat_interleave(rows * cols)
    tokens = Tokens(image, yx, real_tokens(yx, batch.sizes[image], stride), count, stride)
    return Seen(seen.scores, seen.activations, tokens, lambda x: x.movedim((row, row + 1), (1, 2)).flatten(0, 2))
