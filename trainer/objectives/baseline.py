"""What a model has to beat: the error of predicting the mean image, or each patch's own mean."""

from collections.abc import Iterator

import torch
from torch import Tensor

from shardkit import Loader
from trainer.models.sequences import Sequences, sequences, valid_pixels
from trainer.objectives.losses import losses

_CELLS = 32  # of the mean image, along each side


@torch.no_grad()
def mean_image_error(loader: Loader, patch: int, batches: int) -> float:
    """Return the mean squared error of the best mean image, each image counting the same.

    The mean image has 32 x 32 cells that stretch over every image; the best value of a cell is the mean of what lies
    in it. It is fitted and judged on the same images, so no mean image does better.

    Parameters
    ----------
    loader
        Whose first micro-batches are measured.
    patch
        Side of a token in pixels.
    batches
        Number of micro-batches.
    """
    sums = torch.zeros(3, _CELLS**2, dtype=torch.float64, device=loader.device)  # weight, values, squares by cell
    for of in _first(loader, patch, batches):
        sums += _cells(of, patch)
    weight, value, square = sums
    seen = weight > 0
    return float((square[seen] - value[seen] ** 2 / weight[seen]).sum() / weight.sum())


@torch.no_grad()
def flat_patch_error(loader: Loader, patch: int, batches: int) -> float:
    """Return the error of predicting that every patch has one grey level, where patches are normalised one by one.

    It is close to 1, less what patches have that are flat already.

    Parameters
    ----------
    loader
        Whose first micro-batches are measured.
    patch
        Side of a token in pixels.
    batches
        Number of micro-batches.
    """
    errors, images = 0.0, 0.0
    for of in _first(loader, patch, batches):
        everything = torch.ones_like(of.image, dtype=torch.bool)
        found = losses(torch.zeros_like(of.patches), of, everything, patch, norm_pix=True)
        errors, images = errors + float((found * of.weight).sum()), images + float(of.weight.sum())
    return errors / images


def _first(loader: Loader, patch: int, batches: int) -> Iterator[Sequences]:
    """Give the first micro-batches; with the last one the loader's iterator is dropped, which ends its threads."""
    for _, batch in zip(range(batches), loader, strict=False):
        yield sequences(batch, patch)


def _cells(of: Sequences, patch: int) -> Tensor:
    """Return shares of pixels, values and squares by cell: float64 (3, cells); each image weighs one."""
    valid, image = valid_pixels(of, patch), of.image.long()
    inside = torch.arange(patch, device=valid.device)
    limits = of.hw.long()[image].clamp(min=1)
    rows = (of.yx[:, :1] * patch + inside) * _CELLS // limits[:, :1]
    cols = (of.yx[:, 1:] * patch + inside) * _CELLS // limits[:, 1:]
    cell = (rows[:, :, None] * _CELLS + cols[:, None, :]).flatten(1)[valid]
    pixels = of.hw.double().prod(1).clamp(min=1)
    share = (of.weight / pixels)[image][:, None].expand_as(valid)[valid]
    values = of.patches.double()[valid]
    out = torch.zeros(3, _CELLS**2, dtype=torch.float64, device=valid.device)
    return out.index_add(1, cell, torch.stack([share, share * values, share * values**2]))
