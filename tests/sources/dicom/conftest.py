"""What tests of grey values share: arrays made uniform under a header of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset

from shardkit.sources.dicom.decoding import Samples
from shardkit.sources.dicom.grayscale import Uniform, to_uniform
from shardkit.sources.dicom.reading import PixelModule


def _pixel_module(
    values: npt.NDArray[Any], bits: int, signed: bool = False, photometric: str = "MONOCHROME2"
) -> PixelModule:
    rows, cols = values.shape
    return PixelModule(rows, cols, 1, 1, 8 * values.dtype.itemsize, bits, signed, photometric)


@pytest.fixture(scope="session")
def pixel_module() -> Callable[..., PixelModule]:
    """(image, bits stored, signed, photometric) -> what a header says of one such frame."""
    return _pixel_module


@pytest.fixture(scope="session")
def uniform() -> Callable[..., Uniform]:
    """One row of stored words -> uniform pixels."""

    def run(
        words: list[int],
        bits: int = 12,
        *,
        signed: bool = False,
        photometric: str = "MONOCHROME2",
        dtype: type[np.unsignedinteger[Any]] = np.uint16,
        tags: dict[str, Any] | None = None,
        lossy: bool = False,
        precision: int | None = None,
        **options: Any,
    ) -> Uniform:
        """`tags` go into the header, `options` to `to_uniform`."""
        raw = np.array([words], np.int64).astype(dtype)
        dataset = Dataset()
        for keyword, value in (tags or {}).items():
            setattr(dataset, keyword, value)
        samples = Samples(raw, "a codec", lossy=lossy, precision=precision)
        return to_uniform(samples, _pixel_module(raw, bits, signed, photometric), dataset, **options)

    return run
