"""Sine-cosine positions of patches, evaluated where they lie instead of looked up.

The table of masked autoencoders: half of the channels encode the column, half the row; of each half, sines first, with
frequencies 10000**(-2i/d) (Vaswani et al. 2017; He et al. 2022, code).
"""

from typing import Literal

import torch
from torch import Tensor

from trainer.values import require

Mode = Literal["absolute", "centered", "stretch"]


def check_positions(of: str, width: int) -> None:
    """Refuse widths that rows and columns, sines and cosines cannot share evenly.

    Parameters
    ----------
    of
        What the option's name begins with: nothing, or decoder_.
    width
        Its value.

    Raises
    ------
    ArgumentError
        For such a width.
    """
    require(f"model.{of}width", width, width % 4 == 0, "a multiple of 4, for positions")


def sincos(coordinate: Tensor, width: int) -> Tensor:
    """Return sines and cosines of coordinates: (n,) -> float32 (n, width), computed in float64."""
    frequency = 10000.0 ** -(torch.arange(width // 2, device=coordinate.device, dtype=torch.float64) / (width / 2))
    angle = coordinate.double()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], 1).float()


def positions(yx: Tensor, grid: Tensor, width: int, mode: Mode, table: int = 64) -> Tensor:
    """Return the positions of patches: float32 (n, width).

    Parameters
    ----------
    yx
        (n, 2), row and column of each patch.
    grid
        (n, 2), rows and columns of patches in each patch's image.
    width
        Channels.
    mode
        absolute: the patch's row and column, so that equal distances on the detector are equal distances here.
        centered: the same counted from the image's middle. stretch: the value at the patch's relative place in a
        `table` x `table` grid, interpolated bicubically as `torch.nn.functional.interpolate` does without aligned
        corners (the thesis' way).
    table
        Side of the grid that stretch interpolates.
    """
    if mode == "stretch":
        col, row = (_stretched(yx[:, axis], grid[:, axis], width // 2, table) for axis in (1, 0))
        return torch.cat([col, row], 1)
    place = yx.double()
    if mode == "centered":
        place = place - (grid.double() - 1) / 2
    return torch.cat([sincos(place[:, 1], width // 2), sincos(place[:, 0], width // 2)], 1)


def _stretched(index: Tensor, count: Tensor, width: int, table: int) -> Tensor:
    """Interpolate `table` positions by cubic convolution (Keys 1981, a = -0.75), with borders repeated."""
    values = sincos(torch.arange(table, device=index.device), width)
    at = (index.double() + 0.5) * table / count.clamp(min=1).double() - 0.5
    first = at.floor()
    t = (at - first)[:, None]
    near = [_near(t + 1 - k) if k in (1, 2) else _far(abs(t + 1 - k)) for k in range(4)]
    taps = [values[(first.long() + k - 1).clamp(0, table - 1)].double() for k in range(4)]
    return sum(w * tap for w, tap in zip(near, taps, strict=True)).float()  # type: ignore[union-attr]


_A = -0.75


def _near(x: Tensor) -> Tensor:
    x = x.abs()
    return ((_A + 2) * x - (_A + 3)) * x * x + 1


def _far(x: Tensor) -> Tensor:
    return ((_A * x - 5 * _A) * x + 8 * _A) * x - 4 * _A
