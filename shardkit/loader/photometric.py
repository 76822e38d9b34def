"""How the grey levels of views change, by the plan's seeds: brightness, contrast, blur, solarisation.

The formulas are those of torchvision's `ColorJitter`, `GaussianBlur` and `RandomSolarize` for images of one channel in
0..1. On a CPU images are changed one by one by NumPy, on the threads that decode (torch would start more, that spin);
on a GPU those of one `View` together. Both go through the same lines: arrays and tensors know the operations used.
"""

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from shardkit.errors import ArgumentError
from shardkit.loader.batch import BatchItem
from shardkit.loader.graph_input import CLIPPED, Normalise, Prepared
from shardkit.loader.stream.files import Threads
from shardkit.plan.crops import Crops
from shardkit.plan.views import Greys, View, greys

_REACH = 3.0  # of the greatest standard deviations that a View's blur reaches to each side
_AT_ONCE = 8  # images that a thread changes before it looks for other work

Floats = npt.NDArray[np.float64]
Images = Any
"""(n, 1, rows, cols) of float32: an ndarray, or a Tensor on a GPU."""


def changing(views: tuple[View, ...], modes: Sequence[Normalise]) -> tuple[View, ...]:
    """Return the views if grey levels of one change, else none.

    Parameters
    ----------
    views : tuple of View
        Those of a batching.
    modes : sequence of str or tuple of float
        How images are normalised.

    Raises
    ------
    ArgumentError
        For changes that need to know black and white where images are normalised without these.
    """
    without = [mode for mode in modes if not isinstance(mode, tuple) and mode not in CLIPPED]
    if without and any(view.changes_range for view in views):
        raise ArgumentError(
            f"jitter and solarise of a View need black and white, which normalise={without[0]} does not know: use"
            f" {', '.join(CLIPPED)} or (mean, std)"
        )
    return views if any(view.changes_greys for view in views) else ()


def change(
    views: Sequence[View],
    crops: Sequence[Crops],
    shown: Sequence[BatchItem | None],
    images: list[Tensor],
    prepared: Sequence[Prepared],
    threads: Threads,
) -> None:
    """Change the images of a micro-batch.

    Parameters
    ----------
    views : sequence of View
        Kinds of views.
    crops : sequence of Crops
        Those of each view, in the order of `views`: see `MicroBatch.views`.
    shown : sequence of BatchItem or None
        What each place shows. A substitute is changed by the seed of the crop that it shows.
    images : list of Tensor
        float32 (1, side, side) of those items that are not None: of the first view, then of the second. In 0..1, or
        what `prepared` turns into that. Changed in place, or replaced.
    prepared : sequence of Prepared
        What the graph was given of these items.
    threads : Threads
        Change the images of a CPU.
    """
    at = np.array([item.crop for item in shown if item is not None], np.int64)
    if not len(at):
        return
    share = np.array([image.share for image in prepared], np.float64)
    begin, jobs = 0, []
    for view in views:
        if not view.changes_greys:
            begin += view.n * len(at)
            continue
        seed = np.concatenate([crops[begin // len(at) + i].seed[at] for i in range(view.n)])
        drawn, shares = greys(view, seed), np.tile(share, (view.n, 1))
        part = slice(begin, begin + len(seed))
        begin = part.stop
        if images[part][0].device.type == "cpu":
            for first in range(0, len(seed), _AT_ONCE):
                some = slice(first, first + _AT_ONCE)
                jobs.append(threads.submit(_one_by_one, images[part][some], _take(drawn, some), shares[some], view))
        else:
            images[part] = list(changed(torch.stack(images[part]), drawn, shares, view))
    for job in jobs:
        job.result()


def _one_by_one(images: list[Tensor], drawn: Greys, share: Floats, view: View) -> None:
    for number, image in enumerate(images):
        own = slice(number, number + 1)
        changed(image.numpy()[None], _take(drawn, own), share[own], view)


def _take(drawn: Greys, at: slice) -> Greys:
    return Greys(*(getattr(drawn, f.name)[at] for f in fields(Greys)))


def changed(images: Images, drawn: Greys, share: Floats, view: View) -> Images:
    """Change images of one size, in place, and return them.

    Parameters
    ----------
    images : ndarray or Tensor of float32, (n, 1, rows, cols)
        Which.
    drawn : Greys
        How each of them changes.
    share : ndarray of float64, (n, 2)
        Scale and offset that turn the grey levels of each into shares of the range from black to white.
    view : View
        What kind of view they are.
    """
    jittered = (drawn.brightness != 1) | (drawn.contrast != 1)
    scaled = np.flatnonzero((jittered | drawn.solarise) & (share != (1.0, 0.0)).any(1))
    scale, offset = (_by_image(share[scaled, i], images) for i in range(2))
    if len(scaled):
        images[scaled] = images[scaled] * scale + offset
    for contrast_first in (False, True):
        if len(at := np.flatnonzero(jittered & (drawn.contrast_first == contrast_first))):
            images[at] = _jittered(images[at], drawn.brightness[at], drawn.contrast[at], contrast_first)
    if len(at := np.flatnonzero(drawn.sigma > 0)):
        images[at] = _blurred(images[at], drawn.sigma[at], view.sigma[1])
    if len(at := np.flatnonzero(drawn.solarise)):
        images[at] = _solarised(images[at])
    if len(scaled):
        images[scaled] = (images[scaled] - offset) / scale
    return images


def _by_image(values: Floats, images: Images) -> Images:
    """Give each image a number of its own, where the images lie."""
    numbers = values.astype(np.float32).reshape(-1, 1, 1, 1)
    return torch.from_numpy(numbers).to(images.device) if isinstance(images, Tensor) else numbers


def _jittered(images: Images, brightness: Floats, contrast: Floats, contrast_first: bool) -> Images:
    bright, contrasting = _by_image(brightness, images), _by_image(contrast, images)
    if not contrast_first:
        images = (images * bright).clip(0.0, 1.0)
    mean = images.mean((1, 2, 3), keepdims=True)
    images = (images * contrasting + mean * (1 - contrasting)).clip(0.0, 1.0)
    return (images * bright).clip(0.0, 1.0) if contrast_first else images


def _blurred(images: Images, sigma: Floats, greatest: float) -> Images:
    """Blur along columns, then rows; borders are mirrored at the middle of their pixels."""
    side = images.shape[-1]
    reach = min(math.ceil(_REACH * greatest), side - 1)
    at = np.arange(-reach, reach + 1)
    kernels = np.exp(-0.5 * (at / sigma[:, None]) ** 2)
    kernels /= kernels.sum(1, keepdims=True)
    mirrored = np.abs(np.arange(-reach, side + reach))
    mirrored = np.where(mirrored < side, mirrored, 2 * (side - 1) - mirrored)
    weights = [_by_image(kernel, images) for kernel in kernels.T]
    wide = images[..., mirrored]
    images = sum(wide[..., i : i + side] * weight for i, weight in enumerate(weights))
    high = images[..., mirrored, :]
    return sum(high[..., i : i + side, :] * weight for i, weight in enumerate(weights))


def _solarised(images: Images) -> Images:
    return images + (images >= 0.5) * (1 - 2 * images)
