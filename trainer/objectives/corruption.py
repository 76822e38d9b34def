"""Images whose blocks are noise, zeros or another image's pixels: drawn from each image's seed, after normalisation.

Two ways, one an image: blocks of a fill, or blocks of another image of the micro-batch (Atito et al. 2022, GMML,
arXiv:2205.14986; Atito et al. 2021, SiT, arXiv:2104.03602).
"""

from dataclasses import dataclass
from random import Random
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit import BinnedBatch, Loader
from trainer.augment.draws import draws
from trainer.models.masking import hashed
from trainer.values import require

_NOISE = -(1 << 40)  # below what other draws of an image's seed take: see `hashed`


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionConfig:
    """How images are corrupted.

    Parameters
    ----------
    fill
        What blocks hold: noise of mean 0 and deviation 1, or zeros.
    cover
        Least and greatest share of an image that they cover; the share of each image is drawn evenly.
    replace
        Chance that, in place of them, an image has blocks with the pixels of a random image of its micro-batch.
    replaced
        Share of an image that those cover.
    largest
        Sides of blocks are below this share of the image's.
    align
        Sides and places of blocks are multiples of this, in pixels.
    """

    fill: Literal["noise", "zeros"] = "noise"
    cover: tuple[float, float] = (0.5, 0.75)
    replace: float = 0.5
    replaced: float = 0.3
    largest: float = 0.3
    align: int = 1

    def __post_init__(self) -> None:
        """Refuse values by which nothing, or not all that is asked for, can be covered."""
        low, high = self.cover
        own = "objective.corruption."
        require(f"{own}cover", self.cover, 0 < low <= high < 1, "above 0, below 1 and ascending")
        require(f"{own}replace", self.replace, 0 <= self.replace <= 1, "0 to 1")
        require(f"{own}replaced", self.replaced, 0 < self.replaced < 1, "above 0, and below 1")
        require(f"{own}largest", self.largest, 0 < self.largest <= 1, "above 0, and at most 1")
        require(f"{own}align", self.align, self.align >= 1, "1 or more")

    def notes(self, loader: Loader) -> tuple[str, ...]:
        """Say where grey levels are not those that noise and zeros are meant for."""
        other = sorted({how for how in loader.normalised.values() if isinstance(how, str) and how != "zscore"})
        if not other:
            return ()
        said = (
            f"{self.fill} in place of pixels are for grey levels of mean 0 and deviation 1, and these are normalised by"
            f" {', '.join(other)}: give --loader.normalise the dataset's mean,deviation"
        )
        return (said,)


@dataclass(frozen=True, slots=True)
class Corrupted:
    """Corrupted images.

    Attributes
    ----------
    images : Tensor
        (B, C, H, W), as they were outside of blocks.
    mask : Tensor
        bool (B, 1, H, W), whether a pixel lies in a block, all channels of it. An image that is its own donor has
        blocks, too, as in the published code. No pixel where there is no image.
    """

    images: Tensor
    mask: Tensor


def corrupt(images: Tensor, view: BinnedBatch, config: CorruptionConfig) -> Corrupted:
    """Corrupt the images of a micro-batch. Blocks are drawn on the CPU, by the seeds that it knows of.

    Parameters
    ----------
    images
        (B, C, H, W), normalised.
    view
        Whose images they are: all is drawn from its seeds, and a place without an image is no donor.
    config
        How.
    """
    height, width = images.shape[2:]
    slots = view.slots()
    donors, numbers = np.flatnonzero(slots.there).tolist(), slots.seeds.tolist()
    masks = np.zeros((len(images), 1, height, width), np.bool_)
    source = np.full(len(images), -1)  # the place of each image's donor; -1 for the fill
    for place in donors:
        rng = draws(numbers[place], "corruption")
        share = rng.uniform(*config.cover)
        if rng.random() < config.replace:
            share, source[place] = config.replaced, rng.choice(donors)
        masks[place, 0] = blocks(rng, height, width, share, config)
    mask, donor = view.send(masks), view.send(source)
    fill = images.new_zeros(()) if config.fill == "zeros" else noise(view.seeds, images)
    other = torch.where(donor[:, None, None, None] < 0, fill, images[donor.clamp(min=0)])
    return Corrupted(torch.where(mask, other, images), mask)


def blocks(rng: Random, height: int, width: int, share: float, config: CorruptionConfig) -> npt.NDArray[np.bool_]:
    """Paint rectangles until they cover a share of an image; what is painted twice counts once: bool (height, width).

    Upper left corners lie anywhere, and what reaches over the border is cut off: so the lower and the right rim are
    covered more than the upper and the left one, as in the published code.
    """
    mask, covered, step = np.zeros((height, width), np.bool_), 0, config.align
    while covered < share * height * width:
        row, col = (rng.randrange(max(1, side - step + 1)) // step * step for side in (height, width))
        rows, cols = (_side(rng, side, config) for side in (height, width))
        block = mask[row : row + rows, col : col + cols]
        covered += block.size - int(np.count_nonzero(block))
        block[...] = True
    return mask


def _side(rng: Random, of: int, config: CorruptionConfig) -> int:
    least = config.align
    return max(1, round(rng.randrange(least, max(least + 1, int(config.largest * of))) / least)) * least


def noise(seeds: Tensor, like: Tensor) -> Tensor:
    """Return noise of mean 0 and deviation 1 by each image's seed, the same on every device (Box and Muller 1958).

    Parameters
    ----------
    seeds
        int64 (B,).
    like
        (B, C, H, W), whose shape and dtype it has; channels have noise of their own.
    """
    place = _NOISE - 2 * torch.arange(like[0].numel(), device=like.device).view(1, *like.shape[1:])
    own = seeds.view(-1, 1, 1, 1)
    radius = (-2 * torch.log1p(-hashed(own, place))).sqrt_()
    return radius.mul_(torch.cos(2 * torch.pi * hashed(own, place - 1))).to(like.dtype)
