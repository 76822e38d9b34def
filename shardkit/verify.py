"""`shardkit verify`: read every byte of a dataset back and name what is not as the manifest says."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np

from shardkit import dataset, manifest
from shardkit.codecs import codec
from shardkit.convert import pixel_hash
from shardkit.errors import ShardkitError
from shardkit.journal import JOURNALS
from shardkit.shards import webdataset
from shardkit.storage import Store

_REMEDY = "build the shard again from the source"


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
    columns = ["key", "shard", "offset", "length", "level_bytes", "level_hash", "json_hash", "pixel_hash", "bits"]
    samples = samples.select(columns).sort_by("shard")
    names, starts = np.unique(samples["shard"].to_numpy(), return_index=True)
    ends = np.append(starts[1:], samples.num_rows)
    spans = dict(zip(names.tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))
    there = dict(store.list("shards"))
    for name in sorted(there.keys() - spans.keys()):
        yield f"{name}: not in the manifest; remove it, or run the build again if one was interrupted"
    if any(True for _ in store.list(JOURNALS)):
        yield f"{JOURNALS}: journals of an unfinished build; run the same build command again"
    total = 0

    def check(item: tuple[str, tuple[int, int]]) -> tuple[list[str], int]:
        name, (start, end) = item
        if name not in there:
            return [f"{name}: missing; run the build again from the source"], 0
        try:
            data = store.get(name)
        except ShardkitError as error:
            return [str(error)], 0
        rows = samples.slice(start, end - start).to_pylist()
        return list(_shard_problems(name, data, rows, facts, decode)), len(data)

    with ThreadPoolExecutor(workers) as threads:
        for problems, size in threads.map(check, spans.items()):
            total += size
            yield from problems
    yield Summary(samples.num_rows, len(spans), total)


def _shard_problems(
    name: str, data: bytes, rows: list[dict[str, Any]], description: dict[str, Any], decode: bool
) -> Iterator[str]:
    images = {f"{row['key']}.{description['extension']}": row for row in rows}
    facts = {f"{row['key']}.json": row["json_hash"] for row in rows}
    missing = images.keys() | facts.keys()
    try:
        for member in webdataset.members(BytesIO(data), name):
            missing.discard(member.name)
            problem: str | None
            if member.name in images:
                problem = _member_problem(member, images[member.name], description["codec"], decode)
            elif member.name in facts:
                sound = manifest.fingerprint(member.data) == facts[member.name]
                problem = None if sound else "differs from its hash"
            else:
                problem = "is not in the manifest"
            if problem:
                yield f"{name}: member {member.name} at byte {member.offset:,} {problem}; {_REMEDY}"
    except ShardkitError as error:
        yield str(error)
    for lost in sorted(missing):
        yield f"{name}: member {lost} is missing; {_REMEDY}"


def _member_problem(member: webdataset.Member, row: dict[str, Any], codec_name: str, decode: bool) -> str | None:
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
