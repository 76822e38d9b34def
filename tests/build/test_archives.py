"""Exports that come packed: the dataset is that of the files unpacked, and a store that is away is no bad archive."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit.storage import Store

FILES, AT = 20, ("loose", "packed")


def packed_zip(root: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(p for p in root.rglob("*") if p.is_file()):
            file.write(path, path.relative_to(root))


def packed_tar(mode: Any) -> Callable[[Path, Path], None]:
    def pack(root: Path, archive: Path) -> None:
        with tarfile.open(archive, mode) as file:
            file.add(root, ".")

    return pack


PACKERS = {"a.zip": packed_zip, "a.tar": packed_tar("w"), "a.TGZ": packed_tar("w:gz")}


@pytest.fixture(scope="module")
def exported(bench: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sound and defective files in folders, without links."""
    place = tmp_path_factory.mktemp("exported") / "export"
    bench.copy(made.root, place, [path for path, spec in made.specs.items() if not spec.target][:FILES])
    return place


@pytest.fixture(scope="module")
def loose(bench: Any, exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    place = tmp_path_factory.mktemp("loose")
    return bench.build(exported, place / "out", place / "private")


def _verdicts(built: Any, archive: str = "") -> dict[str, tuple[Any, ...]]:
    facts = ("verdict", "reason", "key", "sop", "patient")
    return {f"{archive}{path}": tuple(row[name] for name in facts) for path, row in built.ledger().items()}


@pytest.mark.parametrize(
    "name", ["a.zip", *(pytest.param(name, marks=pytest.mark.deep) for name in ("a.tar", "a.TGZ"))]
)
def test_an_archive_gives_the_dataset_of_its_files(
    bench: Any, exported: Path, loose: Any, tmp_path: Path, name: str
) -> None:
    (tmp_path / "export").mkdir()
    PACKERS[name](exported, tmp_path / "export" / name)
    built = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    assert bench.tree(built.out) == bench.tree(loose.out)
    assert _verdicts(built) == _verdicts(loose, f"{name}/")
    again = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    assert again.outcome.new_files == 0
    rights = {path.stat().st_mode & 0o077 for path in (tmp_path / "private").rglob("*")}
    assert rights == {0}, "others can read the names of members"


def test_images_without_an_identifier_are_named_by_their_path_when_unpacked(bench: Any, tmp_path: Path) -> None:
    """In a folder of their own, so that the archive's name and the place that it lies in both matter."""
    chance = np.random.default_rng(4)
    for number in range(6):
        pixels = np.cumsum(chance.integers(0, 9, (130, 120)), axis=1).astype(np.uint8)
        path = tmp_path / "loose" / "site" / "set" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "packed" / "site").mkdir(parents=True)
    packed_tar("w:gz")(tmp_path / "loose" / "site", tmp_path / "packed" / "site" / "some name.tar.gz")
    options = {"image_files": True, "min_side": 100, "accept_outcome": True}
    builds = [bench.build(tmp_path / at, tmp_path / f"{at}.out", tmp_path / f"{at}.p", **options) for at in AT]
    assert len(builds[0].samples()) == 6
    assert bench.tree(builds[0].out) == bench.tree(builds[1].out)


def test_an_archive_beside_its_files_adds_nothing(bench: Any, exported: Path, loose: Any, tmp_path: Path) -> None:
    """Each file is there twice, and is one sample with the key that it has anyway."""
    bench.copy(exported, tmp_path / "export", list(bench.tree(exported)))
    packed_zip(exported, tmp_path / "export" / "a.zip")
    built = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private")
    names = [{row["key"]: (row["source"], row["split"]) for row in one.samples()} for one in (built, loose)]
    assert names[0] == names[1]
    assert built.outcome.new_files == 2 * len(bench.tree(exported))


def test_members_of_one_name_in_two_archives_are_two_images(
    bench: Any, exported: Path, loose: Any, tmp_path: Path
) -> None:
    images = [path for path, row in loose.ledger().items() if row["verdict"] == "written"][:2]
    (tmp_path / "export").mkdir()
    for name, image in zip(("a.zip", "b.zip"), images, strict=True):
        with zipfile.ZipFile(tmp_path / "export" / name, "w") as file:
            file.write(exported / image, "IM1")
    built = bench.build(tmp_path / "export", tmp_path / "out", tmp_path / "private", accept_outcome=True)
    assert {path: row["verdict"] for path, row in built.ledger().items()} == dict.fromkeys(
        ("a.zip/IM1", "b.zip/IM1"), "written"
    )


@pytest.mark.deep
def test_archives_in_a_bucket_give_the_dataset_of_a_folder(
    bench: Any, moto: str, exported: Path, loose: Any, tmp_path: Path
) -> None:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="packed")
    packed_tar("w:gz")(exported, tmp_path / "a.tar.gz")
    Store("s3://packed/export").put("a.tar.gz", (tmp_path / "a.tar.gz").read_bytes())
    built = bench.build("s3://packed/export", tmp_path / "out", tmp_path / "private")
    assert bench.tree(built.out) == bench.tree(loose.out)


def test_archives_that_cannot_be_read_are_a_file_each(bench: Any, exported: Path, loose: Any, tmp_path: Path) -> None:
    """One that is cut short says so of itself, and what lies before the cut is written all the same."""
    export = tmp_path / "export"
    export.mkdir()
    packed_zip(exported, export / "cut.zip")
    (export / "cut.zip").write_bytes((export / "cut.zip").read_bytes()[:-2000])
    packed_tar("w")(exported, export / "cut.tar")
    (export / "cut.tar").write_bytes((export / "cut.tar").read_bytes()[:-20000])
    with zipfile.ZipFile(export / "empty.zip", "w"):
        pass
    nothing = io.BytesIO()
    with tarfile.open(fileobj=nothing, mode="w:gz"):
        pass
    (export / "empty.tar.gz").write_bytes(nothing.getvalue())
    built = bench.build(export, tmp_path / "out", tmp_path / "private")
    rows = built.ledger()
    reasons = {path: row["reason"] for path, row in rows.items() if not path.startswith("cut.tar/")}
    assert reasons == {
        "cut.tar": "archive_damaged",
        "cut.zip": "archive_damaged",
        "empty.tar.gz": "empty_file",
        "empty.zip": "empty_file",
    }
    assert 0 < built.outcome.counts["written"]["ok"] <= loose.outcome.counts["written"]["ok"]


@pytest.mark.deep
@pytest.mark.parametrize("name", PACKERS)
def test_real_files_in_an_archive_give_the_dataset_of_the_files(
    bench: Any, real_dicom: Path, tmp_path: Path, name: str
) -> None:
    """The archive lies where the folder lay, as `zip -r` leaves it."""
    loose, packed = tmp_path / "loose", tmp_path / "packed"
    shutil.copytree(real_dicom, loose / "dicom")
    packed.mkdir()
    PACKERS[name](loose, packed / name)
    builds = [
        bench.build(at, tmp_path / f"{at.name}.out", tmp_path / f"{at.name}.private", workers=2)
        for at in (loose, packed)
    ]
    assert builds[0].samples()
    assert bench.tree(builds[1].out) == bench.tree(builds[0].out)
    assert _verdicts(builds[1]) == _verdicts(builds[0], f"{name}/")
