"""What the graph is given for each image: pixels, the part that is shown, and how grey levels are normalised."""

from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from shardkit.errors import ArgumentError
from shardkit.loader.sample_index import Detail
from shardkit.plan.crops import Crops
from shardkit.plan.shapes import MicroBatch

Normalise = Literal["none", "percentile", "minmax", "fullscale", "zscore"] | tuple[float, float]
Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
CLIPPED = ("percentile", "minmax", "fullscale")
"""Modes whose output is cut off at 0 and 1."""


def check_normalise(mode: str | tuple[float, float]) -> Normalise:
    """Return a way to normalise, or refuse one that is unknown.

    Raises
    ------
    ArgumentError
        Names those that there are.
    """
    if not isinstance(mode, tuple) and mode not in (*CLIPPED, "none", "zscore"):
        raise ArgumentError(f"normalise={mode!r} is unknown: none, {', '.join(CLIPPED)}, zscore, or (mean, std)")
    return cast(Normalise, mode)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One image on its way into the graph.

    Attributes
    ----------
    data : ndarray
        Encoded bytes, uint8 (bytes,), or pixels, uint16 (rows, cols).
    top : int
        Greatest grey level of its bit depth.
    start, shape : tuple of int
        First row and column of the rectangle that is shown, and its rows and columns.
    roi_start, roi_end : tuple of float
        The same where images are resized: edges between pixels, in fractions of them.
    size : tuple of int
        Rows and columns that the image is resized to.
    pad : tuple of int
        Rows and columns that it is padded to, at the bottom and right.
    flip : bool
        Whether it is mirrored left to right.
    mean, std : float
        Output is (grey level - mean) / std.
    clip : bool
        Whether that is cut off at 0 and 1.
    share : tuple of float
        Scale and offset that turn the output into shares of the range from black to white.
    more : tuple of Prepared
        Further views of the same image.
    """

    data: Pixels
    top: int
    start: tuple[int, int]
    shape: tuple[int, int]
    roi_start: tuple[float, float]
    roi_end: tuple[float, float]
    size: tuple[int, int]
    pad: tuple[int, int]
    flip: bool
    mean: float
    std: float
    clip: bool = False
    share: tuple[float, float] = (1.0, 0.0)
    more: tuple["Prepared", ...] = ()

    @property
    def views(self) -> tuple["Prepared", ...]:
        """All views of the image, the first one being itself."""
        return (self, *self.more)


def roi(region: tuple[int, int, int, int], level: int) -> tuple[tuple[float, float], tuple[float, float]]:
    """Turn a full-resolution rectangle into edges between a level's pixels.

    Sample i of the 5/3 low-pass band lies on full-resolution sample i * 2**level (15444-1 Annex F), not amid the
    2**level that it stands for; without this, every halving would move the picture by half a pixel.

    Parameters
    ----------
    region : tuple of int
        Top, left, rows, cols in full-resolution pixels.
    level : int
        Halvings.

    Returns
    -------
    start, end : tuple of float
        Row and column, in pixels of the level.
    """
    top, left, rows, cols = region
    start, end = ((top, left), (top + rows, left + cols))
    scale = 2.0**-level
    first, last = (tuple((side - 0.5) * scale + 0.5 for side in corner) for corner in (start, end))
    return (first[0], first[1]), (last[0], last[1])


def bounds(
    mode: Normalise, bits: int, low: float, high: float, percentiles: tuple[float, float], moments: tuple[float, float]
) -> tuple[float, float]:
    """Find mean and std such that (x - mean) / std is the normalised image.

    The image's statistics are those of what is neither border nor padding, so that they hold with and without the
    content box.

    Parameters
    ----------
    mode : str or tuple of float
        How to normalise; a pair is a dataset's mean and standard deviation, as shares of 2**bits - 1.
    bits : int
        Bit depth of the image.
    low, high : float
        Least and greatest grey level.
    percentiles : tuple of float
        0.5th and 99.5th percentile.
    moments : tuple of float
        Mean and standard deviation.
    """
    top = float((1 << bits) - 1)
    if isinstance(mode, tuple):
        return mode[0] * top, max(mode[1] * top, 1e-6)
    if mode == "none":
        return 0.0, 1.0
    if mode == "fullscale":
        return 0.0, top
    if mode == "zscore":
        return moments[0], max(moments[1], 1e-6)
    first, last = (low, high) if mode == "minmax" else percentiles
    return first, max(last - first, 1.0)


def prepared(
    pixels: Pixels,
    micro: MicroBatch,
    at: int,
    detail: Detail,
    bits: int,
    mode: Normalise,
    views: list[Crops] | None = None,
) -> Prepared:
    """Gather what the graph needs for one sample of a micro-batch.

    Parameters
    ----------
    pixels : ndarray
        Encoded bytes, uint8 (bytes,), or pixels of the level, uint16 (rows, cols).
    micro : MicroBatch
        What the plan says.
    at : int
        Index of the sample.
    detail : Detail
        What the manifest says of the sample.
    bits : int
        Bit depth of the sample.
    mode : str or tuple of float
        How to normalise.
    views : list of Crops, optional
        What `micro.views()` gives, where that is known.
    """
    number = detail.number
    mean, std = bounds(
        mode,
        bits,
        number("min"),
        number("max"),
        (number("p0_5"), number("p99_5")),
        (number("mean"), number("std")),
    )
    share = (mode[1], mode[0]) if isinstance(mode, tuple) else (1.0, 0.0)
    views = micro.views() if views is None else views
    scales = (mean, std, mode in CLIPPED, share)
    first, *more = (_view(pixels, micro, crops, at, (1 << bits) - 1, scales) for crops in views)
    return replace(first, more=tuple(more)) if more else first


def _view(
    pixels: Pixels,
    micro: MicroBatch,
    crops: Crops,
    at: int,
    top: int,
    scales: tuple[float, float, bool, tuple[float, float]],
) -> Prepared:
    size = (int(crops.out_height[at]), int(crops.out_width[at]))
    region = crops.region[at].tolist()
    start, end = roi((region[0], region[1], region[2], region[3]), int(crops.level[at]))
    return Prepared(
        data=pixels,
        top=top,
        start=(int(crops.top[at]), int(crops.left[at])),
        shape=(int(crops.height[at]), int(crops.width[at])),
        roi_start=start,
        roi_end=end,
        size=size,
        pad=micro.shape.padded_size(*size, micro.patch),
        flip=bool(crops.flip[at]),
        mean=scales[0],
        std=scales[1],
        clip=scales[2],
        share=scales[3],
    )
