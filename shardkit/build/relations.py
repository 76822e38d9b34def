"""What samples are to one another: near-duplicates, suspects of polarity, shared UIDs; and so flags, groups and splits.

Thumbnails confirm what hashes suggest. The judgements themselves, without I/O, are `shardkit.build.duplicates`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build import duplicates
from shardkit.content import THUMB
from shardkit.dataset import manifest, near
from shardkit.dataset.near import Pairs
from shardkit.storage import parquet, spill
from shardkit.storage.spill import Spill

DATASET_FLAGS = {"near_duplicate", "polarity_suspect", "uid_collision"}
"""Flags that depend on other samples."""
_BATCH = 4096  # thumbnails read at once
_BLOCK = 1 << 16  # rows handled as Python objects at once


@dataclass(frozen=True)
class Thumbnails:
    """The thumbnails of all generations."""

    files: list[Path]

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield all rows, some thousand at a time: of a shard's row group there may be few."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                waiting, rows = list[pa.Table](), 0
                for table in parquet.blocks(file, columns, _BATCH):
                    waiting.append(table)
                    rows += table.num_rows
                    if rows >= _BATCH:
                        joined = pa.concat_tables(waiting)
                        yield from joined.slice(0, _BATCH).combine_chunks().to_batches()
                        waiting, rows = [joined.slice(_BATCH)], rows - _BATCH
                if rows:
                    yield from pa.concat_tables(waiting).combine_chunks().to_batches()

    def rows(self, samples: Spill) -> npt.NDArray[np.int64]:
        """Return the row of the sample of each thumbnail that `batches` yields; -1 where it is none's.

        Both lie in the same order as a rule, which takes no table of all samples to see.
        """
        keys, start, same = samples.select(["key"]), 0, True
        for batch in self.batches(["key"]):
            same = same and pa.chunked_array([batch["key"]]).equals(keys.slice(start, batch.num_rows)["key"])
            start += batch.num_rows
        if same and start == samples.num_rows:
            return np.arange(start)
        own = pa.chunked_array([batch["key"] for batch in self.batches(["key"])], pa.string())
        at = pc.index_in(own, samples["key"].combine_chunks())
        return np.asarray(at.fill_null(-1).to_numpy(), np.int64)

    def of(self, keys: pa.Array) -> npt.NDArray[np.uint8]:
        """Return the thumbnails of `keys`, in their order: (n, pixels) uint8."""
        out = np.zeros((len(keys), THUMB**2), np.uint8)
        if len(keys):
            for batch in self.batches():
                at = pc.index_in(keys, batch["key"])
                found = np.flatnonzero(pc.is_valid(at).to_numpy(zero_copy_only=False))
                if len(found):
                    out[found] = _pixels(batch["thumb"].take(at.drop_null()))
        return out


def _pixels(column: pa.Array) -> npt.NDArray[np.uint8]:
    return np.frombuffer(b"".join(column.to_pylist()), np.uint8).reshape(-1, THUMB**2)


def confirmed_pairs(samples: Spill, thumbs: Thumbnails) -> tuple[Pairs, Pairs]:
    """Find near-duplicates, and pairs of an image and its negative: close hashes, confirmed by correlation."""
    hashes = samples["phash"].to_numpy()
    out = []
    for sign, pairs in ((1, near.near_pairs(hashes)), (-1, near.inverted_pairs(hashes))):
        nodes, flat = np.unique(pairs, return_inverse=True)
        pixels = thumbs.of(samples.select(["key"]).take(nodes)["key"].combine_chunks())
        ends = flat.reshape(pairs.shape)
        r = near.correlation(pixels[ends[:, 0]], pixels[ends[:, 1]])
        out.append(pairs[sign * r >= near.MIN_CORRELATION])
    return out[0], out[1]


def finish_samples(
    samples: Spill, thumbs: Thumbnails, links: list[Path], split: Callable[[str], str], place: Path
) -> Spill:
    """Return the samples with flags, groups and splits as the whole dataset gives them.

    Parameters
    ----------
    samples : Spill
        The dataset's manifest rows.
    thumbs : Thumbnails
        Of all samples.
    links : list of Path
        What `finalize.write_links` wrote in each generation.
    split : callable
        Takes a patient's pseudonym to train, val or test.
    place : Path
        Folder of the spill of new columns.
    """
    same, inverse = confirmed_pairs(samples, thumbs)
    both = np.concatenate([same, inverse])
    found: dict[int, set[str]] = {}
    suspects = set(duplicates.minority_sides(samples.num_rows, same, inverse).tolist()) if len(inverse) else set()
    for flag, nodes in (
        ("near_duplicate", set(np.unique(both).tolist())),
        ("polarity_suspect", suspects | _off_template(samples, thumbs) | _with_flag(samples, "polarity_conflict")),
        ("uid_collision", set(_shared_uids(samples))),
    ):
        for node in nodes:
            found.setdefault(node, set()).add(flag)
    groups, splits = _groups(samples, both), _splits(samples, both, links, split)
    names, start, path = pa.array(duplicates.SPLITS), 0, place / "judged"
    with spill.writing(path, pa.schema([manifest.SCHEMA.field(name) for name in ("flags", "group", "split")])) as sink:
        for batch in samples.select(["flags"]).to_batches():
            end = start + batch.num_rows
            columns = {
                "flags": _flags(batch["flags"], {row: found[row] for row in range(start, end) if row in found}, start),
                "group": pa.array([groups.get(row) for row in range(start, end)], pa.string()),
                "split": names.take(pa.array(splits[start:end])),
            }
            sink.write(pa.table(columns))
            start = end
    return samples.with_columns(path)


def _with_flag(samples: Spill, flag: str) -> set[int]:
    found, start = set[int](), 0
    for batch in samples.select(["flags"]).to_batches():
        flags = batch["flags"]
        there = pc.list_parent_indices(flags).filter(pc.equal(flags.flatten(), flag))
        found |= {start + row for row in there.to_pylist()}
        start += batch.num_rows
    return found


def _groups(samples: Spill, pairs: Pairs) -> dict[int, str]:
    """Row -> the least key of its group of near-duplicates, for rows in one."""
    nodes = np.unique(pairs)
    keys = samples.select(["key"]).take(nodes)["key"].to_pylist()
    labels = duplicates.components(len(nodes), np.searchsorted(nodes, pairs))
    least: dict[int, str] = {}
    for label, key in zip(labels.tolist(), keys, strict=True):
        least[label] = min(key, least.get(label, key))
    return {node: least[label] for node, label in zip(nodes.tolist(), labels.tolist(), strict=True)}


def _flags(column: pa.Array, found: dict[int, set[str]], start: int) -> pa.Array:
    """Each row's own flags and those found now; dataset-wide flags of former generations are found anew."""
    if not found and not len(column.flatten()):
        return column
    rows = column.to_pylist()
    new = [sorted({*row} - DATASET_FLAGS | found.get(i, set())) for i, row in enumerate(rows, start)]
    return pa.array(new, column.type)


def _splits(samples: Spill, pairs: Pairs, links: list[Path], split: Callable[[str], str]) -> npt.NDArray[np.int8]:
    """Each row's split: one for all patients that near-duplicates, dropped duplicates or a common study connect."""
    encoded = samples["patient"].dictionary_encode().combine_chunks()
    patients = encoded.indices.to_numpy(zero_copy_only=False)
    tables = [parquet.read(path, ["a", "b"]) for path in links]
    linked = [chunk for table in tables for name in ("a", "b") for chunk in table[name].chunks]
    strangers, ends = _numbered(encoded.dictionary, pa.chunked_array(linked, pa.string()))
    cuts = np.cumsum([0, *(table.num_rows for table in tables for _ in "ab")])
    sides = [np.concatenate([ends[cuts[i] : cuts[i + 1]] for i in range(side, 2 * len(tables), 2)]) for side in (0, 1)]
    connected = [patients[pairs], _study_pairs(samples["study"], patients), np.stack(sides, 1)]
    names = pa.chunked_array([encoded.dictionary, strangers], pa.string())
    own = [
        duplicates.SPLITS.index(split(name))
        for start in range(0, len(names), _BLOCK)
        for name in names.slice(start, _BLOCK).to_pylist()
    ]
    shared = duplicates.shared_splits(np.array(own, np.int8), np.unique(np.concatenate(connected), axis=0))
    return np.asarray(shared[patients], np.int8)


def _numbered(names: pa.Array, others: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """Return those of `others` that are not in `names`, and the number of each of `others` in both together.

    The names, of which there may be many more, are looked up among the others.
    """
    distinct = pc.unique(others)
    at = pc.index_in(names, distinct)
    number = np.full(len(distinct), -1, np.int64)
    number[at.drop_null().to_numpy()] = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    new = number < 0
    number[new] = len(names) + np.arange(np.count_nonzero(new))
    which = np.asarray(pc.index_in(others, distinct).to_numpy(), np.int64)
    return distinct.filter(pa.array(new)), number[which]


def _study_pairs(column: pa.ChunkedArray, patients: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Pairs of patients named in one study: a missing or mistyped PatientID must not part its images."""
    study = column.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.lexsort((patients, study))
    study, patients = study[order], patients[order]
    same = (study[1:] == study[:-1]) & (study[1:] >= 0) & (patients[1:] != patients[:-1])
    return np.stack([patients[:-1][same], patients[1:][same]], 1)


def _off_template(samples: Spill, thumbs: Thumbnails) -> set[int]:
    templates, suspects = duplicates.Templates(), set[int]()
    numbers = thumbs.rows(samples)
    for pass_ in ("add", "suspects"):
        start = 0
        for batch in thumbs.batches():
            start, mine = start + batch.num_rows, numbers[start : start + batch.num_rows]
            batch, mine = batch.filter(pa.array(mine >= 0)), mine[mine >= 0]
            kinds = [
                (b or "", v or "")
                for b, v in zip(batch["body_part"].to_pylist(), batch["view"].to_pylist(), strict=True)
            ]
            pixels = _pixels(batch["thumb"])
            if pass_ == "add":
                templates.add(kinds, pixels)
            else:
                suspects.update(mine[templates.suspects(kinds, pixels)].tolist())
    return suspects


def _shared_uids(samples: Spill) -> list[int]:
    """Return samples whose key has the same UID part as another's: one SOP UID on different pixels."""
    parts = [pc.utf8_slice_codeunits(batch["key"], 0, 20) for batch in samples.select(["key"]).to_batches()]
    uids = pa.chunked_array(parts, pa.string()).dictionary_encode().combine_chunks()
    index = uids.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(index, minlength=1)
    return np.flatnonzero(counts[index] > 1).tolist() if len(index) else []
