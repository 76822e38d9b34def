"""The header pass: list the export, read every header in isolated processes, give each file its first verdict.

Rows go to Parquet parts in the private folder as they are done, so that a rerun goes on where a crash stopped.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
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
from shardkit.sources.entries import Entry
from shardkit.sources.facts import FactsRow
from shardkit.sources.files import Unread, settled, unreadable
from shardkit.storage import parquet
from shardkit.triage import halvings, judge_header

CHUNK = 64  # files a child reads per task
PART = 128 * CHUNK  # files a Parquet part holds

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


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """What became of one file: of the image in it, or of each frame or slice."""

    images: tuple[tuple[Entry, Scanned], ...]
    unsure: bool = False  # whether it may be the store's fault


def scan_file(source: ImageSource, entry: Entry, rules: Rules) -> ScannedFile:
    """Read the headers of all images in a file. What is wrong with it is a verdict.

    Raises
    ------
    MemoryError
        Maybe this process's fault: the file is tried once more in a new one.
    """
    found: list[Entry] = []

    def split() -> Scanned:
        entry.require_file()
        found.extend(source.split(entry))
        return Scanned()

    failed = _guarded(split)
    if failed.verdict is not None:
        return ScannedFile(((entry, failed),), failed.unsure)
    images: list[tuple[Entry, Scanned]] = []
    for one in found:
        images.append((one, scan_entry(source, replace(one, facts=entry.facts), rules)))
        if images[-1][1].unsure:
            return ScannedFile(tuple(images), True)
    return ScannedFile(tuple(images))


def scan_entry(source: ImageSource, entry: Entry, rules: Rules) -> Scanned:
    """Read one header. What is wrong with the file is a verdict.

    Raises
    ------
    MemoryError
        Maybe this process's fault: the file is tried once more in a new one.
    """
    read: list[str | None] = []  # what made it, once the header says so

    def judge() -> Scanned:
        entry.require_file()
        facts = stated(entry, source.inspect(entry))
        read.append(facts.modality)
        return _accepted(facts, judge_header(facts, rules), rules)

    return _guarded(judge, read)


def stated(entry: Entry, facts: ImageFacts) -> ImageFacts:
    """Return what a header says, with what a table says of its file."""
    return facts if entry.facts is None else entry.facts.over(facts)


def _guarded(judge: Callable[[], Scanned], read: Sequence[str | None] = ()) -> Scanned:
    """Return what a function finds, or the verdict that it ends in."""
    try:
        return judge()
    except Verdict as verdict:
        made_by = read[0] if read else verdict.modality
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
        modality=None if facts.modality is None else shown_modality(facts.modality),
        identity=facts.identity,
    )


def scan_chunk(source: ImageSource, entries: list[Entry], rules: Rules) -> list[ScannedFile]:
    """Read the headers of some files, as far as one that may have failed because the store is away. Runs in a child."""
    found: list[ScannedFile] = []
    for entry in entries:
        found.append(scan_file(source, entry, rules))
        if found[-1].unsure:
            break
    return found


def scan_part(
    source: ImageSource, entries: list[Entry], rules: Rules, children: int, memory: int, limit: float
) -> list[ScannedFile]:
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

    def attempt(chunk: list[Entry]) -> list[ScannedFile]:
        timeout = limit + 0.25 * len(chunk)
        try:
            alone = len(chunk) == 1
            future = pool.submit(scan_chunk, source, chunk, rules, timeout=timeout, again=alone)
            return isolation.result(future, timeout)
        except Quarantined as verdict:
            if len(chunk) == 1:
                unsure = verdict.reason == "decode_timeout" and not source.files.answers()
                failed = Scanned("quarantined", verdict.reason, verdict.message, unsure=unsure)
                return [ScannedFile(((chunk[0], failed),), unsure)]
            half = len(chunk) // 2
            return run(chunk[:half]) + run(chunk[half:])

    def run(chunk: list[Entry]) -> list[ScannedFile]:
        found: list[ScannedFile] = []
        while rest := chunk[len(found) :]:
            *sure, last = attempt(rest)
            one = rest[len(sure) : len(sure) + 1]
            found += [*sure, settled(source.files, last, lambda one=one: attempt(one)[0])]  # type: ignore[misc]
        return found

    return run(entries)


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
    with pq.ParquetFile(part) as file:  # parts of an earlier version number no frames
        table = file.read([name for name in ("path", "size", "part") if name in file.schema_arrow.names])
    numbers = table["part"].to_pylist() if "part" in table.column_names else [None] * table.num_rows
    rows = zip(table["path"].to_pylist(), table["size"].to_pylist(), numbers, strict=True)
    return [Entry(path, size, "file", part=number) for path, size, number in rows]


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
            found = entries(part)
            again |= {one.file for one in found if leave_out and one.path in leave_out}
            hashes.append(np.fromiter((path_hash(one.file) for one in found), np.uint64, len(found)))
            sizes.append(np.fromiter((one.size for one in found), np.int64, len(found)))
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

    def missing(self, entry: Entry) -> bool:
        """Return whether a known file was not met in the listing."""
        at = self._at(entry.file)
        return at is not None and not bool(self.seen[at])

    def _at(self, file: bytes) -> int | None:
        value = np.uint64(path_hash(file))
        at = int(np.searchsorted(self._hashes, value))
        return at if at < len(self._hashes) and self._hashes[at] == value else None


def parts(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Cut an iterator into lists of at most `size`."""
    while part := list(islice(entries, size)):
        yield part
