"""Maps of an image: a value for each token, brought to a finer grid whose lines are known in pixels of level 0.

Places are counted from edge to edge: pixel i of level 0 reaches from i to i + 1. Pixel i of a halved level lies on
pixel i * 2**level of level 0 (the 5/3 wavelet's low-pass), not amid the pixels that it stands for.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from shardkit import EpochPlan, PackedBatch
from trainer.models.base import Batch

Floats = npt.NDArray[np.float64]

FINE = 256
"""Cells of a fine map's longer side at most, as long as tokens are fewer: near the 224 of published protocols."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Where N values of a batch lie.

    Attributes
    ----------
    image : Tensor
        int64 (N,), place of each token's image.
    yx : Tensor
        int (N, 2), row and column in the grid of its image's tokens.
    real : Tensor
        bool (N,), whether it holds a pixel of its image.
    places : int
        Images that the batch has room for.
    stride : int
        Side of a token in pixels.
    """

    image: Tensor
    yx: Tensor
    real: Tensor
    places: int
    stride: int

    def of(self, slot: int) -> Tensor:
        """Return the numbers of an image's tokens, int64."""
        return torch.nonzero((self.image == slot) & self.real).flatten()

    def grid(self, values: Tensor, slot: int) -> Tensor:
        """Lay an image's values out: (N,) -> float32 (rows, cols), on the CPU."""
        own = self.of(slot)
        yx = self.yx[own].long().cpu()
        rows, cols = (int(side) + 1 for side in yx.max(0).values)
        laid = torch.zeros(rows, cols)
        laid[yx[:, 0], yx[:, 1]] = values[own].detach().float().cpu()
        return laid


@dataclass(frozen=True, slots=True)
class Frame:
    """Where a picture, as the model was given it, lies in its image.

    Attributes
    ----------
    top, left : float
        Its upper left corner, in pixels of level 0.
    down, across : float
        Pixels of level 0 from one of its pixels to the next.
    height, width : int
        Its pixels.
    """

    top: float
    left: float
    down: float
    across: float
    height: int
    width: int

    def lines(self, cells: tuple[int, int], side: float) -> tuple[Floats, Floats]:
        """Return the lines of a grid over the picture, which ends where the picture does.

        Parameters
        ----------
        cells
            Rows and columns.
        side
            Pixels of the picture from one line to the next.

        Returns
        -------
        tuple of ndarray
            float64 (rows + 1,) and (cols + 1,), in pixels of level 0.
        """
        rows, cols = (np.arange(count + 1) * side for count in cells)
        return (
            self.top + self.down * np.minimum(rows, self.height),
            self.left + self.across * np.minimum(cols, self.width),
        )


@dataclass(frozen=True, slots=True)
class Map:
    """A map from 0 to 1 on a grid whose lines are known.

    Attributes
    ----------
    values : ndarray
        float64 (rows, cols); all 0 where there is nothing to see.
    ys, xs : ndarray
        float64 (rows + 1,) and (cols + 1,), lines of the grid in pixels of level 0.
    """

    values: Floats
    ys: Floats
    xs: Floats


def frames(batch: Batch, plan: EpochPlan, resized: bool) -> dict[int, Frame]:
    """Return where the pictures of a batch lie, by place; places without an image have none.

    Parameters
    ----------
    batch
        Of a loader without random crops and flips.
    plan
        The loader's, of the epoch that the batch is of.
    resized
        Whether the batching resizes what it shows.
    """
    crops = plan[batch.position.step][batch.position.micro].crops
    sizes = batch.hw if isinstance(batch, PackedBatch) else batch.sizes
    found = {}
    for slot, row in enumerate(batch.rows.tolist()):
        if row < 0:
            continue
        at = int(np.flatnonzero(crops.row == row)[0])
        height, width = sizes[slot].tolist()
        if resized:  # edges of the picture are those of the full-resolution rectangle, at any level
            top, left, rows, cols = crops.region[at].tolist()
            found[slot] = Frame(top, left, rows / height, cols / width, height, width)
        else:
            step = 2.0 ** int(crops.level[at])
            top, left = ((int(corner[at]) - 0.5) * step + 0.5 for corner in (crops.top, crops.left))
            found[slot] = Frame(top, left, step, step, height, width)
    return found


def fine(grid: Tensor, stride: int, frame: Frame) -> Map:
    """Interpolate a grid of tokens, and scale it to 0..1.

    It is bilinear between the middles of tokens, then the least value is 0 and the greatest 1, as pytorch-grad-cam has
    it; the longer side gets at most 256 cells.

    Parameters
    ----------
    grid
        float (rows, cols).
    stride
        Side of a token in pixels.
    frame
        Of the picture.
    """
    factor = max(1, min(stride, FINE // max(grid.shape)))
    size = [side * factor for side in grid.shape]
    side = stride / factor
    rows, cols = (min(n, int(np.ceil(px / side))) for n, px in zip(size, (frame.height, frame.width), strict=True))
    values = F.interpolate(grid.double()[None, None], size=size, mode="bilinear", align_corners=False)[
        0, 0, :rows, :cols
    ]
    values = values - values.min()
    ys, xs = frame.lines((rows, cols), side)
    return Map((values / values.max().clamp(min=1e-300)).numpy(), ys, xs)
