"""`shardkit verify`: read every byte of a dataset back and name what is not as the manifest says."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import numpy as np

from shardkit.build.ingest import pixel_hash
from shardkit.build.journal import JOURNALS
from shardkit.codecs import codec
from shardkit.codecs.base import CodestreamCodec
from shardkit.codecs.frame import Frame
from shardkit.dataset import contents, manifest
from shardkit.dataset.bins import Bin
from shardkit.errors import IntegrityError, ShardkitError, clean
from shardkit.formats import listing, webdataset, zarr, zarr_arrays
from shardkit.storage.store import MissingObject, Store

_REMEDY = "build the shard again from the source"
_ANEW = "copy the dataset again, or build it anew elsewhere"
_COLUMNS = ["key", "shard", "offset", "length", "level_bytes", "level_hash", "json_hash", "pixel_hash"]
_FACTS = ["height", "width", "bits", "box_top", "box_left", "box_height", "box_width", "min", "max", "p0_5", "p99_5"]
_COLUMNS += [*_FACTS, "bin_height", "bin_width"]
_BESIDE = 128 << 10  # bytes that a shard may have beside its images: for each its JSON and headers, once an index


@dataclass(frozen=True, slots=True)
class Summary:
    """What was read."""

    samples: int
    shards: int
    bytes: int


def verify(url: str, decode: bool, workers: int) -> Iterator[str | Summary]:
    """Problems, one sentence each, then the summary. Raises ArgumentError where there is no dataset."""
    store = Store(url)
    facts = contents.description(store)
    samples = contents.samples(store, facts=facts)
    form = contents.form_of(facts)
    derived = form.metadata(samples, facts)
    samples = samples.select(_COLUMNS).sort_by("shard")
    names, starts = np.unique(samples["shard"].to_numpy(), return_index=True)
    ends = np.append(starts[1:], samples.num_rows)
    spans = dict(zip(names.tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))
    levels = facts["arguments"].get("levels", 0)
    objects = {form.part(name, level): (name, level) for name in spans for level in range(levels + 1)}
    there = dict(listing(store, form))
    for name in sorted(there.keys() - objects.keys()):
        yield f"{name}: not in the manifest; remove it, or run the build again if one was interrupted"
    if any(True for _ in store.list(JOURNALS)):
        yield f"{JOURNALS}: journals of an unfinished build; run the same build command again"
    total = 0

    def check(item: tuple[str, tuple[str, int]]) -> tuple[list[str], int]:
        name, (shard, level) = item
        start, end = spans[shard]
        if name not in there:
            return [f"{name}: missing; run the build again from the source"], 0
        rows = samples.slice(start, end - start).to_pylist()
        most = sum(row["level_bytes"][level] + _BESIDE for row in rows) + _BESIDE
        try:
            data = store.get(name, most)
        except ShardkitError as error:
            return [str(error)], 0
        problems = _tar_problems if form is webdataset else _zarr_problems
        return list(problems(name, level, data, rows, facts, decode)), len(data)

    with ThreadPoolExecutor(workers) as threads:
        for problems, size in threads.map(check, objects.items()):
            total += size
            yield from problems
        for problem in threads.map(lambda item: _derived_problem(store, *item), chain.from_iterable(derived)):
            if problem:
                yield problem
    yield Summary(samples.num_rows, len(spans), total)


def _derived_problem(store: Store, name: str, wanted: bytes) -> str | None:
    """What is wrong with an object that follows from the manifest."""
    try:
        most = 2 * len(wanted) + _BESIDE  # another version of a compressor may have needed more than ours
        if zarr_arrays.same(name, wanted, store.get(name, most)):
            return None
    except MissingObject:
        return f"{name}: missing; {_ANEW}"
    except ShardkitError as error:
        return f"{name}: cannot be read ({error}); {_ANEW}"
    return f"{name}: differs from what the manifest says; {_ANEW}"


def _tar_problems(
    name: str, level: int, data: bytes, rows: list[dict[str, Any]], description: dict[str, Any], decode: bool
) -> Iterator[str]:
    images = {f"{row['key']}.{description['extension']}": row for row in rows}
    facts = {f"{row['key']}.json": row for row in rows}
    missing = images.keys() | facts.keys()
    try:
        for member in webdataset.members(BytesIO(data), name):
            missing.discard(member.name)
            problem: str | None
            if member.name in images:
                problem = _member_problem(member, images[member.name], description, decode)
            elif member.name in facts:
                problem = _facts_problem(member.data, facts[member.name])
            else:
                problem = "is not in the manifest"
            if problem:
                yield f"{name}: member {clean(member.name[:200])} at byte {member.offset:,} {problem}; {_REMEDY}"
    except ShardkitError as error:
        yield str(error)
    for lost in sorted(missing):
        yield f"{name}: member {lost} is missing; {_REMEDY}"


def _facts_problem(data: bytes, row: dict[str, Any]) -> str | None:
    """Whether a JSON member is the one that was written, and says of the image what the manifest says."""
    if manifest.fingerprint(data) != row["json_hash"]:
        return "differs from its hash"
    try:
        told = json.loads(data)
        wrong = [name for name in _FACTS if told[name] != row[name]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "is no JSON of a sample"
    return f"has another {wrong[0]} than the manifest" if wrong else None


def _member_problem(
    member: webdataset.Member, row: dict[str, Any], description: dict[str, Any], decode: bool
) -> str | None:
    if member.offset != row["offset"] or len(member.data) != row["length"]:
        return "is not where the manifest says, or has another length"
    for level, (length, digest) in enumerate(zip(row["level_bytes"], row["level_hash"], strict=True)):
        if manifest.fingerprint(member.data[:length]) != digest:
            return f"differs from its hash (level {level})"
    how = codec(description["codec"])
    if isinstance(how, CodestreamCodec):
        # Datasets of before do not claim the transfer syntax: there, five levels of a large image are no damage.
        claimed = description.get("transfer_syntax") is not None
        if fault := how.fault(member.data, row["height"], row["width"], row["level_bytes"], claimed):
            return f"is no stream of {how.SYNTAX_NAME}: {fault}"
    try:
        how.check(member.data, Frame.of(row))
    except IntegrityError as error:
        return f"is not the image of the manifest: {error}"
    return _pixel_problem(member.data, row, description["codec"], 0) if decode else None


def _zarr_problems(
    name: str, level: int, data: bytes, rows: list[dict[str, Any]], description: dict[str, Any], decode: bool
) -> Iterator[str]:
    """An object holds a level of its shard's images, from the first place on and without gaps, then the index."""
    bin = Bin(rows[0]["bin_height"], rows[0]["bin_width"])
    places = zarr.places(bin, description["arguments"]["shard_bytes"])
    lengths = np.array([row["level_bytes"][level] for row in rows], np.int64)
    starts = np.cumsum(lengths) - lengths
    try:
        index = zarr.read_index(data[-zarr.index_bytes(places) :], places, name)
    except ShardkitError as error:
        yield str(error)
        return
    wanted = np.full((places, 2), -1, np.int64)
    wanted[: len(rows)] = np.stack([starts, lengths], 1)
    if not np.array_equal(index, wanted) or len(data) != int(lengths.sum()) + zarr.index_bytes(places):
        yield f"{name}: its index places images elsewhere than the manifest says; {_REMEDY}"
        return
    for row, start, length in zip(rows, starts.tolist(), lengths.tolist(), strict=True):
        chunk = data[start : start + length]
        problem = None
        if level == 0 and row["offset"] != start:
            problem = "is not where the manifest says"
        elif manifest.fingerprint(chunk) != row["level_hash"][level]:
            problem = f"differs from its hash (level {level})"
        elif decode:
            problem = _pixel_problem(chunk, row, description["codec"], level)
        if problem:
            yield f"{name}: image {row['key']} at byte {start:,} {problem}; {_REMEDY}"


def _pixel_problem(data: bytes, row: dict[str, Any], codec_name: str, level: int) -> str | None:
    """Whether an image's bytes are its pixels; a smaller image has no hash of its pixels, but must decode."""
    try:
        pixels = codec(codec_name).decode(data, level, row["bits"], Frame.of(row))
    except ShardkitError as error:
        return f"cannot be decoded ({error})"
    if not level and pixel_hash(pixels, row["bits"]) != row["pixel_hash"]:
        return "decodes to other pixels than were written"
    return None
