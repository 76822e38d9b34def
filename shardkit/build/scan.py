"""The header pass: list the export, read every header in isolated processes, give each file its first verdict.

Rows go to Parquet parts in the private folder as they are done, so that a rerun goes on where a crash stopped.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shardkit.build import isolation
from shardkit.config import Rules
from shardkit.dataset.rounding import halved
from shardkit.errors import Quarantined, Verdict
from shardkit.privacy import Pseudonyms, shown_modality
from shardkit.sources.base import Identity, ImageFacts, ImageSource
from shardkit.sources.files import Entry, Unread, settled, unreadable
from shardkit.storage import parquet
from shardkit.triage import halvings, judge_header

CHUNK = 64  # files a child reads per task
PART = 128 * CHUNK  # files a Parquet part holds

_TEXT, _TEXTS = pa.string(), pa.list_(pa.string())


class ScanRow(TypedDict):
    """One name of the export, as the private folder keeps it: what its header said, and pseudonyms."""

    serial: Annotated[int, pa.int64()]
    path: Annotated[bytes, pa.binary()]
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
    order: Annotated[int, pa.uint64()]
    sop: Annotated[str, _TEXT]  # pseudonyms from here on
    patient: Annotated[str, _TEXT]
    study: Annotated[str | None, _TEXT]
    series: Annotated[str | None, _TEXT]
    device: Annotated[str | None, _TEXT]
    source: Annotated[str, _TEXT]
    twin: Annotated[str | None, _TEXT]  # of an unprocessed image and the processed one made from it


SCHEMA = parquet.schema(ScanRow)


@dataclass(frozen=True, slots=True)
class Scanned:
    """What one header says. `identity` is clear text: it is hashed before anything is stored."""

    verdict: str | None = None
    reason: str | None = None
    message: str | None = None
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    height: int = 0
    width: int = 0
    estimate: int = 0
    plain: bool = False
    presentation: str | None = None
    modality: str | None = None  # as it may be shown; None where the header was not read
    identity: Identity = field(default_factory=Identity, repr=False)
    unsure: bool = False  # whether it may be the store's fault


_NOT_FILES = {
    "symlink": ("not_dicom", "a symbolic link, not followed: build into a new --out with --follow-symlinks"),
    "broken_link": ("not_dicom", "a symbolic link to what is not there: bring its target back, or remove it"),
    "endless_link": ("not_dicom", "a symbolic link that leads back to itself: remove it"),
    "loop": ("not_dicom", "a symbolic link to a folder above it, which would never end: remove it"),
    "special": ("not_dicom", "a pipe, socket or device, not a file"),
    "too_long": ("io_error", "its path is longer than the system opens: move its folder up, or shorten its name"),
    "unreadable": ("io_error", "the name cannot be opened: check its permissions"),
}


def scan_entry(source: ImageSource, entry: Entry, rules: Rules) -> Scanned:
    """Read one header. What is wrong with the file is a verdict.

    Raises
    ------
    MemoryError
        Maybe this process's fault: the file is tried once more in a new one.
    """
    found: str | None = None
    try:
        if entry.kind != "file":
            raise Quarantined(*_NOT_FILES[entry.kind])
        facts = source.inspect(entry)
        found = facts.modality
        return _accepted(facts, judge_header(facts, rules), rules)
    except Verdict as verdict:
        made_by = verdict.modality if found is None else found
        shown = None if made_by is None else shown_modality(made_by)
        unsure = isinstance(verdict, Unread)
        return Scanned(verdict.verdict, verdict.reason, verdict.message, modality=shown, unsure=unsure)
    except MemoryError:
        raise  # maybe this process's fault: the file is tried once more in a new one
    except OSError as error:
        unsure = isinstance(unreadable(error), Unread)
        return Scanned("quarantined", "io_error", "the file cannot be read to the end of its header", unsure=unsure)
    except Exception as error:
        return Scanned("quarantined", "internal_error", f"{type(error).__name__} while reading the header")


def _accepted(facts: ImageFacts, flags: tuple[str, ...], rules: Rules) -> Scanned:
    """Describe a file worth converting, by the size that its image will have."""
    times = halvings(facts.height, facts.width, rules.max_side)
    height, width = halved(facts.height, times), halved(facts.width, times)
    # Lossless streams keep their size; what is raw or lossy comes out near 5.6 bits a pixel (ratios 1.6-4.5).
    coded = None if times else facts.coded_bytes
    return Scanned(
        repairs=facts.repairs,
        flags=flags,
        height=height,
        width=width,
        estimate=int(0.35 * 2 * height * width) if coded is None else coded,
        plain=facts.plain,
        presentation=facts.presentation,
        modality=shown_modality(facts.modality),
        identity=facts.identity,
    )


def scan_chunk(source: ImageSource, entries: list[Entry], rules: Rules) -> list[Scanned]:
    """Read the headers of some files, as far as one that may have failed because the store is away. Runs in a child."""
    found: list[Scanned] = []
    for entry in entries:
        found.append(scan_entry(source, entry, rules))
        if found[-1].unsure:
            break
    return found


def scan_part(
    source: ImageSource, entries: list[Entry], rules: Rules, children: int, memory: int, limit: float
) -> list[Scanned]:
    """Read the headers of `entries` in children. Runs on a worker.

    A chunk that loses its child is halved down to single files.

    Parameters
    ----------
    source : ImageSource
        Where the entries are.
    entries : list of Entry
        What to read.
    rules : Rules
        What the build accepts.
    children : int
        Processes.
    memory : int
        Bytes that each may take.
    limit : float
        Seconds that a file may take.

    Raises
    ------
    StorageError
        Where the source stays away.
    """
    pool = isolation.children(children, memory)

    def attempt(chunk: list[Entry]) -> list[Scanned]:
        timeout = limit + 0.25 * len(chunk)
        try:
            alone = len(chunk) == 1
            future = pool.submit(scan_chunk, source, chunk, rules, timeout=timeout, again=alone)
            return isolation.result(future, timeout)
        except Quarantined as verdict:
            if len(chunk) == 1:
                unsure = verdict.reason == "decode_timeout" and not source.files.answers()
                return [Scanned("quarantined", verdict.reason, verdict.message, unsure=unsure)]
            half = len(chunk) // 2
            return run(chunk[:half]) + run(chunk[half:])

    def run(chunk: list[Entry]) -> list[Scanned]:
        found: list[Scanned] = []
        while rest := chunk[len(found) :]:
            *sure, last = attempt(rest)
            one = rest[len(sure) : len(sure) + 1]
            found += [*sure, settled(source.files, last, lambda one=one: attempt(one)[0])]  # type: ignore[misc]
        return found

    return run(entries)


def rows(entries: list[tuple[int, Entry]], scanned: list[Scanned], name: Pseudonyms) -> pa.Table:
    """Return scanned headers as a table in which every identifier is a pseudonym."""
    out: list[ScanRow] = []
    for (serial, entry), header in zip(entries, scanned, strict=True):
        source, clear = name("source", entry.path.decode("utf-8", "surrogateescape")), header.identity
        image = clear.image or f"path {source}"
        out.append(
            {
                "serial": serial,
                "path": entry.path,
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
                "order": int(name("order", image)[:16], 16),
                "sop": name("sop", image),
                "patient": name("patient", _patient(clear) or image),
                "study": name("study", clear.study) if clear.study else None,
                "series": name("series", clear.series) if clear.series else None,
                "device": name("device", clear.device) if clear.device else None,
                "source": source,
                "twin": name("twin", clear.processed_pair) if clear.processed_pair else None,
            }
        )
    return pa.Table.from_pylist(out, SCHEMA)


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


class SeenFiles:
    """Paths that earlier passes scanned, with their sizes."""

    def __init__(self, parts: list[Path], leave_out: set[bytes] | None = None) -> None:
        hashes, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
        for part in parts:
            table = parquet.read(part, ["path", "size"])
            paths = table["path"].to_pylist()
            keep = pa.array([i for i, p in enumerate(paths) if not leave_out or p not in leave_out], pa.int64())
            paths = table["path"].take(keep).to_pylist()
            hashes.append(np.fromiter(map(path_hash, paths), np.uint64, len(paths)))
            sizes.append(table["size"].take(keep).to_numpy())
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        ranked = joined[order]
        latest = np.append(ranked[1:] != ranked[:-1], True) if len(ranked) else np.zeros(0, bool)
        self._hashes, self._sizes = ranked[latest], np.concatenate(sizes)[order][latest]
        self.seen = np.zeros(len(self._hashes), bool)
        self.changed: list[bytes] = []

    def __len__(self) -> int:
        """Return the number of paths."""
        return len(self._hashes)

    def __contains__(self, entry: Entry) -> bool:
        """Return whether a path was scanned, and remember that it is still there, and whether its size changed."""
        value = np.uint64(path_hash(entry.path))
        at = int(np.searchsorted(self._hashes, value))
        if at == len(self._hashes) or self._hashes[at] != value:
            return False
        self.seen[at] = True
        if int(self._sizes[at]) != entry.size:
            self.changed.append(entry.path)
        return True

    def missing(self, path: bytes) -> bool:
        """Return whether a known path was not met in the listing."""
        value = np.uint64(path_hash(path))
        at = int(np.searchsorted(self._hashes, value))
        return at < len(self._hashes) and self._hashes[at] == value and not bool(self.seen[at])


def parts(entries: Iterator[tuple[int, Entry]], size: int) -> Iterator[list[tuple[int, Entry]]]:
    """Cut an iterator into lists of at most `size`."""
    while part := list(islice(entries, size)):
        yield part
