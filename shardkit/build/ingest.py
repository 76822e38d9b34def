"""One task, one shard: decode, judge, encode and check every planned file, then commit the shard whole.

What became of each file is journaled beside the dataset before the shard appears, so a shard that exists is never
converted again. Journals hold no path and no clear identifier.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, cast

from shardkit import content, formats, privacy
from shardkit.build import isolation, journal
from shardkit.build.shard_plan import ShardPlan
from shardkit.codecs import codec
from shardkit.codecs.frame import Frame
from shardkit.config import Conversion
from shardkit.dataset import manifest
from shardkit.dataset.hashes import fingerprint, pixel_hash
from shardkit.errors import Quarantined, Verdict
from shardkit.formats.encoding import Encoded, encode
from shardkit.sources.base import Decoded, LoadedImage
from shardkit.sources.files import Entry, Unread, settled
from shardkit.storage import Store, sentences
from shardkit.triage import halvings, judge_header, judge_pixels

_CHANGED = "the file changed while the build ran: `shardkit retry --class io_error` takes it in"


@dataclass(frozen=True, slots=True)
class Crew:
    """How a worker uses its process's children: how many there are, and how many files a task keeps in their queue."""

    children: int
    ahead: int = 2


@dataclass(frozen=True, slots=True)
class ShardDone:
    """Counts of a finished shard, for progress."""

    name: str
    files: int
    samples: int
    pixels: int
    bytes_out: int
    digests: dict[int, str] = field(default_factory=dict, repr=False)  # serial -> SHA-256 of the file, private


@dataclass(frozen=True, slots=True)
class Converted:
    """One file's outcome. `encoded` is None unless it is written; `facts` follow `shardkit.dataset.manifest.SAMPLE`."""

    verdict: Literal["written", "dropped", "quarantined"]
    reason: str
    message: str | None
    sha256: str | None
    repairs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    encoded: Encoded | None = None
    facts: dict[str, Any] | None = None
    thumb: bytes | None = None
    unsure: bool = False  # whether it may be the store's fault


def convert_file(spec: Conversion, path: bytes, size: int, frame: Frame) -> Converted:
    """Runs in a child: one file from its bytes to an encoded, checked image, or to a verdict. Raises MemoryError.

    frame: the image, as the scan saw it, in its bin.
    """
    sha256: str | None = None
    try:
        data = spec.source.files.read(path)
        sha256 = hashlib.sha256(data).hexdigest()
        if len(data) != size:
            raise Quarantined("io_error", _CHANGED)
        image = spec.source.load(Entry(path, size, "file"), data)
        flags = judge_header(image.facts, spec.dataset.rules)
        return _convert(spec, image, flags, frame, sha256)
    except Verdict as verdict:
        unsure = isinstance(verdict, Unread)
        return Converted(verdict.verdict, verdict.reason, verdict.message, sha256, unsure=unsure)  # type: ignore[arg-type]
    except MemoryError:
        raise  # maybe this process's fault: the file is tried once more in a new one
    except Exception as error:
        return Converted("quarantined", "internal_error", f"{type(error).__name__} while converting", sha256)


def _convert(spec: Conversion, image: LoadedImage, flags: tuple[str, ...], frame: Frame, sha256: str) -> Converted:
    facts, rules = image.facts, spec.dataset.rules
    decoded = image.decode(spec.dataset.invert)
    pixels, times = decoded.pixels, halvings(facts.height, facts.width, rules.max_side)
    for _ in range(times):
        pixels = content.halve(pixels)
    if pixels.shape != (frame.height, frame.width):
        raise Quarantined("io_error", _CHANGED)
    small = content.reduce(pixels, content.ANALYSIS)
    padded = decoded.padding > 0
    found = content.find_content(pixels, small, padded=padded)
    stats = content.statistics(pixels, found.mask, padded=padded)
    judge_pixels(found, stats, rules)
    if content.burned_in_suspect(pixels, decoded.bits):
        flags += ("burned_in_suspect",)
    thumb = content.thumbnail(small)
    row = {
        "pixel_hash": pixel_hash(pixels, decoded.bits),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "bits": decoded.bits,
        **{f"box_{k}": v for k, v in asdict(found.box).items()},
        "content": found.area,
        **asdict(stats),
        "halvings": times,
        "phash": content.perceptual_hash(thumb),
        **_origin(image, decoded, times, spec.dataset.demographics),
    }
    repairs = facts.repairs + decoded.repairs
    return Converted(
        "written",
        "ok_repaired" if repairs else "ok",
        None,
        sha256,
        repairs,
        flags + decoded.flags,
        encode(pixels, decoded.bits, frame, spec.dataset.codec_name, spec.dataset.levels),
        row,
        thumb.tobytes(),
    )


def _origin(image: LoadedImage, decoded: Decoded, halvings: int, demographics: bool) -> dict[str, Any]:
    """The manifest's columns about the file and its header."""
    facts = image.facts
    kept = privacy.metadata(image.stated, demographics)
    for side in ("spacing_row", "spacing_col"):
        if kept[side] is not None:
            kept[side] *= 1 << halvings
    return {
        "padding": decoded.padding,
        "inverted": decoded.inverted,
        "source_rows": facts.height,
        "source_cols": facts.width,
        "source_bits": facts.bits,
        "signed": facts.signed,
        "photometric": facts.photometric,
        "modality_lut": decoded.modality_lut,
        "transfer_syntax": facts.encoding,
        "lossy": decoded.lossy,
        "decoder": decoded.decoder,
        "modality": facts.modality or None,
        **kept,
    }


def convert_shard(spec: Conversion, plan: ShardPlan, generation: int, crew: Crew) -> ShardDone:
    """Runs on a worker: make one shard from its planned files through this process's children, and commit it.

    Raises StorageError when the dataset's store or the staging disk fails, or the source stays away.
    """
    with sentences(spec.out):
        return _convert_shard(spec, plan, generation, crew)


def _convert_shard(spec: Conversion, plan: ShardPlan, generation: int, crew: Crew) -> ShardDone:
    store = Store(spec.out)
    rows: list[dict[str, Any]] = []
    digests: dict[int, str] = {}
    extension = codec(spec.dataset.codec_name).EXTENSION
    form = formats.shard_format(spec.dataset.format)
    objects = form.objects(plan.name, spec.dataset.levels)
    with journal.staging(store) as folder:
        staged = formats.files(folder, "shard", len(objects))
        with form.writer(staged, plan.places) as writer:
            for file, done in _converted(spec, plan, crew):
                row = _journal_row(file, done)
                if done.sha256 is not None:
                    digests[file["serial"]] = done.sha256
                if done.encoded is not None and done.facts is not None:
                    row |= _sample_row(plan, file, done, objects[0])
                    facts = public_facts(row)
                    row["json_hash"] = fingerprint(facts) if form.FACTS else None
                    image = done.encoded
                    row["offset"] = writer.add(row["key"], extension, image.image, facts, image.smaller)
                rows.append(row)
        dropped = drop_duplicates(rows)
        written = [row for row in rows if row["verdict"] == "written"]
        if dropped:
            staged = formats.keep(form, staged, formats.files(folder, "kept", len(objects)), written, plan.places)
        size = sum(path.stat().st_size for path in staged) if written else 0
        journal.write(store, generation, plan.name, rows)
        if written:
            formats.commit(store, objects, staged)
    return ShardDone(
        name=plan.name,
        files=len(rows),
        samples=len(written),
        pixels=sum(row["height"] * row["width"] for row in written),
        bytes_out=size,
        digests=digests,
    )


def _converted(spec: Conversion, plan: ShardPlan, crew: Crew) -> Iterator[tuple[dict[str, Any], Converted]]:
    """Outcomes in the plan's order, with a few files ahead in the children's queue."""
    pool = isolation.children(crew.children, spec.run.memory_limit)
    waiting: deque[tuple[dict[str, Any], Any, float]] = deque()

    def begin(file: dict[str, Any]) -> tuple[dict[str, Any], Any, float]:
        timeout = isolation.allowance(file["size"], spec.run.time_limit)
        frame = Frame(file["height"], file["width"], plan.bin.height, plan.bin.width)
        return file, pool.submit(convert_file, spec, file["path"], file["size"], frame, timeout=timeout), timeout

    def end(file: dict[str, Any], future: Any, timeout: float) -> Converted:
        try:
            return cast(Converted, isolation.result(future, timeout))
        except Quarantined as verdict:
            unsure = verdict.reason == "decode_timeout" and not spec.source.files.answers()
            return Converted("quarantined", verdict.reason, verdict.message, None, unsure=unsure)

    def finish() -> tuple[dict[str, Any], Converted]:
        file, future, timeout = waiting.popleft()
        return file, settled(spec.source.files, end(file, future, timeout), lambda: end(*begin(file)))

    try:
        for file in plan.files:
            waiting.append(begin(file))
            if len(waiting) >= crew.ahead:
                yield finish()
        while waiting:
            yield finish()
    finally:
        for _, future, _ in waiting:
            future.cancel()


def _journal_row(file: dict[str, Any], done: Converted) -> dict[str, Any]:
    # A scan may know more than the bytes alone: its flags come first.
    flags = list(dict.fromkeys([*(file["flags"] or []), *done.flags]))
    return {
        "serial": file["serial"],
        "verdict": done.verdict,
        "reason": done.reason,
        "message": done.message,
        "read": done.sha256 is not None,
        "repairs": list(done.repairs),
        "flags": flags,
        "plain": file["plain"],
    }


def _sample_row(plan: ShardPlan, file: dict[str, Any], done: Converted, shard: str) -> dict[str, Any]:
    assert done.facts is not None
    assert done.encoded is not None
    return {
        **done.facts,
        "key": f"{file['sop'][:20]}-{done.facts['pixel_hash'].hex()[:12]}",
        "shard": shard,
        **storage_columns(done.encoded),
        "bin_height": plan.bin.height,
        "bin_width": plan.bin.width,
        "thumb": done.thumb,
        **{k: file[k] for k in ("patient", "study", "series", "device", "source")},
    }


def storage_columns(encoded: Encoded) -> dict[str, Any]:
    """The manifest's columns about an image's bytes, but for their place."""
    return {
        "length": len(encoded.image),
        "level_bytes": [length for length, _ in encoded.levels],
        "level_hash": [digest for _, digest in encoded.levels],
    }


def public_facts(row: dict[str, Any]) -> bytes:
    """The sample's JSON member: the manifest's facts that do not depend on other samples."""
    names = [*manifest.SAMPLE.names, "key", "flags"]
    facts = {k: v.hex() if isinstance(v, bytes) else v for k in names if (v := row.get(k)) is not None}
    return json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()


def preference(row: dict[str, Any]) -> tuple[int, bool, int]:
    """Which of several files with the same pixels is kept: the least repaired, then the plainest syntax, then path."""
    return (len(row["repairs"]), not row["plain"], row["serial"])


def drop_duplicates(rows: list[dict[str, Any]]) -> int:
    """Mark all but one of the rows with equal pixels as dropped, in place; returns how many."""
    best: dict[bytes, int] = {}
    for i, row in enumerate(rows):
        if row["verdict"] == "written":
            j = best.setdefault(row["pixel_hash"], i)
            if preference(row) < preference(rows[j]):
                best[row["pixel_hash"]] = i
    dropped = 0
    for i, row in enumerate(rows):
        if row["verdict"] == "written" and best[row["pixel_hash"]] != i:
            dropped += 1
            row |= {"verdict": "dropped", "reason": "duplicate_exact", "shard": None, "offset": None}
    return dropped
