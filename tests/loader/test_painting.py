"""Batches that a CPU's threads paint are those of the DALI graph: to the last bit, but for resized ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from shardkit import Binned, Exact, Fixed, Loader, MultiView, Packed, Resized, View
from shardkit.errors import IntegrityError
from shardkit.loader.buffers import Buffers
from shardkit.loader.canvas import convert
from shardkit.loader.graph import Graph, GraphConfig
from shardkit.loader.graph_input import Prepared
from shardkit.loader.kernels import taps
from shardkit.loader.painting import paint, resized

Pixels = npt.NDArray[np.uint16]
CPU = torch.device("cpu")
MODES: tuple[Any, ...] = ("none", "percentile", "minmax", "fullscale", "zscore", (0.4, 0.2))


def _batches(url: Any, batching: Any, decoder: Any, **options: Any) -> list[Any]:
    return list(Loader(url, batching=batching, split=None, device="cpu", seed=3, decoder=decoder, **options))


def _assert_equal(one: Any, other: Any, atol: float = 0.0) -> None:
    for name in one.keys():  # noqa: SIM118 - a batch is no mapping
        a, b = one[name], other[name]
        for x, y in zip(a, b, strict=True) if name == "views" else [(a, b)]:
            if isinstance(x, Tensor) and x.is_floating_point():
                torch.testing.assert_close(x, y, rtol=0, atol=atol)
            else:
                assert x.equal(y) if isinstance(x, Tensor) else x == y, name


UNRESIZED: tuple[Any, ...] = (
    Packed(tokens=4096, patch=16, level=2, per_step=2),
    Packed(tokens=4096, patch=7, level=1, content=True, crop=(0.1, 0.4), flip=0.5, per_step=2),
    Binned(batch_size=3, patch=16, level=2, per_step=2, flip=0.5),
    Fixed(640, patch=16, level=2, batch_size=2, per_step=1, content=True),
    Exact(patch=16, level=3, per_step=3, crop=(0.3, 1.0)),
)


@pytest.mark.parametrize("modes", ["two", pytest.param("all", marks=pytest.mark.deep)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("batching", UNRESIZED, ids=str)
def test_without_resizing_all_is_equal(dataset_folder: Path, batching: Any, dtype: torch.dtype, modes: str) -> None:
    """Every way to normalise with some batching; in the long tests, with every one."""
    at = UNRESIZED.index(batching)
    chosen = MODES if modes == "all" else (MODES[at], MODES[-1 - at]) if dtype == torch.float32 else MODES[1:2]
    for mode in chosen:
        both = [_batches(dataset_folder, batching, way, dtype=dtype, normalise=mode) for way in ("threads", "dali")]
        assert len(both[0]) == len(both[1]) > 0
        for one, other in zip(*both, strict=True):
            _assert_equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "batching",
    [
        Resized(64, batch_size=5, level="auto", crop=(0.2, 1.0), flip=0.5, per_step=2),
        Resized(48, batch_size=5, level=1, fit="pad", per_step=2),
        MultiView((View(64, (0.4, 1.0), n=2), View(32, (0.05, 0.4), n=3)), batch_size=4, per_step=2, level="auto"),
        MultiView((View(64, jitter=0.8, blur=0.5), View(32, solarise=1.0)), batch_size=4, per_step=2, level="auto"),
    ],
    ids=str,
)
def test_resized_images_differ_by_rounding(dataset_folder: Path, batching: Any, dtype: torch.dtype) -> None:
    for one, other in zip(
        *(_batches(dataset_folder, batching, way, dtype=dtype) for way in ("threads", "dali")), strict=True
    ):
        _assert_equal(one, other, atol=2e-5 if dtype == torch.float32 else 2**-8)


def test_a_program_s_changes_see_the_graph_s_images(dataset_folder: Path) -> None:
    def turned(image: Tensor, seed: int) -> Tensor:
        return 1 - image * (seed % 7) / 7

    options: dict[str, Any] = {"augment": turned, "normalise": "minmax"}
    batching = Packed(tokens=4096, patch=16, level=2, per_step=2)
    both = (_batches(dataset_folder, batching, way, **options) for way in ("threads", "dali"))
    for one, other in zip(*both, strict=True):
        _assert_equal(one, other)


# ----------------------------------------------------------------------------------------------------- one image


def _image(pixels: Pixels, **changes: Any) -> Prepared:
    sides = (float(pixels.shape[0]), float(pixels.shape[1]))
    size: Any = pixels.shape
    one = Prepared(pixels, 65535, (0, 0), size, (0.0, 0.0), sides, size, size, flip=False, mean=10.0, std=3.0)
    return replace(one, **changes)


@pytest.fixture
def noise() -> Pixels:
    return np.random.default_rng(3).integers(0, 65536, (37, 50)).astype(np.uint16)


@pytest.mark.parametrize("before", [16, 17])  # at a line of the caches, and between two
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("block", [(5, 5), (16, 16), (9, 32), (50, 60), (7, 50), (40, 64)])
@pytest.mark.parametrize("part", [((0, 0), (37, 50)), ((3, 9), (1, 1)), ((36, 0), (1, 50)), ((5, 10), (30, 35))])
def test_a_room_of_blocks_holds_the_part_and_nought(
    noise: Pixels, part: Any, block: Any, flip: bool, before: int
) -> None:
    (top, left), (height, width) = part
    deep, wide = -(-height // block[0]) + 1, -(-width // block[1])
    size = deep * wide * block[0] * block[1]
    memory = Buffers().empty((before + size + 16,), torch.float32).fill_(torch.nan)
    assert memory.data_ptr() % 64 == 0
    room = memory[before : before + size].view(deep, wide, *block).permute(0, 2, 1, 3)
    pad = (deep * block[0], wide * block[1])
    paint(room, _image(noise, start=(top, left), shape=(height, width), pad=pad, flip=flip), resize=False)
    shown = noise[top : top + height, left : left + width].astype(np.float32)
    wanted = np.zeros(pad, np.float32)
    wanted[:height, :width] = ((shown - np.float32(10)) * (np.float32(1) / np.float32(3)))[:, :: -1 if flip else 1]
    np.testing.assert_array_equal(room.reshape(pad).numpy(), wanted)
    assert memory[:before].isnan().all()
    assert memory[before + size :].isnan().all()


@pytest.mark.parametrize("start", [(-1, 0), (0, -1), (37, 0), (30, 0), (0, 41)])
def test_pixels_that_are_not_there_are_not_read(noise: Pixels, start: Any) -> None:
    with pytest.raises(IntegrityError, match=r"10 x 10 pixels at .* are not all in an image of "):
        paint(torch.zeros(16, 16), _image(noise, start=start, shape=(10, 10), pad=(16, 16)), resize=False)


def test_more_pixels_than_there_is_room_for_are_not_written(noise: Pixels) -> None:
    memory = torch.zeros(3, 37, 50)
    with pytest.raises(IntegrityError, match="37 x 50 pixels do not fit into 36 x 50"):
        paint(memory[1, :36], _image(noise), resize=False)
    assert not memory.any()


@pytest.mark.parametrize(
    ("start", "end", "size"),
    [
        ((0.0, 0.0), (37.0, 50.0), (37, 50)),
        ((0.0, 0.0), (37.0, 50.0), (9, 11)),
        ((3.25, 10.5), (30.75, 40.25), (64, 64)),
        ((0.25, 0.25), (36.75, 49.75), (1, 1)),
        ((36.0, 49.0), (37.0, 50.0), (8, 8)),
    ],
)
def test_resizing_is_dali_s(noise: Pixels, start: Any, end: Any, size: Any) -> None:
    graph = Graph(
        GraphConfig(device_id=None, decode=False, slice=False, flip=False, resize=True, max_images=1, threads=1)
    )
    (wanted,) = graph.run([_image(noise, roi_start=start, roi_end=end, size=size, pad=size, mean=0.0, std=65535.0)])
    found = resized(noise, start, end, size) / 65535
    np.testing.assert_allclose(found, wanted[0].numpy(), rtol=0, atol=2e-5)
    graph.close()


def test_weights_are_those_of_a_triangle_in_float64() -> None:
    first, weights = taps(2.5, 12.5, 4)
    middle = 2.5 + (np.arange(4) + 0.5) * 2.5 - 0.5
    for at, start, row in zip(middle, first, weights, strict=True):
        wanted = np.maximum(0, 1 - np.abs(start + np.arange(len(row)) - at) / 2.5)
        np.testing.assert_allclose(row, wanted / wanted.sum(), atol=1e-7)
        assert 1 - abs(start - 1 - at) / 2.5 <= 0, "a pixel before the first one counts"
        assert 1 - abs(start + len(row) - at) / 2.5 <= 0, "a pixel after the last one counts"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    draw = np.random.default_rng(0)
    values = np.concatenate([draw.normal(0, 10.0**power, 4000) for power in range(-8, 5)]).astype(np.float32)
    halves = (np.arange(0, 1 << 16, 3, dtype=np.uint32) << 16 | 0x8000).view(np.float32)  # amid two of bfloat16
    values = np.concatenate([values, halves[np.isfinite(halves) & (np.abs(halves) < 6e4)], [0.0, -0.0]])
    values = values.astype(np.float32)
    room = torch.empty(len(values), dtype=dtype)
    convert(values, room)
    assert room.equal(torch.from_numpy(values).to(dtype))


# ---------------------------------------------------------------------------------------------------- what it needs

_WITHOUT = """
import sys
for name in ("nvidia.dali", "nvidia"):
    sys.modules[name] = None
from shardkit import Loader
batches = list(Loader(sys.argv[1], batching="packed:level=3,patch=16,per_step=1,tokens=2048", split=None, device="cpu"))
assert len(batches) and not any(name.startswith("nvidia.dali") for name in sys.modules if sys.modules[name])
"""


def test_a_cpu_needs_no_dali(dataset_folder: Path) -> None:
    subprocess.run([sys.executable, "-c", _WITHOUT, str(dataset_folder)], check=True, timeout=100)
