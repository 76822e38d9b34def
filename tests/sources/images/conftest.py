"""One image file's way to its pixels, as a build goes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.sources import image_source
from shardkit.sources.base import Decoded, ImageFacts
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.synthetic.radiographs import radiograph


class Look:
    """What a build sees of one file: its facts, its pixels, or the verdict."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, data: bytes, name: str = "image", part: int | None = None, facts: FactsRow | None = None, **options: Any
    ) -> tuple[ImageFacts, Decoded]:
        """Return facts and pixels of a file, or of one image in it; raise its verdict."""
        (self.folder / name).write_bytes(data)
        source = image_source(str(self.folder), **{"image_files": True, **options})
        entry = Entry(name.encode(), len(data), "file", facts=facts)
        entry = entry if part is None else entry.at(part)
        told = source.inspect(entry)
        loaded = source.load(entry, source.read(entry))
        assert loaded.facts == told
        return told, loaded.decode("full")

    def parts(self, data: bytes, name: str = "image", **options: Any) -> list[int | None]:
        """Return the numbers of the images that are taken of a file."""
        (self.folder / name).write_bytes(data)
        source = image_source(str(self.folder), **{"image_files": True, **options})
        return [entry.part for entry in source.split(Entry(name.encode(), len(data), "file"))]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """(bytes of a file) -> facts and pixels."""
    return Look(tmp_path)


@pytest.fixture(scope="session")
def chest() -> Callable[..., npt.NDArray[np.uint16]]:
    """(rows, cols, bits) -> a synthetic radiograph."""
    return lambda rows=70, cols=90, bits=8, seed=0: radiograph(rows, cols, bits, np.random.default_rng(seed), "chest")
