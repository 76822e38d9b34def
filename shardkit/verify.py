"""`shardkit verify`: read every byte of a dataset back and name what is not as the manifest says."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from shardkit import dataset, manifest
from shardkit.codecs import codec
from shardkit.convert import pixel_hash
from shardkit.errors import ShardkitError
from shardkit.journal import JOURNALS
from shardkit.shards import webdataset
from shardkit.storage import Store


@dataclass(frozen=True, slots=True)
class Summary:
    """What was read."""

    samples: int
    shards: int
    bytes: int


def verify(url: str, decode: bool, workers: int) -> Iterator[str | Summary]:
    """Problems, one sentence each, then the summary. Raises ArgumentError where there is no dataset."""
    store = Store(url)
    facts = dataset.description(store)
    samples = dataset.samples(store)
    shards: dict[str, list[dict[str, Any]]] = {}
    columns = ["key", "shard", "offset", "length", "level_bytes", "level_hash", "json_hash", "pixel_hash", "bits"]
    for row in samples.select(columns).to_pylist():
        shards.setdefault(row["shard"], []).append(row)
    there = dict(store.list("shards"))
    for name in sorted(there.keys() - shards.keys()):
        yield f"{name}: not in the manifest; remove it, or run the build again if one was interrupted"
    if any(True for _ in store.list(JOURNALS)):
        yield f"{JOURNALS}: journals of an unfinished build; run the same build command again"
    total = 0

    def check(item: tuple[str, list[dict[str, Any]]]) -> tuple[list[str], int]:
        name, rows = item
        if name not in there:
            return [f"{name}: missing; run the build again from the source"], 0
        try:
            data = store.get(name)
        except ShardkitError as error:
            return [str(error)], 0
        return list(_shard_problems(name, data, rows, facts, decode)), len(data)

    with ThreadPoolExecutor(workers) as threads:
        for problems, size in threads.map(check, sorted(shards.items())):
            total += size
            yield from problems
    yield Summary(samples.num_rows, len(shards), total)


def _shard_problems(
    name: str, data: bytes, rows: list[dict[str, Any]], description: dict[str, Any], decode: bool
) -> Iterator[str]:
    members: dict[str, webdataset.Member] = {}
    try:
        for member in webdataset.members(BytesIO(data), name):
            members[member.name] = member
    except ShardkitError as error:
        yield str(error)
    expected = {f"{row['key']}.{ending}" for row in rows for ending in (description["extension"], "json")}
    for extra in sorted(members.keys() - expected):
        yield f"{name}: member {extra} is not in the manifest"
    for row in rows:
        image = f"{row['key']}.{description['extension']}"
        facts = members.get(f"{row['key']}.json")
        if facts is None:
            yield f"{name}: member {row['key']}.json is missing; build the shard again from the source"
        elif manifest.fingerprint(facts.data) != row["json_hash"]:
            yield f"{name}: member {facts.name} differs from its hash; build the shard again from the source"
        problem = _member_problem(members.get(image), row, description["codec"], decode)
        if problem:
            yield f"{name}: member {image} at byte {row['offset']:,} {problem}; build the shard again from the source"


def _member_problem(member: webdataset.Member | None, row: dict[str, Any], codec_name: str, decode: bool) -> str | None:
    if member is None:
        return "is missing"
    if member.offset != row["offset"] or len(member.data) != row["length"]:
        return "is not where the manifest says, or has another length"
    for level, (length, digest) in enumerate(zip(row["level_bytes"], row["level_hash"], strict=True)):
        if manifest.fingerprint(member.data[:length]) != digest:
            return f"differs from its hash (level {level})"
    if decode:
        try:
            pixels = codec(codec_name)[0].decode(member.data)
        except ShardkitError as error:
            return f"cannot be decoded ({error})"
        if pixel_hash(pixels, row["bits"]) != row["pixel_hash"]:
            return "decodes to other pixels than were written"
    return None
