"""`shardkit transcode`: a dataset in another format, its pixels and its manifest's facts the same, without the DICOM.

Like a build it commits whole shards and journals each before, so that a run goes on where the last one ended. What it
makes cannot be appended to: ledger, plans and key stay with the dataset that it was made from.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from shardkit import formats, labels
from shardkit.build import exclusive, journal, shard_plan
from shardkit.build.checks import check_format
from shardkit.build.ingest import public_facts, storage_columns
from shardkit.build.relations import DATASET_FLAGS
from shardkit.codecs import codec
from shardkit.codecs.placement import Placement
from shardkit.dataset import contents, manifest
from shardkit.dataset.contents import JOURNALS
from shardkit.dataset.describing import describe
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint, pixel_hash
from shardkit.dataset.sample_row import StorageColumns
from shardkit.errors import ArgumentError, BuildError, IntegrityError, Quarantined
from shardkit.formats.encoding import encode
from shardkit.storage import Store, translate_errors

_BEGUN = f"{JOURNALS}/convert.json"
_STORED = [*StorageColumns.__annotations__]


@dataclass(frozen=True, slots=True)
class Target:
    """What to make.

    Attributes
    ----------
    out : str
        Folder or bucket url of the new dataset.
    format, codec : str
        Of its shards and images.
    levels : int
        Smaller images stored beside each, where the codec has none inside.
    shard_bytes : int or None
        Size aimed at for a shard; None for that of the source.
    """

    out: str
    format: str
    codec: str
    levels: int
    shard_bytes: int | None


@dataclass(frozen=True, slots=True)
class Done:
    """Counts of a transcoded dataset.

    Attributes
    ----------
    samples, shards : int
        Of the new dataset.
    kept : int
        Shards that an earlier run had finished.
    """

    samples: int
    shards: int
    kept: int


@dataclass(frozen=True, slots=True)
class _Shard:
    name: str
    samples: pa.Table
    capacity: int


def transcode(url: str, target: Target, workers: int) -> Done:
    """Write the dataset at `url` as `target`.

    Parameters
    ----------
    url : str
        Folder or bucket url of a dataset.
    target : Target
        What to make.
    workers : int
        Shards at a time.

    Raises
    ------
    ArgumentError
        For a format or codec that cannot be, or places that lie in one another.
    BuildError
        For a place that holds something else, or that another run works on.
    IntegrityError
        For damage in the source.
    """
    check_format(target.format, target.codec, target.levels)
    source, store = Store(url), Store(target.out)
    if f"{store.url}/".startswith(f"{source.url}/") or f"{source.url}/".startswith(f"{store.url}/"):
        raise ArgumentError(f"{store.url} and {source.url} lie in one another: name another place for the new dataset")
    with exclusive.alone(None, store) as held:
        return _transcode(source, store, target, workers, held)


def _transcode(source: Store, store: Store, target: Target, workers: int, held: exclusive.Running) -> Done:
    before = contents.description(source)
    samples = contents.samples(source, described=before)
    arguments = {**before.arguments} | {"format": target.format, "codec": target.codec, "levels": target.levels}
    if target.shard_bytes is not None:
        arguments["shard_bytes"] = target.shard_bytes
    if not _begin(store, before.digest, arguments):
        shards = contents.description(store).shards
        return Done(samples.num_rows, shards, shards)
    plan = list(_plan(samples, before, arguments))
    done = _finished(store, plan, arguments)
    todo = [shard for shard in plan if shard.name not in done]
    threads = ThreadPoolExecutor(workers)  # codecs let other threads run
    try:
        for _ in threads.map(lambda shard: _write(source, before, store, arguments, shard), todo):
            held.check()
    finally:
        threads.shutdown(cancel_futures=True)
    _publish(source, store, before, arguments, plan)
    return Done(samples.num_rows, len(plan), len(done))


def _begin(store: Store, digest: str, arguments: dict[str, Any]) -> bool:
    """Whether there is work to do. Raises BuildError when the place holds anything but this conversion."""
    wanted = {"digest": digest, "arguments": arguments}
    if store.exists(contents.NAME):
        there = contents.description(store)
        if {"digest": there.converted_from, "arguments": there.arguments} == wanted:
            return False
        raise BuildError(f"{store.url} holds another dataset: choose another place, or remove it")
    if store.exists(_BEGUN):
        if json.loads(store.get(_BEGUN)) != wanted:
            raise BuildError(f"{store.url} holds another unfinished conversion: repeat its command, or remove it")
    elif any(True for form in formats.FORMATS.values() for _ in formats.listing(store, form)):
        raise BuildError(f"{store.url} holds shards of something else: choose another place, or remove them")
    store.put(_BEGUN, json.dumps(wanted).encode())
    return True


def _plan(samples: pa.Table, before: DatasetDescription, arguments: dict[str, Any]) -> Iterator[_Shard]:
    """Yield the samples bin by bin in the manifest's order, cut into shards."""
    form = formats.shard_format(arguments["format"])
    for bin in before.bins.bins:
        here = pc.and_(pc.equal(samples["bin_height"], bin.height), pc.equal(samples["bin_width"], bin.width))
        table = samples.filter(here)
        capacity = form.capacity(bin, arguments["shard_bytes"])
        if not table.num_rows:
            continue
        ends = shard_plan.ends(table["length"].to_numpy(), arguments["shard_bytes"], capacity)
        for number, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            yield _Shard(f"shards/{bin.name}/{number:05d}", table.slice(start, end - start), capacity)


def _objects(arguments: dict[str, Any], name: str) -> list[str]:
    return formats.shard_format(arguments["format"]).objects(name, arguments["levels"])


def _finished(store: Store, plan: list[_Shard], arguments: dict[str, Any]) -> set[str]:
    there = {name for name, _ in formats.listing(store, formats.shard_format(arguments["format"]))}
    journals = {name for name, _ in store.list(JOURNALS)}
    whole = [shard.name for shard in plan if _objects(arguments, shard.name)[0] in there]
    return {name for name in whole if journal.object_name(0, name) in journals}


def _write(source: Store, before: DatasetDescription, store: Store, arguments: dict[str, Any], shard: _Shard) -> None:
    """Decode, check, encode and commit one shard."""
    form, objects = formats.shard_format(arguments["format"]), _objects(arguments, shard.name)
    extension, rows = codec(arguments["codec"]).EXTENSION, shard.samples.to_pylist()
    with translate_errors(store.url), journal.staging(store) as folder:
        staged = formats.files(folder, "shard", len(objects))
        with form.writer(staged, shard.capacity) as writer:
            for row in rows:
                pixels = contents.image(source, row, before)
                if pixel_hash(pixels, row["bits"]) != row["pixel_hash"]:
                    raise IntegrityError(
                        f"{source.url}/{row['shard']}: the image of {row['key']} has other pixels than were written;"
                        " run verify"
                    )
                try:
                    image = encode(pixels, row["bits"], Placement.of(row), arguments["codec"], arguments["levels"])
                except Quarantined as failed:
                    raise IntegrityError(f"{row['key']}: {failed.message}; use another codec") from None
                facts = public_facts({**row, "flags": sorted({*row["flags"]} - DATASET_FLAGS)})
                row |= storage_columns(image) | {"shard": objects[0]}
                row["json_hash"] = fingerprint(facts) if form.FACTS else None
                row["offset"] = writer.add(row["key"], extension, image.image, facts, image.smaller)
        journal.write(store, 0, shard.name, rows)
        formats.commit(store, objects, staged)


def _publish(
    source: Store, store: Store, before: DatasetDescription, arguments: dict[str, Any], plan: list[_Shard]
) -> None:
    """Manifest, arrays, labels and report, then dataset.json, which makes the place a dataset."""
    samples = manifest.SCHEMA.empty_table()
    if plan:
        samples = pa.concat_tables([shard.samples for shard in plan])
        stored = pa.concat_tables([journal.read(store, 0, shard.name, _STORED) for shard in plan])
        for name in _STORED:
            samples = samples.set_column(samples.schema.get_field_index(name), name, stored[name])
    samples = samples.cast(manifest.SCHEMA)
    description = describe(
        samples,
        before.bins,
        manifest.write(samples, store),
        format_name=arguments["format"],
        codec_name=arguments["codec"],
        fingerprint=before.key_fingerprint,
        arguments=arguments,
        verdicts={verdict: {**reasons} for verdict, reasons in before.verdicts.items()},
        converted_from=before.digest,
    )
    from shardkit.report import dataset_page

    contents.write_metadata(store, samples, description)
    _copy_labels(source, before, store, description)
    dataset_page.write(store, samples, description)
    store.put(contents.NAME, description.to_json().encode())
    journal.clear(store)


def _copy_labels(source: Store, before: DatasetDescription, store: Store, description: DatasetDescription) -> None:
    """Take labels over: keys stay the same. Those that were joined with an older manifest stay stale."""
    for name in labels.names(source):
        table = labels.read(source, name)
        if table.description.dataset == before.digest:
            table = replace(table, description=replace(table.description, dataset=description.digest))
        labels.write(store, table)
