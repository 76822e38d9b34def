"""What tests of the plan share: synthetic samples, and the rows of steps."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from shardkit.dataset.bins import Bin, Bins
from shardkit.plan import MicroBatch, Samples
from shardkit.synthetic.radiographs import synth_sizes


@pytest.fixture(scope="session")
def few_samples() -> Callable[..., Samples]:
    """seed -> up to about 150 samples of up to 200 x 200 pixels in up to 12 shards, with content boxes, maybe gaps."""

    def make(seed: int, shards: int = 12, digest: str = "few") -> Samples:
        rng = np.random.default_rng(seed)
        starts = np.concatenate([[0], np.cumsum(rng.integers(1, 25, rng.integers(1, shards + 1)))])
        n = int(starts[-1])
        height, width = rng.integers(1, 201, (2, n))
        box = np.empty((n, 4), np.int64)
        box[:, 2], box[:, 3] = rng.integers(1, height + 1), rng.integers(1, width + 1)
        box[:, 0], box[:, 1] = rng.integers(0, height - box[:, 2] + 1), rng.integers(0, width - box[:, 3] + 1)
        return Samples(
            digest=digest,
            starts=starts,
            height=height.astype(np.uint16),
            width=width.astype(np.uint16),
            bins=Bins((Bin(48, 208), Bin(112, 112), Bin(208, 208)), 16),
            levels=3,
            box=box.astype(np.uint16),
            rows=np.cumsum(rng.integers(1, 4, n)) if rng.random() < 0.5 else None,
        )

    return make


@pytest.fixture(scope="session")
def radiographs() -> Callable[..., Samples]:
    """(n, samples a shard) -> samples with the published sizes of radiographs."""

    def make(n: int, shard: int = 300, digest: str = "radiographs") -> Samples:
        height, width, _ = synth_sizes(n, np.random.default_rng(0))
        starts = np.append(np.arange(0, n, shard), n)
        return Samples(digest, starts, height.astype(np.uint16), width.astype(np.uint16), Bins((Bin(3072, 3072),), 48))

    return make


@pytest.fixture(scope="session")
def rows_of() -> Callable[..., list[int]]:
    """Micro-batches -> manifest rows that are no repeats, in order."""
    return lambda micros: [row for micro in micros for row in micro.crops.row[~micro.repeated].tolist()]


@pytest.fixture(scope="session")
def print_of() -> Callable[..., str]:
    """Steps -> sha256 of all that is planned: layouts, rows, seeds, levels, rectangles, flips, repeats."""

    def digest(steps: Iterable[list[MicroBatch]]) -> str:
        found = hashlib.sha256()
        for step in steps:
            for micro in step:
                crops = micro.crops
                found.update(f"{micro.shape} {micro.patch} {len(crops)}".encode())
                names = ("row", "level", "top", "left", "height", "width", "out_height", "out_width", "tokens")
                for name in names:
                    found.update(getattr(crops, name).astype("<i8").tobytes())
                found.update(crops.seed.astype("<u8").tobytes() + crops.region.astype("<i8").tobytes())
                found.update(crops.flip.tobytes() + micro.repeated.tobytes())
        return found.hexdigest()

    return digest
