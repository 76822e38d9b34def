"""Sizes of a large published set of radiographs, from what was printed of it: 639,877 images, knees to skulls.

The joint distribution of heights and widths is not published. Four of its margins are, in the outputs of "Smart Binning
Strategy.ipynb" of github.com/niklasbuehler/radiograph-pretraining @ af7937d: the images of each of 36 bins, as printed,
and three histograms of 100 bars (heights, widths, patches of 48 pixels), their bars measured in screen pixels.
Iterative proportional fitting (Deming & Stephan 1940) finds a distribution that has all four. NumPy only.
"""

import functools

import numpy as np
import numpy.typing as npt

from shardkit.dataset.bins import THESIS, Bins
from shardkit.dataset.rounding import ceil_div

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating]

IMAGES, TOKENS = 639_877, 9.22e8
"""Of the set: images, and patches when each is padded to whole ones, as table 4.1 of Buehler 2024 (thesis) says."""
PATCH, SIDE = 48, 3072
CONTENT = 0.82
"""Share of pixels that are not 0: the mean over the set, of which no distribution is published.

That content boxes have this share is an assumption. Those that builds find are larger: see benchmarks/README.md.
"""

# Images of the training split by bin: a row a height, in the order of `shardkit.dataset.bins.THESIS`.
BIN_COUNTS = np.array(
    [
        *(29273, 3873, 2986, 5941, 1814, 151),
        *(43365, 23835, 3738, 6989, 4777, 702),
        *(44104, 48276, 9699, 2358, 2733, 453),
        *(17788, 49033, 29707, 6679, 2730, 584),
        *(2250, 17491, 40207, 28949, 4248, 3492),
        *(1936, 14469, 17979, 11018, 20730, 12045),
    ]
)
# Bars of the histograms. Axis titles of the thesis' figure 3.3 are swapped: its "width" is the number of rows.
HEIGHTS = [
    *(0.15, 0.15, 0.15, 0.15, 0.15, 0.15, 1, 1, 1, 2, 3, 4, 5, 7, 8, 11, 14, 17, 20, 24, 27, 31, 36, 42, 46, 49, 54),
    *(53, 56, 55, 59, 56, 58, 56, 58, 282, 75, 75, 81, 81, 86, 88, 95, 97, 99, 98, 108, 111, 112, 116, 119, 122, 126),
    *(130, 145, 126, 124, 131, 126, 118, 122, 133, 124, 151, 124, 125, 147, 124, 113, 115, 103, 102, 91, 97, 96, 364),
    *(97, 80, 74, 268, 87, 97, 56, 53, 52, 46, 41, 41, 41, 39, 38, 39, 47, 34, 31, 36, 63, 367, 105, 305),
]
WIDTHS = [
    *(0.15, 0.15, 1, 1, 1, 2, 4, 7, 11, 17, 22, 27, 31, 37, 41, 43, 48, 56, 61, 71, 76, 88, 95, 105, 105, 111, 115),
    *(110, 112, 106, 109, 100, 99, 92, 89, 367, 324, 132, 133, 126, 128, 110, 118, 115, 114, 111, 109, 99, 104, 94),
    *(94, 89, 87, 81, 76, 285, 68, 68, 63, 65, 63, 58, 53, 55, 215, 48, 50, 45, 38, 43, 34, 37, 34, 32, 30, 35, 43),
    *(23, 22, 40, 53, 168, 10, 8, 7, 7, 7, 5, 5, 5, 4, 6, 4, 3, 3, 3, 3, 145, 13, 25),
]
PATCHES = [
    *(1, 2, 7, 28, 57, 100, 116, 136, 131, 130, 146, 150, 168, 170, 173, 270, 222, 271, 265, 238, 257, 243, 234, 220),
    *(227, 212, 234, 232, 185, 230, 185, 212, 141, 176, 156, 145, 148, 130, 127, 140, 127, 141, 107, 112, 126, 435),
    *(99, 108, 86, 85, 77, 91, 73, 63, 78, 336, 54, 49, 49, 52, 49, 43, 41, 32, 31, 41, 29, 21, 30, 16, 31, 14, 16),
    *(25, 18, 12, 25, 12, 11, 11, 7, 15, 322, 4, 5, 0.2, 5, 6, 1, 4, 4, 0.2, 4, 3, 0.2, 3, 207, 0.2, 0.2, 0.2),
]
_RANGES = {"heights": (246, 3072), "widths": (219, 3072), "patches": (42, 4096)}  # of the bars
# Whole-detector read-outs (height, width, share) stand out in more than one histogram: where fitting begins.
_DETECTORS = [
    *((3000, 3000, 0.02), (3056, 2544, 0.03), (2500, 2048, 0.03)),
    *((2376, 1800, 0.04), (3000, 1250, 0.01), (1250, 1250, 0.005)),
]
_CELL, _ROUNDS = 8, 250  # pixels; by then, every bar is met to 0.1 % of the images


def dbb_tokens() -> float:
    """Return the mean patches of an image that is padded to its bin: from printed counts alone, nothing fitted."""
    areas = np.array([b.height * b.width // PATCH**2 for b in THESIS])
    return float((BIN_COUNTS * areas).sum() / BIN_COUNTS.sum())


def sizes(n: int, seed: int) -> tuple[Ints, Ints]:
    """Draw heights and widths of n images in pixels from the fitted distribution."""
    rng, shares = np.random.default_rng(seed), joint()
    rows, cols = np.divmod(rng.choice(shares.size, n, p=shares.ravel()), len(shares))
    heights, widths = ((cells + 1) * _CELL - rng.integers(0, _CELL, n) for cells in (rows, cols))
    return heights, widths


def content_boxes(heights: Ints, widths: Ints, seed: int) -> Ints:
    """Draw a box in each image, of the published share of its area, placed at random.

    Returns
    -------
    ndarray of int64
        (n, 4): top, left, height, width.
    """
    rng, sides = np.random.default_rng(seed), np.stack([heights, widths], 1)
    inner = np.maximum(1, np.rint(np.sqrt(CONTENT) * sides).astype(np.int64))
    return np.concatenate([rng.integers(0, sides - inner + 1), inner], 1)


@functools.cache
def joint() -> Floats:
    """Return the share of the images by cell of 8 x 8 pixels: (384, 384), rows by height.

    It takes a second or two, once.
    """
    upper = np.arange(_CELL, SIDE + 1, _CELL)
    shares, margins = _begin(upper), _margins(upper)
    for _ in range(_ROUNDS):
        for groups, wanted in margins:
            there = np.bincount(groups.ravel(), shares.ravel(), minlength=len(wanted))
            shares *= np.divide(wanted, there, out=np.zeros(len(wanted)), where=there > 0)[groups]
    shares /= shares.sum()
    return shares


def _margins(upper: Ints) -> list[tuple[Ints, Floats]]:
    """Return the (384, 384) group of each cell, and the share of each group, by published figure.

    Printed counts come last: they hold exactly.
    """
    height, width = np.meshgrid(upper, upper, indexing="ij")
    patches = ceil_div(height, PATCH) * ceil_div(width, PATCH)
    found: list[tuple[npt.NDArray[np.integer], npt.ArrayLike]] = [
        (_bars(patches, "patches"), PATCHES),
        (_bars(height - _CELL / 2, "heights"), HEIGHTS),
        (_bars(width - _CELL / 2, "widths"), WIDTHS),
        (Bins(THESIS, PATCH).assign(height.ravel(), width.ravel()).reshape(height.shape), BIN_COUNTS),
    ]
    return [(groups.astype(np.int64), np.asarray(bars) / np.sum(bars)) for groups, bars in found]


def _bars(values: npt.NDArray[np.number], name: str) -> Ints:
    """Return which of 100 bars values lie in."""
    low, up = _RANGES[name]
    bars: Ints = np.clip((values - low) * 100 // (up - low), 0, 99).astype(np.int64)
    return bars


def _begin(upper: Ints) -> Floats:
    """Return a first guess: upright and, seldom, lying images, log-normal; detectors; none below the least sides."""
    centre = upper - _CELL / 2
    upright = _log_normal(centre, (1950, 1350), (0.33, 0.38), 0.55)
    shares = upright + 0.05 * _log_normal(centre, (1300, 2100), (0.25, 0.25), 0.2) + 1e-4
    shares /= shares.sum()
    for height, width, share in _DETECTORS:
        shares[ceil_div(height, _CELL) - 1, ceil_div(width, _CELL) - 1] += share
    shares[centre < _RANGES["heights"][0]] = 0
    shares[:, centre < _RANGES["widths"][0]] = 0
    return shares


def _log_normal(centre: Floats, medians: tuple[int, int], spread: tuple[float, float], correlation: float) -> Floats:
    """Return a density by log height and log width, 1 at the medians."""
    logs = np.log(centre)
    by_height, by_width = ((logs - np.log(median)) / sigma for median, sigma in zip(medians, spread, strict=True))
    a, b = by_height[:, None], by_width[None, :]
    density: Floats = np.exp(-0.5 * (a**2 - 2 * correlation * a * b + b**2) / (1 - correlation**2))
    return density
