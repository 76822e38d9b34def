"""The header pass: list the export, read every header in isolated processes, give each file its first verdict.

Rows go to Parquet parts in the private folder as they are done, so that a rerun goes on where a crash stopped.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from shardkit.build import isolation
from shardkit.config import Rules
from shardkit.dataset.rounding import halved
from shardkit.errors import Quarantined, Verdict
from shardkit.privacy import shown_modality
from shardkit.sources.base import Identity, ImageFacts, ImageSource
from shardkit.sources.entries import Entry
from shardkit.sources.files import Unread, settled, unreadable
from shardkit.triage import halvings, judge_header

CHUNK = 64  # files a child reads per task
PART = 128 * CHUNK  # files a Parquet part holds


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


def parts(entries: Iterator[Entry], size: int) -> Iterator[list[Entry]]:
    """Cut an iterator into lists of at most `size`."""
    while part := list(islice(entries, size)):
        yield part
