"""Which patches are hidden: per image, from the plan's seed, on the device, with static shapes.

Masked autoencoders keep int(n * (1 - ratio)) patches of an image with n, those of least noise (He et al. 2022,
arXiv:2111.06377, section 3 and its public code). Here all images of a batch are sorted at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.models.sequences import Sequences, bound, shortened


@dataclass(frozen=True, slots=True)
class Mask:
    """Where patches go. All shapes depend on T, S and the ratio alone.

    Attributes
    ----------
    masked : Tensor
        bool (T,), whether a patch is hidden.
    encoder : Tensor
        int64 (E,), where each place of the encoder's sequence comes from: 0..S-1 the class token of a sequence,
        S..S+T-1 a patch, S+T nothing.
    decoder : Tensor
        int64 (S + T,), likewise of the decoder's sequence: 0..E-1 an output of the encoder, E the mask token.
    patches : Tensor
        int64 (T,), place of each patch in the decoder's sequence.
    encoder_cu, decoder_cu : Tensor
        int32, where sequences begin, with filler cut into short ones.
    kept : Tensor
        int64 (S,), number of visible patches.
    encoder_longest, decoder_longest : int
        Bounds on the lengths of these sequences, the same in every batch.
    """

    masked: Tensor
    encoder: Tensor
    decoder: Tensor
    patches: Tensor
    encoder_cu: Tensor
    decoder_cu: Tensor
    kept: Tensor
    encoder_longest: int
    decoder_longest: int


def noise(of: Sequences) -> Tensor:
    """Return a hash of each patch's image's seed and its place in the image: float64 (T,) in [0, 1).

    It is the same on every device.
    """
    start = of.cu_seqlens[:-1].long()
    image = of.image.long()
    place = torch.arange(of.image.shape[0], device=of.image.device) - start[image]
    return hashed(of.seeds[image], place)


def hashed(seeds: Tensor, place: Tensor) -> Tensor:
    """Return a hash of seeds and places, the same on every device: float64 in [0, 1).

    Parameters
    ----------
    seeds
        int64.
    place
        int64 of the same shape, 0 and up where patches are drawn, below 0 for what else is.
    """
    x = seeds + (place + 1) * -7046029254386353131  # SplitMix64's golden gamma, as a signed number
    x = (x ^ _shift(x, 30)) * -4658895280553007687
    x = (x ^ _shift(x, 27)) * -7723592293110705685
    x = x ^ _shift(x, 31)
    return _shift(x, 11).double() * 2.0**-53


def _shift(x: Tensor, bits: int) -> Tensor:
    """Shift a signed 64-bit number to the right, as if it were unsigned."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def visible(of: Sequences, ratio: float) -> Tensor:
    """Return how many patches of each sequence the encoder sees: int64 (S,)."""
    return (of.lengths.double() * (1.0 - ratio)).long()  # in float64, as Python has it


def capacity(of: Sequences, ratio: float) -> int:
    """Return the length of the encoder's sequence: all class tokens, and the most patches that can be visible."""
    return int(of.image.shape[0] * (1.0 - ratio)) + of.weight.shape[0]


def cuts(of: Sequences, ratio: float) -> tuple[Tensor, Tensor]:
    """Return where the sequences begin that attention runs on, of the encoder and of the decoder: int32 each.

    Class tokens are included, and filler is cut into short sequences. No patch needs to be drawn for it.
    """
    tokens, count, room = of.image.shape[0], of.weight.shape[0], capacity(of, ratio)
    own = torch.cumsum(visible(of, ratio) + 1, 0)
    ends = own.new_zeros(1), own, own.new_full((1,), room)
    whole = of.cu_seqlens.long() + torch.arange(count + 1, device=own.device)
    encoder, decoder = shortened(torch.cat(ends), of.weight, room), shortened(whole, of.weight, tokens + count)
    return encoder.int(), decoder.int()


def bounds(of: Sequences, ratio: float) -> tuple[int, int]:
    """Return bounds on the lengths of the sequences of `cuts`, known without looking at a batch's tensors."""
    longest, filler = (int(n * (1.0 - ratio)) + 1 for n in (of.longest, of.filler))  # rounded as `visible` does
    left = of.weight.shape[0]  # what rounding leaves of `capacity`: less than a patch of each sequence
    return bound(longest, max(filler, left)), bound(of.longest + 1, of.filler + 1)


def draw(of: Sequences, ratio: float, drawn: Tensor | None = None) -> Mask:
    """Draw the mask of a batch.

    Parameters
    ----------
    of
        The batch.
    ratio
        Share of an image's patches that is hidden.
    drawn
        float64 (T,) in [0, 1), instead of `noise`: the patches of least noise stay visible.
    """
    tokens, count, device = of.image.shape[0], of.weight.shape[0], of.image.device
    image, cu = of.image.long(), of.cu_seqlens.long()
    kept, room = visible(of, ratio), capacity(of, ratio)
    order = torch.argsort(image + (noise(of) if drawn is None else drawn), stable=True)
    # Sorting leaves every image where it is and orders its patches by noise.
    rank = torch.arange(tokens, device=device) - cu[image]
    shown = rank < kept[image]

    starts = torch.cumsum(kept + 1, 0) - (kept + 1)
    target = torch.where(shown, starts[image] + 1 + rank, room)
    encoder = torch.full((room + 1,), count + tokens, dtype=torch.int64, device=device)
    encoder = encoder.scatter(0, target, count + order)[:room].scatter(0, starts, torch.arange(count, device=device))

    place = torch.empty_like(order).scatter(0, order, torch.where(shown, target, room))
    patches = torch.arange(tokens, device=device) + image + 1
    decoder = torch.empty(count + tokens, dtype=torch.int64, device=device)
    decoder = decoder.scatter(0, patches, place).scatter(0, cu[:-1] + torch.arange(count, device=device), starts)
    encoder_cu, decoder_cu = cuts(of, ratio)
    encoder_longest, decoder_longest = bounds(of, ratio)
    return Mask(
        masked=place == room,
        encoder=encoder,
        decoder=decoder,
        patches=patches,
        encoder_cu=encoder_cu,
        decoder_cu=decoder_cu,
        kept=kept,
        encoder_longest=encoder_longest,
        decoder_longest=decoder_longest,
    )
