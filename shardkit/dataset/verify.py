"""`shardkit verify`: read every byte of a dataset back and name what is not as the manifest says."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np

from shardkit.dataset import contents
from shardkit.dataset.contents import JOURNALS
from shardkit.errors import ShardkitError
from shardkit.formats import form_of, listing
from shardkit.formats.base import ShardFormat
from shardkit.labels import verify as labels
from shardkit.storage import MissingObject, Store

_ANEW = "copy the dataset again, or build it anew elsewhere"
_COLUMNS = (
    "key", "shard", "offset", "length", "level_bytes", "level_hash", "json_hash", "pixel_hash", "height", "width",
    "bits", "bin_height", "bin_width", "box_top", "box_left", "box_height", "box_width", "min", "max", "p0_5", "p99_5",
)  # fmt: skip
"""Those that formats hold objects against."""
_BESIDE = 128 << 10  # bytes that a shard may have beside its images: for each its JSON and headers, once an index


@dataclass(frozen=True, slots=True)
class Summary:
    """What a verification has read: samples, shards, and bytes of all shards' objects."""

    samples: int
    shards: int
    bytes: int


def verify(url: str, decode: bool, workers: int) -> Iterator[str | Summary]:
    """Read every byte of a dataset back.

    Parameters
    ----------
    url : str
        The dataset.
    decode : bool
        Whether images are decoded and their pixels compared, too.
    workers : int
        Threads that read.

    Yields
    ------
    str or Summary
        Problems, one sentence each; at the end the summary.

    Raises
    ------
    ArgumentError
        There is no dataset.
    """
    store = Store(url)
    described = contents.description(store)
    samples = contents.samples(store, described=described)
    form = form_of(described)
    derived = form.metadata(samples, described)
    said_of = samples.select(["key", "patient", "study", "height", "width"])
    samples = samples.select(_COLUMNS).sort_by("shard")
    names, starts = np.unique(samples["shard"].to_numpy(), return_index=True)
    ends = np.append(starts[1:], samples.num_rows)
    spans = dict(zip(names.tolist(), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))
    objects = {form.part(name, level): (name, level) for name in spans for level in range(described.levels + 1)}
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
        return list(form.verify(name, level, data, rows, described, decode)), len(data)

    with ThreadPoolExecutor(workers) as threads:
        for problems, size in threads.map(check, objects.items()):
            total += size
            yield from problems
        for problem in threads.map(lambda item: _derived_problem(store, form, *item), chain.from_iterable(derived)):
            if problem:
                yield problem
    yield from labels.problems(store, said_of)
    yield Summary(samples.num_rows, len(spans), total)


def _derived_problem(store: Store, form: ShardFormat, name: str, wanted: bytes) -> str | None:
    """Say what is wrong with an object that follows from the manifest; None where nothing is."""
    try:
        most = 2 * len(wanted) + _BESIDE  # another version of a compressor may have needed more than ours
        if form.same(name, wanted, store.get(name, most)):
            return None
    except MissingObject:
        return f"{name}: missing; {_ANEW}"
    except ShardkitError as error:
        return f"{name}: cannot be read ({error}); {_ANEW}"
    return f"{name}: differs from what the manifest says; {_ANEW}"
