"""A program's own change of each image, by the plan's seed of its crop, before images are laid out in a batch."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchItem
from shardkit.loader.sample_index import Detail
from shardkit.plan.crops import Crops

Augment = Callable[[Tensor, int], Tensor]
"""(float32 (1, rows, cols) on the device: an image normalised, without padding; seed, 0 to 2**64 - 1) -> the same."""


@torch.no_grad()
def change(
    augment: Augment, views: list[Crops], shown: list[BatchItem | None], images: list[Tensor], details: list[Detail]
) -> None:
    """Change the images of a micro-batch in place; what pads them stays as it is.

    Parameters
    ----------
    augment : callable
        Changes one image. What it raises is raised here, with a note of the image.
    views : list of Crops
        What each of a micro-batch's views shows of its n crops; see `MicroBatch.views`.
    shown : list of BatchItem or None
        What each of the n crops shows. A substitute is changed by the seed of the crop that it shows.
    images : list of Tensor
        float32 (1, rows, cols) of those items that are not None, padded: of the first view, then of the second.
    details : list of Detail
        What the manifest says of each crop's sample.

    Raises
    ------
    ArgumentError
        Where it returns something else than an image of the same size.
    """
    items = [item for item in shown if item is not None]
    for (crops, item), image in zip(product(views, items), images, strict=True):
        own = image[:, : crops.out_height[item.crop], : crops.out_width[item.crop]]
        try:  # it gets a copy, to change or to keep: `own` lies in memory that the next batch will have
            own.copy_(
                _checked(augment(own.clone(memory_format=torch.contiguous_format), int(crops.seed[item.crop])), own)
            )
        except Exception as error:
            error.add_note(f"This came of augment, for the image {details[item.crop].key}.")
            raise


def _checked(changed: Any, image: Tensor) -> Tensor:
    if isinstance(changed, Tensor) and changed.shape == image.shape and changed.dtype == image.dtype:
        return changed
    given = f"{changed.dtype} {tuple(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
    wanted = f"{image.dtype} {tuple(image.shape)}"
    raise ArgumentError(
        f"augment returned {given} for an image of {wanted}: return a tensor of the same shape and type"
    )
