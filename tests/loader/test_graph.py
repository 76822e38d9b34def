"""The graph's numbers without a dataset: where a rectangle lies in a level, what is black and what is white, and the
resizing of images against PyTorch's antialiased one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

from shardkit.errors import IntegrityError
from shardkit.loader.graph import Graph, GraphConfig
from shardkit.loader.graph_input import Normalise, Prepared, bounds, roi

Pixels = npt.NDArray[np.uint16]
Box = tuple[int, int, int, int]


def _resize(pixels: Pixels, region: Box, level: int, size: tuple[int, int], flip: bool = False) -> npt.NDArray[Any]:
    """float32 of this size: a full-resolution rectangle of an image that is given at a level."""
    start, end = roi(region, level)
    one = Prepared(
        data=np.ascontiguousarray(pixels), top=65535, start=(0, 0), shape=(0, 0), roi_start=start, roi_end=end,
        size=size, pad=size, flip=flip, mean=0.0, std=1.0,
    )  # fmt: skip
    graph = Graph(
        GraphConfig(device_id=None, decode=False, slice=False, flip=flip, resize=True, max_images=1, threads=1)
    )
    (out,) = graph.run([one])
    found = out[0].numpy().copy()
    graph.close()
    return found


# ------------------------------------------------------------------------------------------- where a rectangle lies


def test_a_rectangle_of_the_image_itself_is_that_rectangle() -> None:
    assert roi((3, 5, 40, 60), 0) == ((3.0, 5.0), (43.0, 65.0))


@pytest.mark.parametrize(
    ("level", "start", "end"),
    [
        # Pixel i of level n lies on pixel i * 2**n: its middle, i + 0.5 here, is i * 2**n + 0.5 there.
        (1, (0.25, 2.25), (32.25, 34.25)),
        (2, (0.375, 1.375), (16.375, 17.375)),
        (3, (0.4375, 0.9375), (8.4375, 8.9375)),
    ],
)
def test_a_level_s_pixels_lie_on_pixels_and_not_between_them(level: int, start: Any, end: Any) -> None:
    assert roi((0, 4, 64, 64), level) == (start, end)


@pytest.mark.parametrize("level", [1, 2, 3])
@pytest.mark.parametrize("region", [(0, 0, 128, 192), (32, 48, 64, 96)])
def test_a_ramp_looks_the_same_from_every_level(region: Box, level: int) -> None:
    """The 5/3 low-pass band of a ramp is every 2**level-th of its pixels: half a pixel off would be 20 grey levels."""
    rows, cols = np.mgrid[:128, :192]
    ramp = (1000 + 40 * cols + 10 * rows).astype(np.uint16)
    top, left, height, width = region
    found = _resize(ramp[:: 2**level, :: 2**level], region, level, (16, 24))
    y, x = (np.arange(16) + 0.5) * height / 16 + top - 0.5, (np.arange(24) + 0.5) * width / 24 + left - 0.5
    wanted = 1000 + 40 * x[None, :] + 10 * y[:, None]
    inside = (slice(2, -2), slice(2, -2))  # at the edges the filter has pixels on one side only
    np.testing.assert_allclose(found[inside], wanted[inside], atol=0.5)


# ------------------------------------------------------------------------------------------------ black and white


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", (0.0, 1.0)),
        ("fullscale", (0.0, 4095.0)),
        ("minmax", (7.0, 3000.0 - 7.0)),
        ("percentile", (20.0, 2500.0 - 20.0)),
        ("zscore", (900.0, 250.0)),
        ((0.5, 0.25), (2047.5, 1023.75)),
    ],
)
def test_bounds_are_the_numbers_of_their_mode(mode: Normalise, expected: tuple[float, float]) -> None:
    assert bounds(mode, 12, 7.0, 3000.0, (20.0, 2500.0), (900.0, 250.0)) == expected


def test_the_percentiles_themselves_become_nought_and_one() -> None:
    mean, std = bounds("percentile", 16, 0.0, 65535.0, (1000.0, 1016.0), (0.0, 0.0))
    assert [(value - mean) / std for value in (1000.0, 1008.0, 1016.0)] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("mode", "std"), [("minmax", 1.0), ("percentile", 1.0), ("zscore", 1e-6), ((0.5, 0.0), 1e-6)])
def test_an_image_of_one_grey_level_is_not_divided_by_nought(mode: Normalise, std: float) -> None:
    assert bounds(mode, 8, 9.0, 9.0, (9.0, 9.0), (9.0, 0.0))[1] == std


# ------------------------------------------------------------------------------------------------------- resizing

CLOSE = 2e-4 * 65535  # DALI's weights are float32, and its range here is that of 16 bits


def _antialiased(pixels: Pixels, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """PyTorch's triangle as wide as the scale, in float64."""
    image = torch.from_numpy(pixels.astype(np.float64))[None, None]
    found: npt.NDArray[np.float64] = F.interpolate(image, size, mode="bilinear", antialias=True)[0, 0].numpy()
    return found


@pytest.fixture
def noise() -> Pixels:
    """No filter is kind to it."""
    return np.random.default_rng(3).integers(0, 65536, (96, 128)).astype(np.uint16)


@pytest.mark.parametrize("size", [(48, 64), (37, 41), (96, 128), (8, 8)])
def test_resized_images_are_pytorch_s_antialiased_ones(noise: Pixels, size: tuple[int, int]) -> None:
    found, wanted = _resize(noise, (0, 0, 96, 128), 0, size), _antialiased(noise, size)
    np.testing.assert_allclose(found[1:-1, 1:-1], wanted[1:-1, 1:-1], atol=CLOSE)
    np.testing.assert_array_equal(_resize(noise, (0, 0, 96, 128), 0, size, flip=True), found[:, ::-1])


def test_resizing_keeps_fractions_of_a_grey_level() -> None:
    board = (np.indices((16, 16)).sum(0) % 2).astype(np.uint16)
    np.testing.assert_allclose(_resize(board, (0, 0, 16, 16), 0, (4, 4)), 0.5, atol=0.05)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_at_the_edge_of_an_image_its_last_pixels_are_repeated(noise: Pixels, scale: int) -> None:
    """Where PyTorch's own filter is cut off. Two pixels of the output more on every side are none of the image's."""
    found = _resize(noise, (0, 0, 96, 128), 0, (96 // scale, 128 // scale))
    padded = np.pad(noise, 2 * scale, mode="edge")
    wanted = _antialiased(padded, (96 // scale + 4, 128 // scale + 4))[2:-2, 2:-2]
    np.testing.assert_allclose(found, wanted, atol=CLOSE)


def test_a_resized_rectangle_is_pytorch_s_of_the_same_pixels(noise: Pixels) -> None:
    found = _resize(noise, (10, 20, 60, 80), 0, (15, 20))
    wanted = _antialiased(noise[10:70, 20:100], (15, 20))
    np.testing.assert_allclose(found[1:-1, 1:-1], wanted[1:-1, 1:-1], atol=CLOSE)


# -------------------------------------------------------------------------------------------- cut out, and refused


def _prepared(data: npt.NDArray[Any], start: tuple[int, int], shape: tuple[int, int]) -> Prepared:
    """A rectangle of an image, halved in value after 10 is taken away, with two rows and a column of padding."""
    pad = (shape[0] + 2, shape[1] + 1)
    return Prepared(data, 65535, start, shape, (0.0, 0.0), (0.0, 0.0), shape, pad, flip=False, mean=10.0, std=2.0)


def test_rectangles_of_a_batch_are_cut_out_normalised_and_padded_with_nought(noise: Pixels) -> None:
    graph = Graph(
        GraphConfig(device_id=None, decode=False, slice=True, flip=False, resize=False, max_images=3, threads=1)
    )
    boxes = [((0, 0), (96, 128)), ((5, 70), (20, 58)), ((95, 3), (1, 7))]
    found = graph.run([_prepared(noise, *box) for box in boxes])
    for out, ((top, left), (rows, cols)) in zip(found, boxes, strict=True):
        wanted = np.zeros((rows + 2, cols + 1), np.float32)
        wanted[:rows, :cols] = (noise[top : top + rows, left : left + cols].astype(np.float32) - 10) / 2
        np.testing.assert_array_equal(out[0].numpy(), wanted)
    graph.close()


def test_bytes_that_are_no_image_are_an_integrity_error_every_time() -> None:
    graph = Graph(
        GraphConfig(device_id=None, decode=True, slice=False, flip=False, resize=False, max_images=1, threads=1)
    )
    junk = _prepared(np.arange(200, dtype=np.uint8), (0, 0), (8, 8))
    for _ in range(2):  # the graph is built again
        with pytest.raises(IntegrityError, match="DALI could not decode a batch: "):
            graph.run([junk])
