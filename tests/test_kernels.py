"""The compiled loops give what NumPy and SciPy give, whatever the shape of the image."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from numba.core import caching
from scipy import ndimage

from shardkit import content, kernels
from shardkit.compiling import compiled

Pixels = npt.NDArray[np.uint16]
SHAPES = [(1, 1), (1, 700), (513, 3), (512, 512), (515, 514), (1300, 1025), (600, 1537)]


def image(shape: tuple[int, int], seed: int) -> Pixels:
    """Noise of few or all grey levels in a frame of one."""
    rng = np.random.default_rng(seed)
    made = rng.integers(0, 1 << (4, 12, 16)[seed % 3], shape).astype(np.uint16)
    made[: shape[0] // 7], made[:, : shape[1] // 5] = 0, 0
    made.setflags(write=bool(seed % 2))
    return made


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_one_pass_gives_the_means_of_blocks_and_the_histogram(shape: tuple[int, int], seed: int) -> None:
    pixels = image(shape, seed)
    small, histogram = content.survey(pixels)
    k = -(-max(shape) // content.ANALYSIS)
    down, across = min(k, shape[0]), min(k, shape[1])
    rows, columns = max(1, shape[0] // k), max(1, shape[1] // k)
    blocks = pixels[: rows * down, : columns * across].reshape(rows, down, columns, across).astype(np.uint32)
    np.testing.assert_array_equal(small, blocks.sum((1, 3)).astype(np.float32) / np.float32(down * across))
    np.testing.assert_array_equal(histogram, np.bincount(pixels.ravel(), minlength=1 << 16))


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_statistics_count_every_pixel_of_the_blocks_in_a_mask(shape: tuple[int, int], share: float) -> None:
    pixels = image(shape, 1)
    small, histogram = content.survey(pixels)
    mask = np.random.default_rng(2).random(small.shape) < share
    mask[-1, -1] = True  # a partial block goes with the last whole one
    k = -(-max(shape) // content.ANALYSIS)
    row, column = (np.minimum(np.arange(n) // k, m - 1) for n, m in zip(shape, mask.shape, strict=True))
    inside = np.sort(pixels[mask[row][:, column]])
    found = content.statistics(pixels, mask, histogram)
    assert found == content.statistics(pixels, mask)
    assert (found.min, found.max) == (inside[0], inside[-1])
    assert found.mean == pytest.approx(inside.mean(), rel=1e-12)
    assert found.std == pytest.approx(inside.std(), rel=1e-9)
    percentiles = np.percentile(inside, [0.5, 1, 99, 99.5], method="inverted_cdf")
    assert list(astuple(found)[4:]) == percentiles.tolist()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31), (64, 64)])
def test_parts_are_those_that_scipy_labels(shape: tuple[int, int], share: float) -> None:
    mask = np.random.default_rng(3).random(shape) < share
    labels, count = ndimage.label(mask)
    runs = kernels.parts(mask)
    stands_for = np.full(shape, -1)
    for row, left, right, part in runs.T:
        stands_for[row, left:right] = part
    assert ((stands_for >= 0) == mask).all()
    pairs = {(int(a), int(b)) for a, b in zip(labels[mask], stands_for[mask], strict=True)}
    assert len(pairs) == count == len({a for a, _ in pairs}) == len({b for _, b in pairs})


@pytest.mark.parametrize("edge", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (40, 31)])
def test_growing_is_scipy_s_dilation(shape: tuple[int, int], edge: bool) -> None:
    mask, grown = np.random.default_rng(4).random(shape) < 0.1, np.empty(shape, bool)
    kernels.grow(mask, edge, grown)
    np.testing.assert_array_equal(grown, ndimage.binary_dilation(mask, np.ones((3, 3), bool), border_value=edge))


def test_where_nothing_can_be_kept_they_are_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])

    @compiled(kernels._MASK)
    def first(mask: npt.NDArray[np.bool_]) -> bool:
        return bool(mask[0, 0])

    assert first(np.ones((1, 1), bool))
    assert not Path(str(getattr(first, "_cache").cache_path or "absent")).exists()  # noqa: B009
