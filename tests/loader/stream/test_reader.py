"""Folders and buckets give the same ranges; what is missing or cut short is named in one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import IntegrityError, StorageError
from shardkit.loader.stream.fetch import Fetcher
from shardkit.loader.stream.reader import Logged, Retrying, StoreReader
from shardkit.storage import MissingObject, Store

NAME, DATA = "shards/0064x0064/00000.tar", random.Random(1).randbytes(200_000)


@pytest.fixture(scope="session")
def bucket(moto: str) -> str:
    import boto3

    boto3.client("s3", endpoint_url=moto, region_name="us-east-1").create_bucket(Bucket="streams")
    Store("s3://streams/set").put(NAME, DATA)
    return "s3://streams/set"


@pytest.fixture(params=["folder", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "bucket":
        return str(request.getfixturevalue("bucket"))
    Store(str(tmp_path)).put(NAME, DATA)
    return str(tmp_path)


def test_a_folder_and_a_bucket_give_the_same_bytes(kit: Any, url: str) -> None:
    draw = random.Random(2)
    ranges = [(0, 1), (0, len(DATA)), (len(DATA) - 1, 1)]
    ranges += [(start, draw.randint(1, len(DATA) - start)) for start in (draw.randrange(len(DATA)) for _ in range(61))]

    async def read() -> list[bytes]:
        reader = StoreReader(url)
        try:
            assert await reader.size(NAME) == len(DATA)
            return list(await asyncio.gather(*(reader.read(NAME, *one) for one in ranges)))
        finally:
            await reader.close()

    assert kit.run(read()) == [DATA[start : start + length] for start, length in ranges]


@pytest.mark.parametrize("start", [len(DATA) - 10, len(DATA), len(DATA) + 1000])
def test_a_short_object_is_named_in_one_sentence(kit: Any, url: str, start: int) -> None:
    with pytest.raises(IntegrityError, match=rf"{url}/{NAME} ends before byte .* cut short; run verify") as caught:
        kit.run(StoreReader(url).read(NAME, start, 11))
    assert kit.one_sentence(caught.value)


def test_a_missing_object_is_named_and_not_asked_for_again(kit: Any, url: str) -> None:
    watched = kit.Watched(StoreReader(url))
    reader = Retrying(watched)
    for job in (reader.read("shards/none.tar", 0, 1), reader.size("shards/none.tar")):
        with pytest.raises(MissingObject, match=rf"{url}/shards/none.tar does not exist") as caught:
            kit.run(job)
        assert kit.one_sentence(caught.value)
    assert (len(watched.calls), watched.sizes) == (1, 1)


def test_a_missing_bucket_is_one_sentence(kit: Any, moto: str) -> None:
    with pytest.raises(StorageError, match="s3://nowhere/set") as caught:
        kit.run(Retrying(StoreReader("s3://nowhere/set")).read(NAME, 0, 1))
    assert kit.one_sentence(caught.value)


def test_closing_leaves_no_thread_and_no_open_file(kit: Any, tidy: None, tmp_path: Path) -> None:
    Store(str(tmp_path)).put(NAME, DATA)

    async def read() -> None:
        reader = StoreReader(str(tmp_path))
        await reader.read(NAME, 0, 10)
        assert kit.open_files(tmp_path)
        await reader.close()

    kit.run(read())
    assert kit.open_files(tmp_path) == []


def test_a_hanging_mount_does_not_hold_up_closing(kit: Any, tidy: None, tmp_path: Path) -> None:
    """A pipe that nobody writes to stands for a network mount that does not answer: the open never returns."""
    os.mkfifo(tmp_path / "hangs")
    fetcher = Fetcher(lambda: StoreReader(str(tmp_path)))
    want = kit.goods(tmp_path / "set", shards=1).every[0]
    future = fetcher.submit([type(want)("hangs", 0, 10, bytes(16), "x")], kit.never)
    assert kit.settles(lambda: "shardkit-read" in kit.threads())
    begun = time.monotonic()
    fetcher.close()
    assert time.monotonic() - begun < 2
    assert future.cancelled()
    with contextlib.suppress(OSError):  # nobody reads, if the request was cancelled before a thread took it
        os.close(os.open(tmp_path / "hangs", os.O_WRONLY | os.O_NONBLOCK))  # the mount is back: the thread ends


def test_a_log_has_a_line_a_read(kit: Any, url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "shardkit.stream")

    async def read() -> None:
        reader = Logged(StoreReader(url))
        assert await reader.read(NAME, 10, 20) == DATA[10:30]
        assert await reader.size(NAME) == len(DATA)
        await reader.close()

    kit.run(read())
    (record,) = [r for r in caplog.records if r.name == "shardkit.stream"]
    assert record.levelno == logging.DEBUG
    assert record.getMessage().startswith(f"{NAME}: bytes 10 to 30 in 0.")
