"""Chooses the bins of a dataset: as few tokens as possible for its images' sizes, or those that a user names.

All of it is exact integer arithmetic on the histogram of patch grids, so results depend neither on the order of the
images nor on the machine. NumPy only; the one thing read is the bins file that `parse` may be asked for.
"""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bin_search import COARSE, FINE, FINE_SWEEPS, Candidates, descend, exchange, search
from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.dataset.patch_grids import check_positive, check_sizes, count_grids
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError

IMAGES_PER_BIN = 8  # below this mean, bins are too rare to fill batches of their own


def optimise(heights: npt.ArrayLike, widths: npt.ArrayLike, k: int, patch: int, max_side: int) -> Bins:
    """Find at most `k` rectangles that keep the tokens low which images are padded to.

    So that bins hold 8 images on average, k is first lowered to max(1, min(k, n // 8)). One of the k is always the
    square of ceil(max_side / patch) patches: nothing smaller holds an image of max_side x max_side. No other bin is
    empty.

    Greedy selection, then exchange until no bin can be replaced with a gain, then escapes from that optimum: half as
    many bins again, or twice as many, are added and the least useful removed. The result is a local optimum, never
    worse than its greedy start; on the published sizes (k = 16, 36, 64) longer searches gain under 0.05 points.

    Only occupied rows and columns of the patch grid can be useful edges. Above 96 of either, the search runs on 96
    evenly spaced ones and a short last exchange on up to 192, which are all there are for 3072 pixels at patch 16.

    Parameters
    ----------
    heights, widths : array_like of int
        Sides of the images in pixels, of shape (n,).
    k : int
        Most bins.
    patch : int
        Side of a patch in pixels.
    max_side : int
        Largest side of an image in pixels.

    Returns
    -------
    Bins
        The bins.

    Raises
    ------
    ArgumentError
        An image is larger than `max_side`.
    """
    check_positive(k=k, patch=patch, max_side=max_side)
    height, width = check_sizes(heights, widths)
    histogram = count_grids(height, width, patch, max_side)
    grid = Candidates.of(histogram, COARSE)
    chosen = search(grid, max(1, min(k, len(height) // IMAGES_PER_BIN)))
    if COARSE in grid.area.shape:
        fine = Candidates.of(histogram, FINE)
        rows = np.searchsorted(fine.rows, grid.rows).tolist()
        cols = np.searchsorted(fine.cols, grid.cols).tolist()
        grid, chosen = fine, exchange(fine, [(rows[r], cols[c]) for r, c in chosen], FINE_SWEEPS)
    found = sorted({Bin(int(grid.rows[r]) * patch, int(grid.cols[c]) * patch) for r, c in chosen})
    # Once nothing is left to save, the search may carry bins that later ones have emptied.
    counts = Bins(tuple(found), patch).account(height, width).counts
    return Bins(tuple(b for b, n in zip(found, counts, strict=True) if n or b == found[-1]), patch)


def separable(heights: npt.ArrayLike, widths: npt.ArrayLike, rows: int, cols: int, patch: int) -> Bins:
    """Find the best grid of the thesis's kind, to compare `optimise` with: all pairs of some heights and some widths.

    The largest height and width are covered and no more. Coordinate descent: given one axis, dynamic programming finds
    the other's cutoffs exactly; started from either axis.

    Parameters
    ----------
    heights, widths : array_like of int
        Sides of the images in pixels, of shape (n,), n >= 1.
    rows, cols : int
        Most heights, and most widths.
    patch : int
        Side of a patch in pixels.

    Returns
    -------
    Bins
        The bins.

    Raises
    ------
    ArgumentError
        There are no images.
    """
    check_positive(rows=rows, cols=cols, patch=patch)
    height, width = check_sizes(heights, widths)
    if not len(height):
        raise ArgumentError("a separable grid is fitted to images and got none: give at least one size.")
    tallest, widest = int(height.max()), int(width.max())
    histogram = count_grids(height, width, patch, max(tallest, widest))
    grid = Candidates.of(histogram[: ceil_div(tallest, patch), : ceil_div(widest, patch)], None)
    total, down, across = descend(grid.images, grid.rows, grid.cols, rows, cols)
    other, across_too, down_too = descend(grid.images.T, grid.cols, grid.rows, cols, rows)
    if other < total:
        down, across = down_too, across_too
    return Bins(tuple(Bin(h * patch, w * patch) for h in down for w in across), patch)


def parse(text: str, heights: npt.ArrayLike, widths: npt.ArrayLike, patch: int, max_side: int) -> Bins:
    """Make the bins that a command-line argument asks for.

    Parameters
    ----------
    text : str
        `auto:K` optimises K bins for these sizes, `auto` means `auto:36` (as many as the thesis has), `thesis` is the
        published grid, and a path ending in `.json` names a file with a list of [height, width].
    heights, widths : array_like of int
        Sides of the images in pixels, of shape (n,).
    patch : int
        Side of a patch in pixels.
    max_side : int
        Largest side that is admitted, in pixels.

    Returns
    -------
    Bins
        The bins.

    Raises
    ------
    ArgumentError
        The text means nothing, its file cannot be used, or the bins leave an admissible size without a bin.
    """
    check_positive(patch=patch, max_side=max_side)
    word, _, count = ("auto:36" if text == "auto" else text).partition(":")
    if word == "auto":
        if not (count.isascii() and count.isdigit() and int(count)):
            raise ArgumentError(f"bins '{text}' name no number of bins above 0: write for example auto:36.")
        return optimise(heights, widths, int(count), patch, max_side)
    if text != "thesis" and not text.endswith(".json"):
        raise ArgumentError(f"bins '{text}' are unknown: use auto, auto:K, thesis or the path of a .json file.")
    try:
        bins = Bins(THESIS, patch) if text == "thesis" else Bins.from_json(read_json(Path(text)), patch)
    except ArgumentError as error:
        raise ArgumentError(f"bins '{text}' cannot be used: {error}") from error
    if not any(min(b.height, b.width) >= max_side for b in bins.bins):
        needed = ceil_div(max_side, patch) * patch
        raise ArgumentError(
            f"bins '{text}' have no bin for an image of {max_side} x {max_side} pixels: add "
            f"{needed} x {needed} or lower the largest side admitted."
        )
    return bins


def read_json(path: Path) -> object:
    """Return what a file of bins holds.

    Raises
    ------
    ArgumentError
        It cannot be read, or is not JSON.
    """
    try:
        parsed: object = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ArgumentError(f"the file cannot be read ({error.strerror}), check the path.") from error
    except ValueError as error:
        raise ArgumentError(f"the file is not JSON ({error}), write [[height, width], ...].") from error
    return parsed
