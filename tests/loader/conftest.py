"""What tests of the loader share: images out of batches, and a dataset in a bucket."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import BinnedBatch, PackedBatch
from shardkit.dataset import contents, manifest, mixture
from shardkit.dataset.mixture import MemberSpec
from shardkit.loader.manifest_index import ManifestIndex
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


class Manifests:
    """Helpers, handed out as a fixture because test folders are no packages."""

    NUMBERS = ("bits", "min", "max", "mean", "std", "p0_5", "p99_5", "height", "width", "bin_height", "bin_width")

    @staticmethod
    def rewrite(folder: Path, change: Callable[[pa.Table], pa.Table], announce: bool = True, **options: Any) -> None:
        """Change the manifest's table, as small row groups; and the digest that dataset.json names."""
        table = change(pq.ParquetFile(folder / manifest.NAME).read())
        digest = manifest.write(table, Store(str(folder)))
        written = pq.ParquetFile(folder / manifest.NAME)
        pq.write_table(written.read(), folder / manifest.NAME, write_page_checksum=True, **options)
        if announce:
            Manifests.describe(folder, digest=digest)

    @staticmethod
    def describe(folder: Path, **changes: Any) -> None:
        content = json.loads((folder / contents.NAME).read_text())
        (folder / contents.NAME).write_text(json.dumps({**content, **changes}))

    @staticmethod
    def one_sentence(error: BaseException) -> bool:
        text = str(error)
        return bool(text) and "\n" not in text and len(text) < 500

    @staticmethod
    def everything(catalog: ManifestIndex) -> list[Any]:
        """All that a catalog tells of every sample."""
        out: list[Any] = []
        for row in range(catalog.rows):
            detail = catalog.detail(row)
            levels = range(catalog.levels + 1)
            out.append((detail.key, detail.start(0), [(detail.prefix(k), detail.hash(k)) for k in levels]))
            out.append([detail.number(name) for name in Manifests.NUMBERS])
        return [*out, *(catalog.contents(shard) for shard in catalog.shards), catalog.samples(None).height.tolist()]

    @staticmethod
    def opened(below: Path) -> list[str]:
        links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]  # noqa: PTH115
        return [path for path in links if path.startswith(f"{below}/")]


@pytest.fixture(scope="session")
def manifests() -> type[Manifests]:
    return Manifests


@pytest.fixture(scope="module")
def bucket(moto: str, dataset_folder: Path) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="catalogs")
    store = Store("s3://catalogs/set")
    for path in (path for path in dataset_folder.rglob("*") if path.is_file()):
        store.put(path.relative_to(dataset_folder).as_posix(), path.read_bytes())
    return store.url


@pytest.fixture(params=["folder", "bucket"], scope="module")
def url(request: pytest.FixtureRequest, dataset_folder: Path) -> str:
    return str(dataset_folder if request.param == "folder" else request.getfixturevalue("bucket"))


@pytest.fixture
def copy(dataset_folder: Path, tmp_path: Path) -> Path:
    """dataset.json and manifest alone, for a test to change."""
    for name in (contents.NAME, manifest.NAME):
        shutil.copy(dataset_folder / name, tmp_path / name)
    return tmp_path


@pytest.fixture(scope="session")
def members(make_dataset: Callable[..., Path], kept: Callable[..., Path]) -> dict[str, Path]:
    """Three datasets of a dozen small radiographs that have little in common; two have shards of the same names."""
    from shardkit.synthetic.export import make_export

    options: dict[str, dict[str, Any]] = {
        "tars": {"patch": 16, "bins": "{bins}"},
        "zarr": {"patch": 24, "bins": "auto:2", "format": "zarr", "codec": "blosc", "levels": 3},
        "png": {"patch": 32, "bins": "{bins}", "codec": "png"},
    }

    def make(place: Path) -> None:
        bins = place / "bins.json"
        bins.write_text("[[256, 256], [3072, 3072]]")
        for number, (name, asked) in enumerate(options.items()):
            asked = asked | {"bins": asked["bins"].format(bins=bins)}
            make_export(place / f"{name}.export", 8, seed=20 + number, defects=0.0, scale=0.06)
            shared = {"shard_bytes": 16 << 10, "near_duplicates": "report"}
            make_dataset(place / f"{name}.export", place / name, **shared, **asked)

    place = kept("mixture", make)
    return {name: place / name for name in options}


@pytest.fixture
def mixed(members: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """(name=weight or (weight, normalise), folders=...) -> a mixture's file."""

    def make(folders: dict[str, Path] | None = None, file: str = "cocktail.json", **weights: Any) -> Path:
        specs = []
        for name, asked in weights.items():
            weight, normalise = asked if isinstance(asked, tuple) else (asked, None)
            url = str((folders or members)[name])
            specs.append(MemberSpec(name, url, float(weight), ManifestIndex(url).digest, normalise))
        mixture.write(str(tmp_path / file), specs)
        return tmp_path / file

    return make
