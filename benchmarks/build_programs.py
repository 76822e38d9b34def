"""The programs that the build benchmark times, each a role of a fresh process: arguments and result are JSON files."""

import json
import multiprocessing
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from benchmarks import build_profile, machine
from benchmarks.build_profile import mpx
from benchmarks.build_sources import PNG, as_scripts_do, with_pillow
from benchmarks.results import Record


def child(role: str, work: str) -> None:
    """Run a role in a child process."""
    roles: dict[str, Callable[..., Any]] = {
        "bound": _bound_role,
        "naive": _naive_role,
        "profile": build_profile.profile,
        "rows": _rows_role,
        "plan": _plan_role,
    }
    result = roles[role](*json.loads((Path(work) / "arguments.json").read_text()))
    (Path(work) / "result.json").write_text(json.dumps(result))


def _fan_out(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """Run `function(queue, i, *arguments)` in forked processes, which have all imports; return what each put in."""
    fork = multiprocessing.get_context("fork")
    queue = fork.Queue()
    processes = [fork.Process(target=function, args=(queue, i, *arguments)) for i in range(workers)]
    for process in processes:
        process.start()
    results: list[Any] = []
    while len(results) < workers:
        try:
            results.append(queue.get(timeout=1))
        except Empty:
            if any(process.exitcode for process in processes):
                for process in processes:
                    process.kill()
                raise RuntimeError("a process died: the log says why") from None
    for process in processes:
        process.join()
    return results


def _bound_role(sample: list[Record], workers: int) -> list[Record]:

    fork = multiprocessing.get_context("fork")
    return _fan_out(_bound_share, workers, sample, fork.Value("q", 0), fork.Barrier(workers))


def _bound_share(queue: Any, _: int, sample: list[Record], taken: Any, barrier: Any) -> None:
    """Take the next file until none is left, so that all processes end together."""
    seconds = dict.fromkeys(("decode", "encode", "check"), 0.0)
    _codecs_only(sample[0], seconds)  # first calls load libraries
    share: Record = {"seconds": dict.fromkeys(seconds, 0.0), "cpu_s": 0.0, "mpx": 0.0, "files": 0, "bytes": 0}
    barrier.wait()
    while True:
        with taken.get_lock():
            index, taken.value = taken.value, taken.value + 1
        if index >= len(sample):
            break
        share["cpu_s"] += _codecs_only(sample[index], share["seconds"])
        share["mpx"] += mpx([sample[index]])
        share["files"] += 1
        share["bytes"] += sample[index]["size"]
    queue.put(share)


def _codecs_only(row: Record, seconds: dict[str, float]) -> float:
    """Add the seconds of this file's source decode, encode and check decode; return their CPU seconds.

    A PNG is decoded by Pillow, which knows nothing of shardkit.
    """
    if row["path"].endswith(PNG):
        clock, cpu = time.perf_counter(), time.thread_time()
        pixels = with_pillow(row["path"])
        seconds["decode"] += time.perf_counter() - clock
        return time.thread_time() - cpu + _encoded(pixels, seconds)
    from shardkit.sources.dicom import decoding, grayscale
    from shardkit.sources.dicom.frames import frame
    from shardkit.sources.dicom.reading import read_header
    from shardkit.sources.dicom.source import judged

    data = Path(row["path"]).read_bytes()
    clock = time.perf_counter()
    header = read_header(BytesIO(data), len(data), data)
    inflating = time.perf_counter() - clock if header.syntax == DeflatedExplicitVRLittleEndian else 0.0
    _, facts = judged(header, len(data))
    stream = frame(header, facts)
    assert header.pixels is not None
    native = header.pixels.length is not None
    t0, cpu = time.perf_counter(), time.thread_time()
    if native:
        big = header.syntax == ExplicitVRBigEndian
        samples = decoding.native(stream, facts.rows, facts.cols, facts.bits_allocated, big, header.pixels.words)
    else:
        samples = decoding.decode(bytes(stream), header.syntax, header.dataset)
    t1, between = time.perf_counter(), time.thread_time()
    pixels = grayscale.to_uniform(samples, facts, header.dataset).pixels
    seconds["decode"] += inflating + t1 - t0
    return between - cpu + inflating + _encoded(pixels, seconds)


def _encoded(pixels: Any, seconds: dict[str, float]) -> float:
    """Add the seconds of encode and check decode; return their CPU seconds."""
    from shardkit.codecs import htj2k

    t0, cpu = time.perf_counter(), time.thread_time()
    image = htj2k.encode(pixels)
    t1 = time.perf_counter()
    back = htj2k.decode(image)
    t2, cpu = time.perf_counter(), time.thread_time() - cpu
    if not np.array_equal(back, pixels):
        raise RuntimeError("HTJ2K did not give back the pixels it was given")
    seconds["encode"] += t1 - t0
    seconds["check"] += t2 - t1
    return cpu


def _naive_role(sample: list[Record], out: str, workers: int, png: str) -> list[int]:
    import pydicom  # noqa: F401 - imported before the fork
    import webdataset  # noqa: F401

    return [number for numbers in _fan_out(_naive_share, workers, sample, out, workers, png) for number in numbers]


def _naive_share(queue: Any, index: int, sample: list[Record], out: str, workers: int, png: str) -> None:
    """Be the naive script: nothing checked, and what raises is left out. Tells which files it wrote."""
    import imagecodecs
    import webdataset

    options: dict[str, Any] = {
        "level": 1,
        "strategy": imagecodecs.PNG.STRATEGY.RLE,
        "filter": imagecodecs.PNG.FILTER.SUB,
    }
    if png == "default":
        options = {}
    wrote: list[int] = []
    with webdataset.ShardWriter(f"{out}/{index}-%06d.tar", maxsize=512 << 20, verbose=0) as sink:
        for number in range(index, len(sample), workers):
            try:
                pixels = as_scripts_do(sample[number]["path"])
                image = imagecodecs.png_encode(pixels.astype(np.uint16), **options)
            except Exception:
                continue
            facts = {"height": pixels.shape[0], "width": pixels.shape[1]}
            sink.write({"__key__": f"{number:08d}", "png": bytes(image), "json": facts})
            wrote.append(number)
    queue.put(wrote)


# --- planning at scale


def _rows_role(folder: str, rows: int) -> None:
    """Write scan parts of made-up rows, and bins for them."""
    from shardkit.build import scan
    from shardkit.dataset import bin_choice
    from shardkit.synthetic.radiographs import synth_sizes

    rng = np.random.default_rng(0)
    for start in range(0, rows, scan.PART):
        table = _made_up(start, min(scan.PART, rows - start), rng)
        pq.write_table(table, Path(folder) / f"scan-{start // scan.PART:05d}.parquet", compression="zstd")
    heights, widths, _ = synth_sizes(20_000, rng)
    found = bin_choice.parse("auto:36", heights, widths, 48, 3072)
    (Path(folder) / "bins.json").write_text(json.dumps(found.to_json()))


def _made_up(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    """Make rows as a header pass leaves them: one in twenty is no image, one in fifty is for processing."""
    from shardkit.build.scan_rows import SCHEMA
    from shardkit.synthetic.radiographs import synth_sizes

    heights, widths, _ = (np.minimum(side, 3072) for side in synth_sizes(count, rng))

    def names(length: int, each: int = 1) -> list[str]:
        text = rng.bytes(length // 2 * (count // each + 1)).hex()
        return [text[i // each * length : i // each * length + length] for i in range(count)]

    sop, bad = names(32), rng.random(count) < 0.05
    columns: dict[str, Any] = {
        "serial": np.arange(start, start + count),
        "path": [f"PATIENT{n[:12]}/20{n[12:18]}_ACC{n[:7]}/DX_1/IM0001.dcm".encode() for n in sop],
        "size": heights * widths,
        "verdict": ["dropped" if b else None for b in bad],
        "reason": ["no_image" if b else None for b in bad],
        "message": ["the object holds no pixel data" if b else None for b in bad],
        "repairs": [[]] * count,
        "flags": [[]] * count,
        "height": heights.astype(np.int32),
        "width": widths.astype(np.int32),
        "estimate": (0.7 * heights * widths).astype(np.int64),
        "plain": rng.random(count) < 0.34,
        "presentation": np.where(rng.random(count) < 0.02, "FOR PROCESSING", "FOR PRESENTATION").astype(object),
        "order": rng.integers(0, 1 << 63, count, np.uint64),
        "sop": sop,
        **{name: names(32, each) for name, each in (("patient", 3), ("study", 2), ("series", 2), ("device", 100))},
        "source": names(32),
        "twin": names(32, 2),
        "modality": ["DX"] * count,
    }
    nothing = [None] * count  # what is known of few files only
    return pa.table({f.name: pa.array(columns.get(f.name, nothing), f.type) for f in SCHEMA}, SCHEMA)


def _plan_role(folder: str) -> Record:
    from shardkit.build import shard_plan
    from shardkit.dataset.bins import Bins

    place = Path(folder)
    parts = sorted(place.glob("scan-*.parquet"))
    found = Bins.from_json(json.loads((place / "bins.json").read_text()), 48)
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    before, clock = machine.peak_of_this_process(), time.perf_counter()
    made = shard_plan.make(place, parts, [], found, {}, 512 << 20)
    seconds, after = time.perf_counter() - clock, machine.peak_of_this_process()
    return {
        "rows": rows,
        "shards": len(made.shards),
        "seconds": seconds,
        "us_per_row": 1e6 * seconds / rows,
        "peak_mib": after / (1 << 20),
        "peak_above_imports_mib": (after - before) / (1 << 20),
        "memory_bytes_per_row": (after - before) / rows,
        "scan_bytes_per_row": sum(part.stat().st_size for part in parts) / rows,
        "plan_bytes_per_row": (place / shard_plan.PLAN).stat().st_size / rows,
    }
