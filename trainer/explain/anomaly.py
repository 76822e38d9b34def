"""Anomaly maps: where a masked autoencoder's reconstruction differs from what is there.

Every round draws a random order of an image's patches and cuts as many hidden stretches out of it as cover it, evenly
spaced: with ceil(1 / ratio) masks each patch is hidden at least once, by construction. Each mask hides as many patches
as in training. Only errors of hidden patches count, and each patch has the mean over the masks that hid it.

A model with norm_pix predicts patches normalised by their own mean and deviation. These are given back to it from the
image, so that its errors are in grey levels, too; an error in a whole patch's brightness or contrast does not show.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.explain.maps import Tokens
from trainer.models.base import Batch, Model
from trainer.models.encoder import real_tokens
from trainer.models.hiera import HieraMae
from trainer.models.mae import Mae
from trainer.models.masking import draw, noise
from trainer.models.sequences import Sequences, from_binned, sequences, valid_pixels
from trainer.objectives.losses import moments, targets

_ROUND, _WORD = 0x5851F42D4C957F2D, 1 << 64  # an odd step between the seeds of rounds, which are 64-bit words


@dataclass(frozen=True, slots=True)
class Anomaly:
    """Errors of T patches of p x p pixels, means over the masks that hid each; 0 where there is no image.

    Attributes
    ----------
    pixels : Tensor
        (T, p * p), absolute differences in the grey levels that the model was given; 0 in padding.
    patches : Tensor
        (T,), their means over real pixels.
    losses : Tensor
        (T,), mean squared errors over real pixels, of what the model predicts: normalised patches with norm_pix.
    made : Tensor
        (T, p * p), the mean reconstruction in grey levels.
    times : Tensor
        int64 (T,), how many masks hid a patch: at least 1.
    tokens : Tokens
        Where patches lie.
    """

    pixels: Tensor
    patches: Tensor
    losses: Tensor
    made: Tensor
    times: Tensor
    tokens: Tokens


def masks_a_round(ratio: float) -> int:
    """Return how many masks hide each patch at least once, where each hides this share of them."""
    return math.ceil(1 / ratio - 1e-9)


def drawn(of: Sequences, ratio: float, number: int) -> Tensor:
    """Return the noise of a mask, in place of the plan's: float64 (T,) in (0, 1), see `trainer.models.masking.draw`.

    Parameters
    ----------
    of
        Patches, or mask units.
    ratio
        Share of them that is hidden.
    number
        Of the mask. Those of one round, `masks_a_round(ratio)` of them, hide everything.
    """
    a_round = masks_a_round(ratio)
    turn, part = divmod(number, a_round)
    seeds = of.seeds + ((turn * _ROUND + _WORD // 2) % _WORD - _WORD // 2)
    image, start, length = of.image.long(), of.cu_seqlens[:-1].long(), of.lengths
    order = torch.argsort(image + noise(replace(of, seeds=seeds)), stable=True)
    place = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device)) - start[image]
    count = length[image]
    offset = (place - part * count // a_round) % count  # the first ones are hidden: those of most noise
    return 1 - (offset.double() + 0.5) / count


@torch.no_grad()
def anomaly(model: Model, batch: Batch, masks: int) -> Anomaly:
    """Measure the errors of a batch.

    Parameters
    ----------
    model
        A masked autoencoder, in evaluation mode.
    batch
        Images; masks follow its seeds.
    masks
        How many, at least; whole rounds are run.

    Raises
    ------
    ArgumentError
        For a model without a decoder, or one that hides nothing.
    """
    if not isinstance(model, Mae | HieraMae):
        raise ArgumentError("anomaly maps need a run of a masked autoencoder, with its decoder: name a run of pretrain")
    config = model.config
    if config.mask_ratio <= 0:
        raise ArgumentError("the run's --model.mask-ratio is 0: it hides nothing that could be reconstructed")
    if isinstance(model, HieraMae):
        assert isinstance(batch, BinnedBatch)
    of = from_binned(batch, model.patch) if isinstance(batch, BinnedBatch) else sequences(batch, model.patch)
    target, valid = of.patches.float(), valid_pixels(of, model.patch)
    wanted, real = targets(of, config.norm_pix), valid.sum(-1).clamp(min=1)
    mean, deviation = moments(target, valid) if config.norm_pix else (torch.zeros(()), torch.ones(()))
    pixels, made = torch.zeros_like(target), torch.zeros_like(target)
    losses, times = target.new_zeros(len(target)), torch.zeros(len(target), dtype=torch.int64, device=target.device)
    a_round = masks_a_round(config.mask_ratio)
    for number in range(-(-max(masks, 1) // a_round) * a_round):
        prediction, hidden = _predicted(model, batch, of, number)
        grey = prediction * deviation + mean
        pixels += (grey - target).abs() * valid * hidden[:, None]
        made += grey * hidden[:, None]
        losses += ((prediction - wanted).square() * valid).sum(-1) / real * hidden
        times += hidden
    often = times.clamp(min=1)
    pixels, made = pixels / often[:, None], made / often[:, None]
    image = of.image.long()
    tokens = Tokens(image, of.yx, real_tokens(of.yx, of.hw[image], model.patch), len(of.weight), model.patch)
    return Anomaly(pixels, pixels.sum(-1) / real, losses / often, made, times, tokens)


def _predicted(model: Mae | HieraMae, batch: Batch, of: Sequences, number: int) -> tuple[Tensor, Tensor]:
    """Return what is predicted of all patches, float32 (T, p * p), and which were hidden, bool (T,)."""
    ratio = model.config.mask_ratio
    if isinstance(model, Mae):
        out = model(of, drawn(of, ratio, number))
        return out.prediction.float(), out.masked
    assert isinstance(batch, BinnedBatch)
    units = from_binned(batch, model.unit)  # Hiera hides whole mask units
    masked = draw(units, ratio, drawn(units, ratio, number)).masked
    visible = ~masked.view(len(batch.weight), -1)
    prediction = model.decode(model.encode(batch.images, visible), visible, of)
    within = model.unit // model.patch
    hidden = masked.view(-1, model.rows, model.rows)
    hidden = hidden.repeat_interleave(within, 1).repeat_interleave(within, 2)
    return prediction.float(), hidden.flatten()
