"""What scans have found, as the private folder keeps it: a row an image, and which files were seen.

Identifiers are pseudonyms here; only paths are in clear text.
"""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build.scan import Scanned
from shardkit.privacy import Pseudonyms
from shardkit.sources.base import Identity
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.storage import parquet

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())


class ScanRow(TypedDict):
    """One name of the export, as the private folder keeps it: what its header said, and pseudonyms."""

    serial: Annotated[int, pa.int64()]
    path: Annotated[bytes, pa.binary()]
    part: Annotated[int | None, pa.int32()]  # which frame or slice of a file
    size: Annotated[int, pa.int64()]
    verdict: Annotated[str | None, _TEXT]  # null: worth converting
    reason: Annotated[str | None, _TEXT]
    message: Annotated[str | None, _TEXT]
    repairs: Annotated[list[str], _TEXTS]
    flags: Annotated[list[str], _TEXTS]
    height: Annotated[int, pa.int32()]  # as it will be written
    width: Annotated[int, pa.int32()]
    estimate: Annotated[int, pa.int64()]  # bytes it will take in a shard
    plain: Annotated[bool, pa.bool_()]  # explicit little endian: needs no interpretation
    presentation: Annotated[str | None, _TEXT]
    modality: Annotated[str | None, _TEXT]  # a defined term, "other" or "none"; null where the header was not read
    facts: Annotated[str | None, _TEXT]  # what a table says of the file, but for whom it is of
    order: Annotated[int, pa.uint64()]
    sop: Annotated[str, _TEXT]  # pseudonyms from here on
    patient: Annotated[str, _TEXT]
    study: Annotated[str | None, _TEXT]
    series: Annotated[str | None, _TEXT]
    accession: Annotated[str | None, _TEXT]
    device: Annotated[str | None, _TEXT]
    source: Annotated[str, _TEXT]
    twin: Annotated[str | None, _TEXT]  # of an unprocessed image and the processed one made from it


SCHEMA = parquet.schema(ScanRow)


def rows(images: list[tuple[Entry, Scanned]], name: Pseudonyms, first: int) -> pa.Table:
    """Return scanned headers as a table in which every identifier is a pseudonym.

    Parameters
    ----------
    images : list of (Entry, Scanned)
        In the order of the listing.
    name : Pseudonyms
        Hashes identifiers.
    first : int
        Serial of the first row.
    """
    out: list[ScanRow] = []
    for serial, (entry, header) in enumerate(images, first):
        source, clear = name("source", _text(entry.name)), header.identity
        image = clear.image or f"path {source}"
        # Frames and slices lie beside each other: a child decodes a volume once for all that it converts of it.
        together = image if entry.part is None else f"file {name('source', _text(entry.unpacked or entry.file))}"
        out.append(
            {
                "serial": serial,
                "path": entry.path,
                "part": entry.part,
                "size": entry.size,
                "verdict": header.verdict,
                "reason": header.reason,
                "message": header.message,
                "repairs": list(header.repairs),
                "flags": list(header.flags),
                "height": header.height,
                "width": header.width,
                "estimate": header.estimate,
                "plain": header.plain,
                "presentation": header.presentation,
                "modality": header.modality,
                "facts": None if entry.facts is None else entry.facts.to_json(),
                "order": int(name("order", together)[:16], 16),
                "sop": name("sop", image),
                "patient": name("patient", _patient(clear) or image),
                "study": name("study", clear.study) if clear.study else None,
                "series": name("series", clear.series) if clear.series else None,
                "accession": name("accession", clear.accession) if clear.accession else None,
                "device": name("device", clear.device) if clear.device else None,
                "source": source,
                "twin": name("twin", clear.processed_pair) if clear.processed_pair else None,
            }
        )
    return pa.Table.from_pylist(out, SCHEMA)


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def entry_of(row: ScanRow) -> Entry:
    """Return the entry that a row of a scan is about, as a conversion needs it."""
    facts = None if row["facts"] is None else FactsRow.from_json(row["facts"])
    return Entry(row["path"], row["size"], "file", part=row["part"], facts=facts)


def _patient(clear: Identity) -> str:
    """Whose image it is; without that, the study is the closest that images of one person are known to share."""
    if clear.patient:
        return f"id {clear.patient}"
    return f"study {clear.study}" if clear.study else ""


def modalities(parts: list[Path]) -> Counter[str]:
    """Count files of earlier passes by modality, as it may be shown; a path that was scanned again counts once."""
    hashes, names = [np.zeros(0, np.uint64)], [pa.array([], pa.string())]
    for part in parts:
        with pq.ParquetFile(part) as file:
            if "modality" not in file.schema_arrow.names:  # scanned by an earlier version
                continue
            table = file.read(["path", "modality"])
        hashes.append(np.fromiter(map(path_hash, table["path"].to_pylist()), np.uint64, table.num_rows))
        names.extend(table["modality"].chunks)
    _, last = np.unique(np.concatenate(hashes)[::-1], return_index=True)
    found = pa.concat_arrays(names)
    chosen = found.take(pa.array(len(found) - 1 - last)).drop_null()
    return Counter({row["values"]: row["counts"] for row in pc.value_counts(chosen).to_pylist()})


def path_hash(path: bytes) -> int:
    """Return 64 bits of a path, to remember 10**7 of them in 80 MB."""
    return int.from_bytes(hashlib.blake2b(path, digest_size=8).digest(), "big")


def entries(part: Path) -> list[Entry]:
    """Return what a scan part is about: paths, sizes and numbers of frames or slices."""
    table = _named(part)
    columns = (table[name].to_pylist() for name in ("path", "size", "part"))
    return [Entry(path, size, "file", part=number) for path, size, number in zip(*columns, strict=True)]


def _named(part: Path) -> pa.Table:
    """Return path, size and number of frame of what a scan part is about; earlier versions numbered none."""
    with pq.ParquetFile(part) as file:
        there = [name for name in ("path", "size", "part") if name in file.schema_arrow.names]
        table = file.read(there)
    return table if "part" in there else table.append_column("part", pa.nulls(table.num_rows, pa.int32()))


def count_images(parts: list[Path]) -> int:
    """Count what scan parts are about; what was scanned again counts once."""
    hashes = [np.fromiter(map(path_hash, parquet.read(p, ["path"])["path"].to_pylist()), np.uint64) for p in parts]
    return len(np.unique(np.concatenate(hashes))) if hashes else 0


class SeenFiles:
    """Files that earlier passes scanned, with their sizes.

    Parameters
    ----------
    parts : list of Path
        Scan parts of these passes, oldest first.
    leave_out : set of bytes, optional
        Paths of images to scan again: their files count as not seen.
    """

    def __init__(self, parts: list[Path], leave_out: set[bytes] | None = None) -> None:
        hashes, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        again: set[bytes] = set()
        for part in parts:
            table = _named(part)
            files = table["path"].to_pylist()
            if leave_out or table["part"].null_count < table.num_rows:
                found = entries(part)
                again |= {one.file for one in found if leave_out and one.path in leave_out}
                files = [one.file for one in found]
            hashes.append(np.fromiter(map(path_hash, files), np.uint64, len(files)))
            sizes.append(table["size"].to_numpy())
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        ranked = joined[order]
        latest = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
        latest &= ~np.isin(ranked, np.fromiter(map(path_hash, again), np.uint64, len(again)))
        self._hashes, self._sizes = ranked[latest], np.concatenate(sizes)[order][latest]
        self.seen = np.zeros(len(self._hashes), bool)
        self.changed: set[bytes] = set()

    def __contains__(self, entry: Entry) -> bool:
        """Return whether a file was scanned, and remember that it is still there, and whether its size changed."""
        at = self._at(entry.file)
        if at is None:
            return False
        self.seen[at] = True
        if int(self._sizes[at]) != entry.size:
            self.changed.add(entry.file)
        return True

    def gone(self, part: Path) -> tuple[list[bytes], list[bytes]]:
        """Return images of a scan part whose files have another size now, and those whose files were not listed."""
        table = _named(part)
        paths = files = table["path"].to_pylist()
        if table["part"].null_count < table.num_rows:
            files = [one.file for one in entries(part)]
        hashes = np.fromiter(map(path_hash, files), np.uint64, len(files))
        lost: list[int] = []
        if len(self._hashes):
            at = np.minimum(np.searchsorted(self._hashes, hashes), len(self._hashes) - 1)
            lost = np.flatnonzero((self._hashes[at] == hashes) & ~self.seen[at]).tolist()
        changed = [path for path, file in zip(paths, files, strict=True) if file in self.changed]
        return changed, [paths[row] for row in lost]

    def _at(self, file: bytes) -> int | None:
        value = np.uint64(path_hash(file))
        at = int(np.searchsorted(self._hashes, value))
        return at if at < len(self._hashes) and self._hashes[at] == value else None
