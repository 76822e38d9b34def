"""Masked autoencoding: the error in predicting what was not shown. The models hide patches and take the error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
from torch import nn

from shardkit import BinnedBatch, Loader
from trainer.models.base import Batch, Model, ModelConfig
from trainer.models.output import MaskedOutput
from trainer.models.sequences import from_binned, sequences
from trainer.objectives.base import Objective
from trainer.objectives.baseline import flat_patch_error, mean_image_error
from trainer.objectives.losses import Loss
from trainer.objectives.pictures import triptychs
from trainer.values import require


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedConfig:
    """Masked autoencoding as its model describes it: what is hidden, and which error counts."""

    def build(self, model: ModelConfig, loader: Loader) -> "Masked":
        """Build the objective, with a model of random weights."""
        return Masked(model.build())


PICTURE_MEANING = (
    "Hidden patches are grey in the second column and predicted in the third. In the fourth, black is no error, and"
    " white one of a third of the image’s range or more. Each line has its own image’s range of grey levels."
)
_NORM_PIX = (
    " The model predicts patches normalised by their own mean and deviation (norm_pix), and what is drawn of a hidden"
    " patch has the true mean and deviation of that very patch back: its brightness and contrast are given, not"
    " predicted."
)


def picture_meaning(norm_pix: bool) -> str:
    """Return what is seen on pictures of a masked autoencoder, by its model's options."""
    return PICTURE_MEANING + (_NORM_PIX if norm_pix else "")


def loss_meaning(norm_pix: bool, over: Loss = "masked") -> str:
    """Return what the loss of a masked autoencoder is, by its model's options."""
    patches = "all patches, padding too" if over == "all" else "hidden patches"
    of = ", of patches normalised by their own mean and deviation" if norm_pix else ""
    return (
        f"Mean squared error over {patches}{of}, each image counting the same. It does not say how useful the features"
        " are: only a task with labels does."
    )


@final
class Masked(Objective):
    """Masked autoencoding by a model that hides patches itself: `trainer.models.mae` or `hiera`.

    Parameters
    ----------
    model
        A model whose `config` has the options mask_ratio and norm_pix, and maybe loss.

    Raises
    ------
    ArgumentError
        Where nothing is hidden, and the loss is over hidden patches.
    """

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        config: Any = model.config
        self.norm_pix: bool = config.norm_pix
        self.over: Loss = getattr(config, "loss", "masked")
        some = config.mask_ratio > 0 or self.over == "all"
        require("model.mask_ratio", config.mask_ratio, some, "above 0: the loss is over hidden patches")

    @property
    def loss_meaning(self) -> str:
        """See `Objective`."""
        return loss_meaning(self.norm_pix, self.over)

    @property
    def picture_meaning(self) -> str:
        """See `Objective`."""
        return picture_meaning(self.norm_pix)

    def run(self, model: nn.Module, batch: Batch) -> MaskedOutput:
        """See `Objective`."""
        out: MaskedOutput = model(batch)
        return out

    def picture(self, batch: Batch, output: MaskedOutput) -> npt.NDArray[np.uint8]:
        """Draw input, masked input, reconstruction and difference."""
        of = from_binned(batch, self.patch) if isinstance(batch, BinnedBatch) else sequences(batch, self.patch)
        return triptychs(of, output, self.patch, self.norm_pix)

    def baseline(self, open_loader: Callable[[], Loader], batches: int) -> dict[str, float] | None:
        """Measure the mean image's error, or that of flat patches where patches are normalised one by one."""
        if self.norm_pix:
            return {"flat_patch": flat_patch_error(open_loader(), self.patch, batches)}
        return {"mean_image": mean_image_error(open_loader(), self.patch, batches)}
