"""Attention roll-out: how much of each patch reaches the output, if attention were all that moves anything.

Abnar & Zuidema 2020 (arXiv:2005.00928): A = 0.5 mean over heads + 0.5 identity for the residual, multiplied over the
blocks. Only one row of the product is wanted, so it is carried from the last block to the first as a vector, v <- v A,
and attention is computed again for some queries of one image at a time: no matrix of all tokens is ever made. For an
image of 4,096 patches and 12 blocks of width 768 in float32, inputs of the blocks take 151 MB, and a part of 512
queries of one head 8 MB; the matrices of all heads would take 9.7 GB.
"""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from shardkit.errors import ArgumentError
from trainer.explain.maps import Tokens
from trainer.models.base import Batch, Model
from trainer.models.blocks import Attention
from trainer.models.encoder import Encoder
from trainer.models.masking import draw
from trainer.models.sequences import without_padding
from trainer.models.vit import VisionTransformer

By = Literal["token", "mean"]
_QUERIES = 512


@torch.no_grad()
def rollout(encoder: Model, batch: Batch, by: By) -> tuple[Tensor, Tokens]:
    """Return each patch's share of its image's output, which all patches and the class token make up together.

    Parameters
    ----------
    encoder
        Our own vision transformer.
    batch
        Images of any size.
    by
        token: the class token's output; mean: the mean of the patches'.

    Returns
    -------
    tuple of Tensor and Tokens
        (N,), shares, and where they lie. The class token keeps what is missing to 1.

    Raises
    ------
    ArgumentError
        For any other encoder.
    """
    if not isinstance(encoder, VisionTransformer):
        raise ArgumentError(
            f"roll-out is made of our own vision transformer only, not of a {type(encoder).__name__}: use --method"
            f" {'gradcam' if isinstance(encoder, Encoder) else 'anomaly'}"
        )
    of = without_padding(batch, encoder.patch)
    inputs: list[Tensor] = []
    attentions = [module for module in encoder.blocks.modules() if isinstance(module, Attention)]
    hooks = [a.register_forward_pre_hook(lambda _, given: inputs.append(given[0])) for a in attentions]
    try:
        features = encoder.features(of)
    finally:
        for hook in hooks:
            hook.remove()
    # Where the encoder has what: it takes patches in an order of its own, behind their image's class token.
    mask = draw(of, 0.0)
    patches, places = mask.decoder[mask.patches], features.places
    starts = of.cu_seqlens[:-1].long() + torch.arange(places, device=patches.device)
    classes = mask.decoder[starts]
    share = inputs[-1].new_zeros(len(inputs[-1]))
    if by == "token":
        share[classes] = 1.0
    else:
        real = features.real
        number = torch.bincount(of.image.long()[real], minlength=places).clamp(min=1)
        share[patches[real]] = 1.0 / number[of.image.long()[real]].to(share.dtype)
    ends = [*classes.tolist(), len(patches) + places]
    spans = [(a, b) for (a, b), weight in zip(pairwise(ends), of.weight.tolist(), strict=True) if weight > 0]
    for attention, x in zip(reversed(attentions), reversed(inputs), strict=True):
        for start, end in spans:
            share[start:end] = 0.5 * share[start:end] + 0.5 * _passed(attention, x[start:end], share[start:end])
    tokens = Tokens(features.image, features.yx, features.real, places, features.stride)
    return share[patches], tokens


def _passed(attention: Attention, x: Tensor, share: Tensor) -> Tensor:
    """Return share times the mean attention of all heads: (n,) -> (n,)."""
    q, k, _ = attention.qkv(x).unflatten(-1, (3, attention.heads, -1)).unbind(1)
    found = torch.zeros_like(share)
    for head in range(attention.heads):
        keys = k[:, head].T * q.shape[-1] ** -0.5
        for at in range(0, len(x), _QUERIES):
            weights = (q[at : at + _QUERIES, head] @ keys).softmax(-1)
            found += share[at : at + _QUERIES] @ weights
    return found / attention.heads
