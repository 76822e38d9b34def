"""What of each image a batch shows: level, crop, flip and output size, as a pure function of size and seed.

A crop's rectangle is given in the pixels of its level and in those of the full resolution. Crops follow the random
resized crop of Szegedy et al. 2015 as torchvision draws it: an area share and an aspect ratio, ten tries, else the
centre.
"""

import math
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div
from shardkit.plan.samples import Ints, Samples
from shardkit.plan.shuffle import Words, mix, uniform
from shardkit.plan.views import View, view_seed

Level = int | Literal["auto"]
_TRIES = 10
_AGAIN = 1  # key of the seeds of samples that an epoch shows again
_AREA, _RATIO, _TOP, _LEFT, _FLIP = range(5)  # what a sample's draws are for


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How images become crops; `shardkit.plan.base.Batching` describes the fields that are its own.

    Attributes
    ----------
    side : int, optional
        Pixels of the side of the square that a crop is resized to; None keeps the size it has.
    fit : {"crop", "pad"}
        What is shown in the square where there is no random crop: see `shardkit.plan.Resized`.
    views : tuple of View
        Several crops of each sample; `side` is then the greatest of theirs, and crop and flip are theirs.
    """

    patch: int
    content: bool
    level: Level
    crop: tuple[float, float] | None
    ratio: tuple[float, float]
    flip: float
    side: int | None = None
    fit: Literal["crop", "pad"] = "crop"
    views: tuple[View, ...] = ()

    def of(self, view: View) -> "Augmentation":
        """Return how images become crops of one kind of view."""
        return replace(self, crop=view.crop, ratio=view.ratio, flip=view.flip, side=view.side, views=())


@dataclass(frozen=True, slots=True)
class Crops:
    """What is shown of n samples, as arrays (n,) of int64 unless said otherwise.

    Attributes
    ----------
    index, row : ndarray
        Number of the sample in the plan's `Samples`, and its manifest row.
    level : ndarray
        Halvings of the image that is streamed.
    top, left, height, width : ndarray
        Rectangle that is shown, in pixels of that level.
    out_height, out_width : ndarray
        Pixels after resizing; `height` and `width` where nothing is resized.
    tokens : ndarray
        Patches of the output.
    flip : ndarray of bool
        Whether it is mirrored left to right.
    seed : ndarray of uint64
        Seed of what is random after this: masks.
    region : ndarray, (n, 4)
        The rectangle in full-resolution pixels: top, left, height, width.
    """

    index: Ints
    row: Ints
    level: Ints
    top: Ints
    left: Ints
    height: Ints
    width: Ints
    out_height: Ints
    out_width: Ints
    tokens: Ints
    flip: npt.NDArray[np.bool_]
    seed: Words
    region: Ints

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.index)

    def __deepcopy__(self, memo: object) -> "Crops":
        """Return itself: batchers are copied, and nothing writes to what they hold."""
        return self

    def take(self, at: Ints | slice) -> "Crops":
        """Choose crops by index."""
        return Crops(*(getattr(self, f.name)[at] for f in fields(self)))

    @staticmethod
    def join(parts: "list[Crops]") -> "Crops":
        """Put one after the other."""
        return Crops(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(Crops)))


def crops(samples: Samples, index: Ints, augmentation: Augmentation, key: int, turn: Ints | None = None) -> Crops:
    """Make the crops of some samples.

    Parameters
    ----------
    samples : Samples
        Those of the plan.
    index : ndarray of int64, (n,)
        Which of them.
    augmentation : Augmentation
        How images become crops.
    key : int
        64-bit key of the epoch. What is drawn depends on it, on the sample's manifest row and on its turn alone.
    turn : ndarray of int64, (n,), optional
        How often the epoch has shown each before; None where it shows every sample once.

    Returns
    -------
    Crops
        One for each of `index`.
    """
    row = samples.row(index)
    seed = _seeds(key, row, turn)
    whole = samples.regions(index, augmentation.content)
    if augmentation.level == "auto":
        kinds = [augmentation.of(view) for view in augmentation.views] or [augmentation]
        level = np.min([_covering_level(whole, kind, samples.levels) for kind in kinds], axis=0)
    else:
        level = np.full(len(index), augmentation.level, np.int64)
    if augmentation.views:
        made = _made(index, row, seed, whole, level, replace(augmentation, side=None))
        tokens = sum(view.n * ceil_div(view.side, augmentation.patch) ** 2 for view in augmentation.views)
        return replace(made, tokens=np.full(len(index), tokens, np.int64))
    return _made(index, row, seed, _shown(whole, augmentation, seed), level, augmentation)


def turns(crops: Crops, key: int, most: int) -> Ints:
    """Return how often the epoch had shown the samples of crops before: `turn`, as `crops` was given it.

    Parameters
    ----------
    crops : Crops
        Of n samples that are no repeats.
    key : int
        That of the epoch.
    most : int
        What no turn exceeds.
    """
    found = np.zeros(len(crops), np.int64)
    for turn in range(1, most + 1):
        found[_seeds(key, crops.row, np.full(len(crops), turn)) == crops.seed] = turn
    return found


def _seeds(key: int, row: Ints, turn: Ints | None) -> Words:
    seed = mix(key, row)
    if turn is None:
        return seed
    return np.where(turn > 0, mix(_AGAIN, seed + turn.astype(np.uint64)), seed)


def view_crops(crops: Crops, views: tuple[View, ...], patch: int) -> list[Crops]:
    """Make the crops of each view of some samples, from what `crops` made of these: the regions that views lie in.

    Parameters
    ----------
    crops : Crops
        Regions, levels and seeds of n samples.
    views : tuple of View
        Kinds of views.
    patch : int
        Side of a patch in pixels.

    Returns
    -------
    list of Crops
        One of n crops for each view: all those of the first `View`, then those of the second. Each view has a seed of
        its own; what is drawn depends on it and on the region alone.
    """
    found: list[Crops] = []
    for view in views:
        augmentation = Augmentation(patch, False, 0, view.crop, view.ratio, view.flip, side=view.side)
        seed = np.concatenate([view_seed(crops.seed, len(found) + i) for i in range(view.n)])
        each = crops.take(np.tile(np.arange(len(crops)), view.n))
        region = _shown(each.region, augmentation, seed)
        made = _made(each.index, each.row, seed, region, each.level, augmentation)
        found += [made.take(slice(i * len(crops), (i + 1) * len(crops))) for i in range(view.n)]
    return found


def _shown(region: Ints, augmentation: Augmentation, seed: Words) -> Ints:
    """Find what is shown of regions, in full-resolution pixels."""
    if augmentation.crop is not None:
        return _cropped(region, augmentation, seed)
    if augmentation.side is not None and augmentation.fit == "crop":
        return _central_square(region)
    return region


def _made(index: Ints, row: Ints, seed: Words, region: Ints, level: Ints, augmentation: Augmentation) -> Crops:
    """Make the crops that show these rectangles."""
    top, left, height, width = at_level(region, level)
    out_height, out_width = _resized(height, width, augmentation)
    flip = _draw(seed, _FLIP) < augmentation.flip
    tokens = ceil_div(out_height, augmentation.patch) * ceil_div(out_width, augmentation.patch)
    return Crops(index, row, level, top, left, height, width, out_height, out_width, tokens, flip, seed, region)


def _draw(seed: Words, purpose: int, attempt: int = 0) -> npt.NDArray[np.float64]:
    return uniform(purpose * _TRIES + attempt + 1, seed)


def _cropped(region: Ints, augmentation: Augmentation, seed: Words) -> Ints:
    """Draw random crops inside the regions."""
    assert augmentation.crop is not None
    top, left, height, width = region.T
    area = (height * width).astype(np.float64)
    ratios = _even(*augmentation.ratio)
    crop_h, crop_w = _central(height, width, augmentation.ratio)
    found = np.zeros(len(region), np.bool_)
    for attempt in range(_TRIES):
        share = augmentation.crop[0] + (augmentation.crop[1] - augmentation.crop[0]) * _draw(seed, _AREA, attempt)
        ratio = ratios[(_draw(seed, _RATIO, attempt) * len(ratios)).astype(np.int64)]
        w, h = np.rint(np.sqrt(area * share * ratio)), np.rint(np.sqrt(area * share / ratio))
        fits = ~found & (w >= 1) & (h >= 1) & (w <= width) & (h <= height)
        crop_h, crop_w = np.where(fits, h, crop_h), np.where(fits, w, crop_w)
        found |= fits
    crop_h, crop_w = crop_h.astype(np.int64), crop_w.astype(np.int64)
    down = np.where(found, (_draw(seed, _TOP) * (height - crop_h + 1)).astype(np.int64), (height - crop_h) // 2)
    right = np.where(found, (_draw(seed, _LEFT) * (width - crop_w + 1)).astype(np.int64), (width - crop_w) // 2)
    return np.stack([top + down, left + right, crop_h, crop_w], 1)


def _even(low: float, up: float) -> npt.NDArray[np.float64]:
    """4,096 numbers from `low` to `up` in one proportion, the same to the last bit on every machine, as exp is not."""
    numbers, proportion = np.array([low], np.float64), up / low
    for _ in range(12):
        proportion = math.sqrt(proportion)
        numbers = np.stack([numbers, numbers * proportion], 1).ravel()
    return numbers


def _central(height: Ints, width: Ints, ratio: tuple[float, float]) -> tuple[npt.NDArray[np.float64], ...]:
    """Find the largest central crop with an admitted width / height."""
    h, w = height.astype(np.float64), width.astype(np.float64)
    return np.maximum(1, np.rint(np.minimum(h, w / ratio[0]))), np.maximum(1, np.rint(np.minimum(w, h * ratio[1])))


def _central_square(region: Ints) -> Ints:
    top, left, height, width = region.T
    side = np.minimum(height, width)
    return np.stack([top + (height - side) // 2, left + (width - side) // 2, side, side], 1)


def _covering_level(region: Ints, augmentation: Augmentation, levels: int) -> Ints:
    """Find the most halvings whose smallest possible crop still has `side` pixels: nothing is enlarged by them."""
    assert augmentation.side is not None
    height, width = region[:, 2].astype(np.float64), region[:, 3].astype(np.float64)
    if augmentation.crop is not None:
        area, (low, up) = height * width * augmentation.crop[0], augmentation.ratio
        central_h, central_w = _central(region[:, 2], region[:, 3], augmentation.ratio)
        least = np.minimum(np.sqrt(area * low), np.sqrt(area / up))
        least = np.minimum(least, np.minimum(central_h, central_w))
    else:
        least = np.maximum(height, width) if augmentation.fit == "pad" else np.minimum(height, width)
    _, exponent = np.frexp(least / augmentation.side)  # exact, where log2 of a power of two may fall short of it
    return np.clip(exponent.astype(np.int64) - 1, 0, levels)


def at_level(region: Ints, level: Ints | int) -> tuple[Ints, ...]:
    """Turn full-resolution rectangles into pixels of a level: whatever they touch, at least 1 x 1.

    Parameters
    ----------
    region : ndarray of int64, (n, 4)
        Top, left, height, width in full-resolution pixels.
    level : int or ndarray of int64, (n,)
        Halvings, which round sides up.

    Returns
    -------
    tuple of ndarray
        Top, left, height and width, each int64 (n,).
    """
    top, left, height, width = region.T
    below = (1 << level) - 1
    new_top, new_left = top >> level, left >> level
    return new_top, new_left, ((top + height + below) >> level) - new_top, ((left + width + below) >> level) - new_left


def _resized(height: Ints, width: Ints, augmentation: Augmentation) -> tuple[Ints, Ints]:
    if augmentation.side is None:
        return height, width
    square = np.full(len(height), augmentation.side, np.int64)
    if augmentation.fit != "pad" or augmentation.crop is not None:
        return square, square
    longer = np.maximum(height, width)
    rows, cols = (
        np.maximum(1, np.rint(side * augmentation.side / longer)).astype(np.int64) for side in (height, width)
    )
    return rows, cols
