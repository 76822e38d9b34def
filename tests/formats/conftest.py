"""A small dataset of a few shards, and ways to look at it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.dataset.verify import Summary, verify
from shardkit.storage import Store
from shardkit.synthetic.export import make_export
from tests.one_process import one_process

STORAGE: dict[str, dict[str, Any]] = {"webdataset": {}, "zarr": {"format": "zarr", "codec": "blosc", "levels": 2}}


class Look:
    """Helpers, handed out as a fixture because test folders are no packages."""

    @staticmethod
    def rows(place: Path) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = contents.samples(Store(str(place))).to_pylist()
        return rows

    @classmethod
    def by_shard(cls, place: Path) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for row in cls.rows(place):
            found.setdefault(row["shard"], []).append(row)
        return found

    @classmethod
    def fullest(cls, place: Path) -> tuple[str, list[dict[str, Any]]]:
        """The shard with most samples, and their rows."""
        return max(cls.by_shard(place).items(), key=lambda item: len(item[1]))

    @staticmethod
    def problems(place: Path, decode: bool = True) -> list[str]:
        return [item for item in verify(str(place), decode, 2) if not isinstance(item, Summary)]


@pytest.fixture(scope="session")
def look() -> Look:
    return Look()


@pytest.fixture(scope="session")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards") / "export"
    make_export(root, 7, seed=4, defects=0.0, scale=0.06)
    return root


@pytest.fixture(scope="session")
def place(export: Path, form: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of several shards. Tests read it and leave it as it is."""
    root = tmp_path_factory.mktemp("place")
    options = {"bins": "auto:2", "shard_bytes": 50_000, "workers": 1, **STORAGE[form]}
    with one_process():
        build(BuildConfig.of(str(export), str(root / "out"), root / "private", **options))
    return root / "out"


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(place, tmp_path / "out"))
