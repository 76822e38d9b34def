"""Where the CPU time of one conversion goes, function by function, and what is left to the main process."""

import hashlib
import json
import multiprocessing
import os
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.results import Record


def mpx(rows: list[Record]) -> float:
    """Return the megapixels of files."""
    return float(sum(row["height"] * row["width"] for row in rows)) / 1e6


def profile(sample: list[Record], source: str, scratch: str) -> Record:
    """Measure CPU ms per Mpx by function: `child` is a conversion, `parent` what is left to the main process."""
    from shardkit.config import BuildConfig

    Path(scratch).mkdir(exist_ok=True)
    spec = BuildConfig.of(source, scratch, Path(scratch)).conversion
    _convert_one(spec, sample[0], source)
    watch = machine.Stopwatch()
    _watch_child(watch)
    clock, cpu = time.perf_counter(), time.thread_time()
    done = [_convert_one(spec, row, source) for row in sample]
    wall, cpu, area = time.perf_counter() - clock, time.thread_time() - cpu, mpx(sample)
    watch.restore()
    child = {name: 1e3 * seconds / area for name, seconds in watch.seconds.items()}
    child["the rest"] = 1e3 * cpu / area - sum(child.values())
    codecs = sum(child.get(name, 0.0) for name in ("source decode", "encode", "check decode"))
    return {
        "files": len(sample),
        "mpx": area,
        "child_ms_per_mpx": dict(sorted(child.items(), key=lambda item: -item[1])),
        "child_total": 1e3 * cpu / area,
        "child_total_wall": 1e3 * wall / area,
        "codecs_share": codecs / (1e3 * cpu / area),
        "parent_ms_per_mpx": _parent_costs(done, Path(scratch), area),
    }


def _convert_one(spec: Any, row: Record, source: str) -> Any:
    from shardkit.build.conversion import convert_file
    from shardkit.codecs.placement import Placement
    from shardkit.sources.entries import Entry

    path = os.fsencode(os.path.relpath(row["path"], source))
    entry = Entry(path, row["size"], "file")
    done = convert_file(spec, entry, Placement(row["height"], row["width"], row["height"], row["width"]))
    if done.verdict != "written":
        raise RuntimeError(f"a file that a build wrote is now {done.verdict}: {done.message}")
    return done


def _watch_child(watch: machine.Stopwatch) -> None:
    """Watch functions of the build. Names that a later version no longer has are left out, and count as the rest."""
    from types import SimpleNamespace

    from shardkit import burned_in, content, privacy
    from shardkit.build import conversion
    from shardkit.codecs import htj2k
    from shardkit.formats import encoding
    from shardkit.sources.dicom import decoding, grayscale, metadata, source
    from shardkit.sources.files import FileTree

    hashes = SimpleNamespace(sha256=hashlib.sha256)
    if hasattr(conversion, "hashlib"):
        setattr(conversion, "hashlib", hashes)  # noqa: B010 - a module's own import
    places: list[tuple[str, Any, str]] = [
        ("read file", FileTree, "read"),
        ("SHA-256 of the file", hashes, "sha256"),
        ("parse header", source, "read_header"),
        ("judge header", source, "judged"),
        ("join frame", source, "frame"),
        ("source decode", decoding, "decode"),
        ("source decode", decoding, "native"),
        ("grayscale.to_uniform", grayscale, "to_uniform"),
        ("content.survey", content, "survey"),
        ("content.find_content", content, "find_content"),
        ("content.statistics", content, "statistics"),
        ("burned_in.find", burned_in, "find"),
        ("content.thumbnail", content, "thumbnail"),
        ("content.perceptual_hash", content, "perceptual_hash"),
        ("encode", htj2k, "encode"),
        ("check decode", htj2k, "decode"),
        ("compare", conversion, "encode"),
        ("hash of the pixels", conversion, "pixel_hash"),
        ("hashes of the prefixes", encoding, "fingerprint"),
        ("header metadata", metadata, "stated"),
        ("header metadata", metadata, "identity"),
        ("privacy.metadata", privacy, "metadata"),
    ]
    for name, owner, attribute in places:
        if hasattr(owner, attribute):
            watch.watch(name, owner, attribute)


def _parent_costs(done: list[Any], scratch: Path, area: float) -> dict[str, float]:
    """Pass results through a pipe (both ends), as children do, and write the tar: CPU ms per Mpx of each."""
    from shardkit.build import messages
    from shardkit.formats.webdataset import ShardWriter

    reader, writer = multiprocessing.Pipe()
    cpu = time.process_time()

    def give() -> None:
        for one in done:
            messages.send(writer, messages.pickled(one))

    sender = threading.Thread(target=give)
    sender.start()
    receiver = messages.Receiver(reader)
    for _ in done:
        receiver.next()
    sender.join()
    pipe, cpu = time.process_time() - cpu, time.process_time()
    with ShardWriter(scratch / "shard") as shard:
        for number, one in enumerate(done):
            facts = json.dumps({k: str(v) for k, v in one.facts.items()}).encode()
            shard.add(f"{number:06d}", "j2c", one.encoded.image, facts)
    return {"pickle and pipe": 1e3 * pipe / area, "tar": 1e3 * (time.process_time() - cpu) / area}
