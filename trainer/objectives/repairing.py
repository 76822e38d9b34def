"""What methods share that repair corrupted images: views before and after, the error in blocks, pictures."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit import BinnedBatch
from trainer.models.backbone import TimmEncoder
from trainer.models.output import Output
from trainer.models.reconstruction import Repairer
from trainer.objectives.corruption import CorruptionConfig, corrupt
from trainer.objectives.pictures import dense_panels
from trainer.objectives.views import ViewObjective, batched, views_of

PICTURE_MEANING = (
    "The first view: as it is, corrupted, and with its blocks as they were reconstructed. In the fourth column, black"
    " is no error, and white one of a third of the image’s range or more. Each line has its own image’s range of grey"
    " levels. Where blocks are another image’s, that one is drawn from the micro-batch: an image that drew itself has"
    " blocks that do not show in the second column."
)


@dataclass(frozen=True, slots=True)
class Damaged:
    """Views of a micro-batch before and after corruption, n views of S places after one another.

    Attributes
    ----------
    batch : BinnedBatch
        Corrupted images, (n * S, C, H, W).
    clean : Tensor
        (n * S, C, H, W), as they were.
    mask : Tensor
        bool (n * S, 1, H, W), whether a pixel lies in a block.
    """

    batch: BinnedBatch
    clean: Tensor
    mask: Tensor


def damaged(views: Sequence[BinnedBatch], encoder: TimmEncoder, config: CorruptionConfig) -> Damaged:
    """Corrupt views, in the channels of the encoder's first layer. The donors of an image are of the same view."""
    clean = [encoder.coloured(view.images) for view in views]
    found = [corrupt(own, view, config) for own, view in zip(clean, views, strict=True)]
    images, mask = torch.cat([one.images for one in found]), torch.cat([one.mask for one in found])
    return Damaged(replace(batched(views), images=images), torch.cat(clean), mask)


def absolute_error(prediction: Tensor, clean: Tensor, mask: Tensor, weight: Tensor) -> Tensor:
    """Return the absolute error in blocks, of each place's part in the micro-batch.

    The mean over the images of a micro-batch is the mean over all elements (pixels times channels) in its blocks, so
    that an image counts by how much of it was corrupted.

    Parameters
    ----------
    prediction, clean
        (n * S, C, H, W).
    mask
        bool (n * S, 1, H, W); no pixel where there is no image.
    weight
        float (S,), 0 for none.

    Returns
    -------
    Tensor
        (S,), float32 or better.
    """
    kind = torch.promote_types(prediction.dtype, torch.float32)
    off = torch.where(mask, (prediction.to(kind) - clean.to(kind)).abs(), 0.0)
    own = off.flatten(1).sum(1).view(-1, len(weight)).sum(0)
    return own * weight.sum().to(kind) / (mask.sum() * clean.shape[1]).clamp(min=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairedOutput(Output):
    """What became of a batch, with what is drawn of it: the first view.

    Parameters
    ----------
    seen, prediction
        (S, C, H, W), corrupted images and what was made of them.
    mask
        bool (S, 1, H, W), whether a pixel lies in a block.
    """

    seen: Tensor
    prediction: Tensor
    mask: Tensor


def drawn(view: BinnedBatch, output: RepairedOutput) -> npt.NDArray[np.uint8]:
    """Draw input, corrupted input, input with repaired blocks, and difference."""
    clean, made = view.images.float(), output.prediction.float()
    share = output.mask[output.weight > 0].double().mean().nan_to_num()
    return dense_panels(
        clean, output.seen, torch.where(output.mask, made, clean), view.sizes, f"corrupted {100 * share:.0f} %"
    )


class RepairObjective(ViewObjective, ABC):
    """An objective whose model repairs corrupted views: what it says and draws.

    Parameters
    ----------
    model
        What is trained.
    notes
        Sentences for the user.
    """

    def __init__(self, model: Repairer, notes: tuple[str, ...] = ()) -> None:
        super().__init__(model)
        self._encoder, self._notes = model.encoder, notes

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Objective`."""
        return self._notes

    @property
    def picture_meaning(self) -> str:
        """See `Objective`."""
        return PICTURE_MEANING

    def picture(self, batch: Any, output: RepairedOutput) -> npt.NDArray[np.uint8]:
        """Draw input, corrupted input, reconstruction and difference."""
        return drawn(views_of(batch)[0], output)
