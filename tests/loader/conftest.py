"""What tests of the loader share: images out of batches, and a dataset in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shardkit import BinnedBatch, PackedBatch
from shardkit.dataset import contents
from shardkit.storage import Store

Images = dict[int, npt.NDArray[np.float32]]


@pytest.fixture(scope="session")
def images_of() -> Callable[[Iterable[BinnedBatch | PackedBatch]], Images]:
    """Batches -> image by manifest row, checking on the way that no row comes twice and that padding is 0."""

    def collect(batches: Iterable[BinnedBatch | PackedBatch]) -> Images:
        found: Images = {}
        for batch in batches:
            total = float(
                batch.patches.double().sum() if isinstance(batch, PackedBatch) else batch.images.double().sum()
            )
            inside = 0.0
            for at, row in enumerate(batch.rows.tolist()):
                if row < 0:
                    continue
                assert row not in found
                if isinstance(batch, PackedBatch):
                    image = batch.pixels(at)
                else:
                    height, width = batch.sizes[at].tolist()
                    image = batch.images[at, 0, :height, :width]
                found[row] = image.float().numpy().copy()
                inside += float(image.double().sum())
            assert inside == pytest.approx(total, rel=1e-9, abs=1e-6), "padding is not 0"
        return found

    return collect


@pytest.fixture(scope="session")
def pixels_of() -> Callable[[Path | str, int], dict[int, npt.NDArray[np.uint16]]]:
    """(dataset, level) -> image by manifest row, read one by one by the tested path of `shardkit preview`."""

    def read(url: Path | str, level: int) -> dict[int, npt.NDArray[np.uint16]]:
        store = Store(str(url))
        rows, facts = contents.samples(store).to_pylist(), contents.description(store)
        return {i: contents.image(store, row, facts, level) for i, row in enumerate(rows)}

    return read


@pytest.fixture(scope="session")
def in_bucket(moto: str) -> Callable[[Path, str], str]:
    """(dataset folder, name) -> url of its copy in a bucket."""
    import boto3

    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    client.create_bucket(Bucket="loader")

    def copy(folder: Path, name: str) -> str:
        store = Store(f"s3://loader/{name}")
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
        return store.url

    return copy


@pytest.fixture(scope="session")
def rows_of() -> Callable[[Iterable[Any]], list[list[int]]]:
    """Batches -> manifest rows of each."""
    return lambda batches: [[row for row in batch.rows.tolist() if row >= 0] for batch in batches]
