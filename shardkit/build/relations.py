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
from shardkit.storage import parquet

DATASET_FLAGS = {"near_duplicate", "polarity_suspect", "uid_collision"}
"""Flags that depend on other samples."""
_BLOCK = 1 << 16  # rows handled as Python objects at once


@dataclass(frozen=True)
class Thumbnails:
    """The thumbnails of all generations."""

    files: list[Path]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield everything, some thousand rows at a time."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(4096)

    def among(self, keys: pa.Array) -> npt.NDArray[np.bool_]:
        """Tell of all that `batches` yields whether it is of `keys`; at once, as each search makes a table of these."""
        columns = [pa.chunked_array([], pa.string()), *(parquet.read(path, ["key"])["key"] for path in self.files)]
        found = pa.chunked_array([chunk for column in columns for chunk in column.chunks], pa.string())
        return np.asarray(pc.is_in(found, keys).to_numpy(), np.bool_)

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


def confirmed_pairs(samples: pa.Table, thumbs: Thumbnails) -> tuple[Pairs, Pairs]:
    """Find near-duplicates, and pairs of an image and its negative: close hashes, confirmed by correlation."""
    hashes = samples["phash"].to_numpy()
    out = []
    for sign, pairs in ((1, near.near_pairs(hashes)), (-1, near.inverted_pairs(hashes))):
        nodes, flat = np.unique(pairs, return_inverse=True)
        pixels = thumbs.of(samples["key"].take(pa.array(nodes)).combine_chunks())
        ends = flat.reshape(pairs.shape)
        r = near.correlation(pixels[ends[:, 0]], pixels[ends[:, 1]])
        out.append(pairs[sign * r >= near.MIN_CORRELATION])
    return out[0], out[1]


def finish_samples(samples: pa.Table, thumbs: Thumbnails, links: list[Path], split: Callable[[str], str]) -> pa.Table:
    """Return the samples with flags, groups and splits as the whole dataset gives them.

    Parameters
    ----------
    samples : pyarrow.Table
        The dataset's manifest rows.
    thumbs : Thumbnails
        Of all samples.
    links : list of Path
        What `finalize.write_links` wrote in each generation.
    split : callable
        Takes a patient's pseudonym to train, val or test.
    """
    same, inverse = confirmed_pairs(samples, thumbs)
    both = np.concatenate([same, inverse])
    found: dict[int, set[str]] = {}
    suspects = set(duplicates.minority_sides(samples.num_rows, same, inverse).tolist()) if len(inverse) else set()
    for flag, nodes in (
        ("near_duplicate", set(np.unique(both).tolist())),
        ("polarity_suspect", suspects | _off_template(samples, thumbs) | _with_flag(samples, "polarity_conflict")),
        ("uid_collision", set(_shared_uids(samples["key"]))),
    ):
        for node in nodes:
            found.setdefault(node, set()).add(flag)
    groups = _groups(samples, both)
    columns = {
        "flags": _flags(samples["flags"], found),
        "group": pa.array((groups.get(i) for i in range(samples.num_rows)), pa.string()),
        "split": _splits(samples, both, links, split),
    }
    for name, column in columns.items():
        samples = samples.set_column(samples.schema.get_field_index(name), name, column)
    return samples.cast(manifest.SCHEMA)


def _with_flag(samples: pa.Table, flag: str) -> set[int]:
    flags = samples["flags"].combine_chunks()
    found = pc.equal(flags.flatten(), flag).to_numpy(zero_copy_only=False)
    return set(pc.list_parent_indices(flags).to_numpy()[found].tolist())


def _groups(samples: pa.Table, pairs: Pairs) -> dict[int, str]:
    """Row -> the least key of its group of near-duplicates, for rows in one."""
    nodes = np.unique(pairs)
    keys = samples["key"].take(pa.array(nodes)).to_pylist()
    labels = duplicates.components(len(nodes), np.searchsorted(nodes, pairs))
    least: dict[int, str] = {}
    for label, key in zip(labels.tolist(), keys, strict=True):
        least[label] = min(key, least.get(label, key))
    return {node: least[label] for node, label in zip(nodes.tolist(), labels.tolist(), strict=True)}


def _flags(column: pa.ChunkedArray, found: dict[int, set[str]]) -> pa.ChunkedArray:
    """Each row's own flags and those found now; dataset-wide flags of former generations are found anew."""
    chunks, start = [], 0
    for chunk in (column.slice(i, _BLOCK) for i in range(0, len(column), _BLOCK)):
        rows = chunk.to_pylist()
        new = [sorted({*row} - DATASET_FLAGS | found.get(start + i, set())) for i, row in enumerate(rows)]
        chunks.append(pa.array(new, pa.list_(pa.string())))
        start += len(rows)
    return pa.chunked_array(chunks, pa.list_(pa.string()))


def _splits(samples: pa.Table, pairs: Pairs, links: list[Path], split: Callable[[str], str]) -> pa.Array:
    """Each row's split: one for all patients that near-duplicates, dropped duplicates or a common study connect."""
    encoded = samples["patient"].combine_chunks().dictionary_encode()
    names = encoded.dictionary.to_pylist()
    index = encoded.indices.to_numpy(zero_copy_only=False)
    ends = np.concatenate([index[pairs], _study_pairs(samples["study"], index)])
    connected = [(names[a], names[b]) for a, b in np.unique(ends, axis=0).tolist()]
    for path in links:
        table = parquet.read(path)
        connected.extend(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True))
    splits = duplicates.group_splits(names, connected, split)
    return pa.array([splits[name] for name in names], pa.string()).take(encoded.indices)


def _study_pairs(column: pa.ChunkedArray, patients: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Pairs of patients named in one study: a missing or mistyped PatientID must not part its images."""
    study = column.combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy(zero_copy_only=False)
    order = np.lexsort((patients, study))
    study, patients = study[order], patients[order]
    same = (study[1:] == study[:-1]) & (study[1:] >= 0) & (patients[1:] != patients[:-1])
    return np.stack([patients[:-1][same], patients[1:][same]], 1)


def _off_template(samples: pa.Table, thumbs: Thumbnails) -> set[int]:
    templates, suspects = duplicates.Templates(), list[str]()
    known = thumbs.among(samples["key"].combine_chunks())
    for pass_ in ("add", "suspects"):
        start = 0
        for batch in thumbs.batches():
            start, mine = start + batch.num_rows, known[start : start + batch.num_rows]
            batch = batch.filter(pa.array(mine))
            kinds = [
                (b or "", v or "")
                for b, v in zip(batch["body_part"].to_pylist(), batch["view"].to_pylist(), strict=True)
            ]
            pixels = _pixels(batch["thumb"])
            if pass_ == "add":
                templates.add(kinds, pixels)
            else:
                suspects.extend(batch["key"].filter(pa.array(templates.suspects(kinds, pixels))).to_pylist())
    at = pc.index_in(pa.array(suspects, pa.string()), samples["key"].combine_chunks())
    return set(at.to_pylist())


def _shared_uids(keys: pa.ChunkedArray) -> list[int]:
    """Return samples whose key has the same UID part as another's: one SOP UID on different pixels."""
    uids = pc.utf8_slice_codeunits(keys, 0, 20).combine_chunks().dictionary_encode()
    index = uids.indices.to_numpy(zero_copy_only=False)
    counts = np.bincount(index, minlength=1)
    return np.flatnonzero(counts[index] > 1).tolist() if len(index) else []
