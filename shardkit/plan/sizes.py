"""Sizes of crops for all samples at once: which fit no micro-batch, how large they get, what bins are made from."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.plan.base import Batching
from shardkit.plan.crops import Augmentation, at_level
from shardkit.plan.samples import Samples

_CHUNK = 1 << 20  # samples looked at together
_NEAR = 1 << 14  # the same, where nothing is kept of them: twice as fast, in a core's cache


def check_sizes(batching: Batching, samples: Samples, key_of: Callable[[int], str]) -> None:
    """Refuse images that no micro-batch can hold, before any of them comes up. Looks at each once.

    Random crops may make images fit, so that batchings with them are left to the plan.

    Parameters
    ----------
    batching : Batching
        What images have to fit.
    samples : Samples
        Those of the plan.
    key_of : callable
        Gives the key of a manifest row.

    Raises
    ------
    ArgumentError
        Names the largest image that does not fit, by its key, and what would hold it.
    """
    name = batching.size_option
    if batching.crop is not None or name is None:
        return
    height, width = uncropped(samples, batching.content, int(batching.level))
    limit, needed = getattr(batching, name), batching.size_needed(height.astype(np.int64), width.astype(np.int64))
    at = int(needed.argmax())
    if needed[at] > limit:
        key = key_of(int(samples.row(np.array([at]))[0]))
        over, more = int((needed > limit).sum()), ", a larger patch" if name == "tokens" else ""
        raise ArgumentError(
            f"{over:,} of {len(samples):,} images do not fit {name}={limit}, the largest being {key} with"
            f" {height[at]} x {width[at]} pixels: give {name}={needed[at]}{more} or a higher level, or use resized"
        )


def uncropped(samples: Samples, content: bool, level: int) -> npt.NDArray[np.integer]:
    """Return the sizes that crops have where nothing is cropped.

    Parameters
    ----------
    samples : Samples
        Those of the plan.
    content : bool
        Whether only the content box is shown.
    level : int
        Halvings.

    Returns
    -------
    ndarray, (2, n)
        Heights and widths in pixels, in the type of `samples.height`.
    """
    parts = []
    for start in range(0, len(samples), _CHUNK):
        index = np.arange(start, min(start + _CHUNK, len(samples)))
        _, _, height, width = at_level(samples.regions(index, content), level)
        parts.append(np.stack([height, width]).astype(samples.height.dtype))
    return np.concatenate(parts, 1)


def most_tokens(samples: Samples, augmentation: Augmentation) -> int:
    """Return a bound on the tokens of a crop, the same in every epoch. Looks at each sample once: 1 s for 10**8.

    A random crop lies inside its image, and so has no more tokens.

    Parameters
    ----------
    samples : Samples
        Those of the plan.
    augmentation : Augmentation
        How images become crops.
    """
    patch, content, side = augmentation.patch, augmentation.content, augmentation.side
    if side is not None:
        return int(ceil_div(side, patch) ** 2)
    most = 0
    for start in range(0, len(samples), _NEAR):
        index = np.arange(start, min(start + _NEAR, len(samples)))
        _, _, height, width = at_level(samples.regions(index, content), int(augmentation.level))
        most = max(most, int((ceil_div(height, patch) * ceil_div(width, patch)).max()))
    return most
