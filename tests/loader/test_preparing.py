"""One image prepared without a dataset is the Loader's, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shardkit import Loader, prepare
from shardkit.dataset import contents
from shardkit.errors import ArgumentError
from shardkit.storage import Store

NORMALISE: tuple[Any, ...] = ("none", "percentile", "minmax", "fullscale", "zscore", (0.4, 0.2))


@pytest.mark.parametrize(
    "batching",
    [
        "exact:patch=16,per_step=1",
        "exact:patch=8,per_step=1,level=2",
        "exact:patch=16,per_step=1,content=true",
        "resized:side=64,patch=16,per_step=1",
        "resized:side=64,patch=16,per_step=1,fit=pad,level=auto,content=true",
    ],
)
def test_an_image_alone_is_what_the_loader_gives(dataset_folder: Path, batching: str) -> None:
    store = Store(str(dataset_folder))
    rows, facts = contents.samples(store).to_pylist(), contents.description(store)
    for normalise in NORMALISE:
        loader = Loader(dataset_folder, batching=batching, split=None, device="cpu", normalise=normalise)
        for seen, batch in enumerate(loader):
            row = rows[int(batch.rows[0])]
            image = prepare(
                contents.image(store, row, facts),
                row["bits"],
                batching=batching,
                normalise=normalise,
                padded=row["padding"] > 0,
            )
            assert torch.equal(image, batch["images"][0]), (normalise, row["key"])
            if seen == 5:
                break


@pytest.mark.parametrize(
    ("pixels", "bits"),
    [(np.zeros((3, 4, 1), np.uint16), 12), (np.zeros((4, 4), np.int32), 12), (np.full((4, 4), 9, np.uint16), 3)],
)
def test_what_no_dataset_would_store_is_refused(pixels: Any, bits: int) -> None:
    with pytest.raises(ArgumentError):
        prepare(pixels, bits, batching="exact:patch=16")
