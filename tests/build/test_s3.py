"""A bucket serves as source and as dataset, and gives the bytes that folders give."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardkit.dataset.rounding import ceil_div
from shardkit.dataset.verify import Summary, verify
from shardkit.sources.files import FileTree
from shardkit.storage import Store


@pytest.fixture(scope="module")
def local(bench: Any, made: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An export without links, which buckets do not have, and its local build."""
    place = tmp_path_factory.mktemp("local")
    paths = [path for path, spec in made.specs.items() if not spec.target][:24]
    bench.copy(made.root, place / "export", paths)
    return place / "export", bench.build(place / "export", place / "out", place / "private")


@pytest.fixture(scope="module")
def bucket(bench: Any, moto: str, local: Any) -> str:
    import boto3

    client = boto3.client("s3", endpoint_url=moto, region_name="us-east-1")
    client.create_bucket(Bucket="hospital")
    store = Store("s3://hospital/export")
    for name, data in bench.tree(local[0]).items():
        store.put(name, data)
    return "s3://hospital"


def _objects(url: str) -> dict[str, bytes]:
    store = Store(url)
    return {name: store.get(name) for name, _ in store.list("")}


@pytest.mark.formats
def test_a_build_from_a_bucket_into_a_bucket_gives_the_bytes_of_a_local_one(
    bench: Any, bucket: str, local: Any, tmp_path: Path
) -> None:
    _, reference = local
    remote = bench.build(f"{bucket}/export", f"{bucket}/data/{bench.form}", tmp_path / "private")
    assert _objects(f"{bucket}/data/{bench.form}") == bench.tree(reference.out)
    assert remote.ledger() == reference.ledger()
    again = bench.build(f"{bucket}/export", f"{bucket}/data/{bench.form}", tmp_path / "private")
    assert again.outcome.new_files == 0
    assert again.before == {}, "a finished shard was converted again"


@pytest.mark.deep
def test_a_killed_build_into_a_bucket_goes_on(bench: Any, bucket: str, local: Any, tmp_path: Path) -> None:
    source, reference = local
    private = tmp_path / "private"
    bench.seed_key(private)
    process = bench.driver(bench.arguments(source, f"{bucket}/killed", private, workers=2))
    assert process.stdout is not None
    said = (line for line in process.stdout if line.startswith("converted"))
    first = {next(said).split()[1] for _ in range(2)}
    process.kill()
    process.communicate()
    assert first <= {name.removesuffix(".tar") for name, _ in Store(f"{bucket}/killed").list("shards")}
    bench.build(source, f"{bucket}/killed", private)
    assert _objects(f"{bucket}/killed") == bench.tree(reference.out)


def test_verify_info_and_preview_read_a_bucket(
    bench: Any, bucket: str, local: Any, tmp_path: Path, command: Callable[..., Any]
) -> None:
    from PIL import Image

    source, reference = local
    bench.build(source, f"{bucket}/read", tmp_path / "private")
    assert [item for item in verify(f"{bucket}/read", True, 2) if not isinstance(item, Summary)] == []
    row = reference.samples()[0]
    run = command("preview", row["key"], "--dataset", f"{bucket}/read", "-o", tmp_path / "x.png", "--level", "1")
    assert run.returncode == 0, run.stderr
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (ceil_div(row["width"], 2), ceil_div(row["height"], 2))
    shown = command("info", f"{bucket}/read")
    assert shown.returncode == 0, shown.stderr
    store = Store(f"{bucket}/read")
    data = bytearray(store.get(row["shard"]))
    data[row["offset"] + row["length"] // 2] ^= 1
    store.put(row["shard"], bytes(data))
    problems = [item for item in verify(f"{bucket}/read", False, 2) if isinstance(item, str)]
    assert len(problems) == 1
    assert f"{row['key']}.j2c" in problems[0]


def test_a_bucket_is_listed_in_the_order_of_a_folder(bucket: str, tmp_path: Path) -> None:
    """Which of two equal files is kept follows the listing, so its order decides bytes."""
    names = ["a/x", "a.dcm", "a-b/y", "a/b/z", "a/b.dcm", "b"]
    store = Store(f"{bucket}/order")
    for name in names:
        store.put(name, b"1")
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    here = [entry.path for entry in FileTree(str(tmp_path)).list()]
    assert [entry.path for entry in FileTree(f"{bucket}/order").list()] == here


def test_a_bucket_without_a_private_folder_is_refused(bench: Any, bucket: str, local: Any) -> None:
    run = bench.cli("build", "--source", local[0], "--out", f"{bucket}/x")
    assert run.returncode == 1
    assert "--private" in run.stderr
