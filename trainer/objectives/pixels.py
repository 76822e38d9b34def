"""What methods that hide squares of whole images share: which squares, which pixels are real, and the pictures."""

from abc import ABC
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from shardkit import BinnedBatch
from shardkit.errors import ArgumentError
from trainer.models.backbone import TimmEncoder
from trainer.models.base import ModelConfig
from trainer.models.masking import hashed
from trainer.models.output import Output
from trainer.objectives.base import Objective
from trainer.objectives.pictures import dense_panels
from trainer.values import require

PICTURE_MEANING = (
    "Hidden squares are grey in the second column, and the third is what the model made of {whole}. In the fourth,"
    " black is no error, and white one of a third of the image’s range or more. Each line has its own image’s range of"
    " grey levels."
)


@dataclass(frozen=True, slots=True)
class PixelOutput(Output):
    """What became of a batch of B images of H x W pixels.

    Parameters
    ----------
    prediction
        (B, C, H, W), all pixels, as the images are normalised.
    hidden
        bool (B, H, W), whether a pixel was hidden.
    """

    prediction: Tensor
    hidden: Tensor


def hidden_units(seeds: Tensor, rows: int, cols: int, count: int) -> Tensor:
    """Draw which squares of a grid are hidden, of each image by its own seed: bool (B, rows, cols).

    Parameters
    ----------
    seeds
        int64 (B,), of the plan.
    rows, cols
        The grid.
    count
        Number of squares that are hidden of each image: those whose hashes are least.
    """
    place = torch.arange(rows * cols, device=seeds.device).expand(len(seeds), -1)
    order = hashed(seeds[:, None].expand_as(place), place).argsort(dim=1, stable=True)
    hidden = torch.zeros(place.shape, dtype=torch.bool, device=seeds.device)
    return hidden.scatter(1, order[:, :count], True).view(-1, rows, cols)


def enlarged(units: Tensor, times: int) -> Tensor:
    """Give each cell of a grid times x times cells: (B, rows, cols) -> (B, times * rows, times * cols)."""
    return units.repeat_interleave(times, 1).repeat_interleave(times, 2)


def real_pixels(batch: BinnedBatch) -> Tensor:
    """Return which pixels are an image's: bool (B, H, W), none where there is no image."""
    down, across = (torch.arange(n, device=batch.sizes.device) for n in batch.images.shape[2:])
    inside = (down < batch.sizes[:, :1])[:, :, None] & (across < batch.sizes[:, 1:])[:, None, :]
    return inside & (batch.weight > 0)[:, None, None]


def timm_encoder(model: ModelConfig, method: str) -> TimmEncoder:
    """Build the encoder of a method that is for backbones of timm's.

    Raises
    ------
    ArgumentError
        For a model of another kind.
    """
    encoder: Any = model.encoder() if hasattr(model, "encoder") else None
    if not isinstance(encoder, TimmEncoder):
        kind = type(model).__name__.removesuffix("Config")
        raise ArgumentError(f"{method} is for models of timm's, which --model.name names, and not for a {kind}")
    return encoder


def check_squares(side: int, unit: int, option: str) -> None:
    """Refuse squares that do not tile an image.

    Raises
    ------
    ArgumentError
        For such squares.
    """
    require(f"objective.{option}", unit, unit >= 1 and side % unit == 0, f"a divisor of the images' side, {side}")


def drawn(batch: BinnedBatch, output: PixelOutput, whole: bool) -> npt.NDArray[np.uint8]:
    """Draw input, what was seen of it, reconstruction and difference.

    Parameters
    ----------
    batch, output
        Images, and what became of them.
    whole
        Whether the reconstruction is the prediction of all pixels; else pixels that were not hidden are as they were.
    """
    hidden, made = output.hidden[:, None], output.prediction.float().mean(1, keepdim=True)
    shown = batch.weight > 0
    share = float(output.hidden[shown].float().mean()) if bool(shown.any()) else 0.0
    return dense_panels(
        batch.images,
        batch.images.masked_fill(hidden, torch.nan),
        made if whole else torch.where(hidden, made, batch.images),
        batch.sizes,
        f"masked {100 * share:.0f} %",
    )


class PixelObjective(Objective, ABC):
    """An objective whose model hides, predicts and takes the error: what it runs and draws."""

    whole = False
    """Whether all pixels are predicted; else those that were hidden are."""

    @property
    def picture_meaning(self) -> str:
        """See `Objective`."""
        return PICTURE_MEANING.format(whole="all pixels" if self.whole else "them; other pixels are as they were")

    def run(self, model: nn.Module, batch: Any) -> PixelOutput:
        """See `Objective`."""
        out: PixelOutput = model(batch)
        return out

    def picture(self, batch: Any, output: PixelOutput) -> npt.NDArray[np.uint8]:
        """Draw input, masked input, reconstruction and difference."""
        return drawn(batch, output, self.whole)
