"""A half-written version is never seen: writers that end anywhere, and readers beside them, in folders and buckets."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from shardkit import labels
from shardkit.errors import ArgumentError
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.labels.base import BOXES
from shardkit.storage import Store

ROWS = 50


def version(number: int) -> LabelTable:
    """Labels all of whose parts say which version they are."""
    keys = [f"{i:04d}" for i in range(ROWS)]
    splits = pa.array([str(number)] * ROWS)
    table = pa.table({"key": keys, "n": pa.array([float(number)] * ROWS), "split": splits})
    boxes = pa.table([["0000"], ["n"], [float(number)], [0.0], [1.0], [1.0]], schema=BOXES)
    counts = {"matched": ROWS, "ambiguous": 0, "unmatched": 0}
    description = LabelsDescription(name="x", level="image", kinds={"n": "number"}, rows=counts, sources=(str(number),))
    return LabelTable(description, table, boxes)


def seen(store: Store) -> int:
    """The version that a reader sees, all of it."""
    found = labels.read(store, "x")
    assert found.boxes is not None
    numbers = {*found.table["n"].to_pylist(), *found.boxes["top"].to_pylist(), *map(float, found.description.sources)}
    assert len(numbers) == 1
    assert set(found.table["split"].to_pylist()) == {str(int(next(iter(numbers))))}
    return int(numbers.pop())


class Ended(BaseException):
    """The writer is no more."""


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "dataset")
    request.getfixturevalue("moto")
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"], region_name="us-east-1")
    name = f"labels-{tmp_path.name.replace('_', '-').lower()[:40]}"
    client.create_bucket(Bucket=name)
    return f"s3://{name}/dataset"


def test_a_writer_that_ends_anywhere_leaves_a_whole_version_and_the_next_one_cleans_up(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels.write(Store(url), version(1))
    put, delete = Store.put, Store.delete
    for ending in range(8):
        calls = 0

        def counted(act: Any, ending: int = ending) -> Any:
            def run(store: Store, *arguments: Any) -> None:
                nonlocal calls
                calls += 1
                if calls > ending:
                    raise Ended
                act(store, *arguments)

            return run

        monkeypatch.setattr(Store, "put", counted(put))
        monkeypatch.setattr(Store, "delete", counted(delete))
        try:
            labels.write(Store(url), version(2))
        except Ended:
            ended = True
        else:
            ended = False
        monkeypatch.undo()
        assert seen(Store(url)) == (1 if ending < 2 else 2)
        if not ended:
            break
        whole = labels.write(Store(url), version(2))
        assert whole.description.replaces
        assert seen(Store(url)) == 2
        assert len(list(Store(url).list("labels"))) == 2
        labels.write(Store(url), version(1))
    assert ending == 3  # boxes, table, the old boxes


def test_a_removal_that_ends_anywhere_leaves_a_whole_version_or_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels.write(Store(url), version(1))
    delete = Store.delete

    def once(store: Store, name: str) -> None:
        delete(store, name)
        raise Ended

    monkeypatch.setattr(Store, "delete", once)
    with pytest.raises(Ended):
        labels.remove(Store(url), "x")
    monkeypatch.undo()
    with pytest.raises(ArgumentError, match="has no labels named x"):
        labels.read(Store(url), "x")
    labels.write(Store(url), version(2))
    assert seen(Store(url)) == 2
    assert len(list(Store(url).list("labels"))) == 2


def test_readers_beside_a_writer_see_whole_versions_only(tmp_path: Path) -> None:
    url = str(tmp_path / "dataset")
    labels.write(Store(url), version(0))
    stop, found, failed = threading.Event(), set[int](), list[BaseException]()

    def look() -> None:
        store = Store(url)
        try:
            while not stop.is_set():
                found.add(seen(store))
        except BaseException as error:
            failed.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    number = 0
    while len(found) < 5 and not failed and number < 2000:
        number += 1
        labels.write(Store(url), version(number))
    stop.set()
    for reader in readers:
        reader.join()
    assert failed == []
    assert len(found) >= 5


@pytest.mark.deep
def test_writers_killed_at_any_moment_leave_a_whole_version(tmp_path: Path) -> None:
    url, chance = str(tmp_path / "dataset"), random.Random(7)
    labels.write(Store(url), version(0))
    script = (
        "import sys\nfrom shardkit import labels\nfrom shardkit.storage import Store\n"
        "from tests.labels.test_versions import version\n"
        "for n in range(int(sys.argv[2]), 10**9):\n"
        "    labels.write(Store(sys.argv[1]), version(n))\n"
        "    print(n, flush=True)\n"
    )
    last, kills = 0, 0
    while kills < 20:
        command = [sys.executable, "-c", script, url, str(last + 1)]
        root = Path(__file__).resolve().parents[2]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(chance.random() * 0.1)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        kills += 1
        now = seen(Store(url))
        assert now >= last
        last = now
    assert last > kills
    labels.write(Store(url), version(last + 1))
    assert len(list(Store(url).list("labels"))) == 2
