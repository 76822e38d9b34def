"""How near `shardkit build` comes to its codecs' own speed, and how far ahead it is of the script everyone writes.

Three programs take the same DICOM files, interleaved in every repeat, with as many processes each:

build  the command itself, from its start to its end, scan and duplicates and report included.
bound  source decode, HTJ2K encode and check decode of the files that `build` wrote, by the functions it uses, and
       nothing else: only these calls are timed, bytes and parsed headers are in memory (deflated files inflate inside
       the time). Its rate is the sum over its processes of pixels by seconds spent in these calls.
naive  pydicom's pixel_array, MONOCHROME1 inverted, 16-bit PNG, webdataset.ShardWriter; one process and one writer per
       slice of the files. The PNG has OpenCV's settings (zlib level 1, RLE, filter Sub), or with --png default those of
       libpng, as Pillow writes it: smaller, and several times slower.
"""

import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime, timezone
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from queue import Empty
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian
from rich.console import Console
from rich.table import Table

from benchmarks import machine

Record = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
DEFECTS = 0.05
PNG = {
    "opencv": "imagecodecs.png_encode(level=1, strategy=RLE, filter=SUB), the settings of cv2.imencode",
    "default": "imagecodecs.png_encode(), zlib's default level",
}
PROGRAMS = ("build", "bound", "naive")
RATIOS = {  # name: (numerator, denominator), both a figure of a repeat
    "build / bound": (("build", "mpx_s"), ("bound", "mpx_s")),
    "convert stage / bound": (("build", "convert_mpx_s"), ("bound", "mpx_s")),
    "build / naive": (("build", "mpx_s"), ("naive", "mpx_s")),
    "codec CPU / build CPU": (("bound", "cpu_s"), ("build", "cpu_s")),  # hardly moved by other load on the machine
    "bytes out, build / naive": (("build", "bytes_out"), ("naive", "bytes_out")),
}
FIGURES = ("wall_s", "cpu_s", "mpx_s", "files_s", "source_mb_s", "peak_pss_mib", "peak_rss_mib", "bytes_out")


def run(
    *,
    files: int = 500,
    workers: int = 2,
    repeats: int = 3,
    scale: float = 1.0,
    seed: int = 0,
    profile_files: int = 40,
    plan_rows: int = 0,
    png: Literal["opencv", "default"] = "opencv",
    export: Path | None = None,
    out: Path = ROOT / "benchmarks" / "results" / "build.json",
) -> None:
    """Build a synthetic export, time the codecs alone and the naive script on it, and say where the time goes.

    Parameters
    ----------
    files
        Files the export holds at least.
    workers
        Processes that each program may use.
    repeats
        How often the three programs run.
    scale
        Factor on heights and widths of the radiographs; 1 is full size.
    seed
        Seed of the export.
    profile_files
        Files to take apart function by function; 0 for none.
    plan_rows
        Also time the planning of shards for this many made-up rows, and for a tenth of them.
    png
        Settings of the naive script's PNG encoder.
    export
        Folder to make the export in, or one that holds an export already; default a temporary one.
    out
        JSON file for the figures.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        work = Path(folder)
        source = export or work / "export"
        _ensure_export(source, files, scale, seed, workers)
        result: Record = {
            "question": (__doc__ or "").partition("\n")[0],
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": machine.describe(),
        }
        # One unmeasured build finds the files to compare on, and leaves every byte of them in the page cache.
        _build(source, work, workers)
        sample = _written(work, source)
        conditions = {"workers": workers, "scale": scale, "seed": seed, "naive_png": PNG[png]}
        result["conditions"] = conditions | _conditions(work, source)
        result["repeats"] = [_repeat(i, source, work, sample, workers, png) for i in range(repeats)]
        result["summary"] = summarise(result["repeats"])
        if profile_files:
            result["profile"] = _child(work, "profile", _spread(sample, profile_files), source, work / "profile")
        if plan_rows:
            result["plan"] = [_plan(work, rows) for rows in (plan_rows // 10, plan_rows) if rows >= 100]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    show(result, Console())


# --- the files


def _ensure_export(folder: Path, files: int, scale: float, seed: int, workers: int) -> None:
    """A folder with something in it is taken as it is."""
    from shardkit.testing.export import make_export, plan_export

    if folder.is_dir() and any(folder.iterdir()):
        return
    studies = max(1, files // 2)
    while len(plan_export(studies, seed=seed, defects=DEFECTS, scale=scale)) < files:
        studies += max(1, files // 50)
    make_export(folder, studies, seed=seed, defects=DEFECTS, scale=scale, workers=workers)


def _written(work: Path, source: Path) -> list[Record]:
    """path, size, height and width of every file that the last build wrote."""
    ledger = pq.read_table(work / "out.private" / "ledger.parquet", columns=["path", "size", "verdict", "key"])
    samples = pq.read_table(work / "out" / "manifest.parquet", columns=["key", "height", "width", "transfer_syntax"])
    facts = {row["key"]: row for row in samples.to_pylist()}
    rows = [row | facts[row["key"]] for row in ledger.to_pylist() if row["verdict"] == "written"]
    return [{**row, "path": str(source / row["path"])} for row in rows]


def _conditions(work: Path, source: Path) -> Record:
    from pydicom.uid import UID

    sample, count = _written(work, source), pq.read_metadata(work / "out.private" / "ledger.parquet").num_rows
    syntaxes = Counter(UID(row["transfer_syntax"]).name for row in sample)
    return {
        "export": f"synthetic, {DEFECTS:.0%} of the files defective",
        "files": count,
        "written": len(sample),
        "mpx_written": _mpx(sample),
        "bytes_written_from": _bytes(sample),
        "syntaxes": dict(syntaxes.most_common()),
        "storage": "local disk; every source byte in the page cache; outputs flushed and deleted between programs",
    }


def _mpx(rows: list[Record]) -> float:
    return float(sum(row["height"] * row["width"] for row in rows)) / 1e6


def _bytes(rows: list[Record]) -> int:
    return sum(int(row["size"]) for row in rows)


def _spread(rows: list[Record], count: int) -> list[Record]:
    """`count` rows, evenly over all."""
    at = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [rows[i] for i in at]


# --- the three programs


def _repeat(index: int, source: Path, work: Path, sample: list[Record], workers: int, png: str) -> Record:
    """Every program once; who begins rotates, so that a drift of the machine favours none."""
    run_one = {
        "build": lambda: _build(source, work, workers),
        "bound": lambda: _bound(work, sample, workers),
        "naive": lambda: _naive(work, sample, workers, png),
    }
    start = index % len(PROGRAMS)
    order = PROGRAMS[start:] + PROGRAMS[:start]
    done: Record = {name: run_one[name]() for name in order}
    done = {name: done[name] for name in PROGRAMS}
    return {"order": order, **done, "ratios": ratios(done)}


def ratios(repeat: Record) -> dict[str, float]:
    """Each of RATIOS from one repeat's figures."""
    return {name: repeat[a][x] / repeat[b][y] for name, ((a, x), (b, y)) in RATIOS.items()}


def _build(source: Path, work: Path, workers: int) -> Record:
    """The command in a fresh folder; files in are all of the export, pixels are those it wrote."""
    for name in ("out", "out.private"):
        shutil.rmtree(work / name, ignore_errors=True)
    words = ["build", "--source", source, "--out", work / "out", "--workers", workers, "--max-quarantine", 1]
    used = _measure(work, "command", [str(word) for word in words], str(work / "stages.json"))
    sample, stages = _written(work, source), json.loads((work / "stages.json").read_text())
    bounds = [("startup", used.started), *stages, ("end", used.ended)]
    seconds: dict[str, float] = {}
    for (name, begin), (_, end) in pairwise(bounds):
        seconds[name] = seconds.get(name, 0.0) + end - begin
    size = sum(path.stat().st_size for path in (work / "out" / "shards").rglob("*.tar"))
    rates = {"stages_s": seconds, "convert_mpx_s": _mpx(sample) / seconds["convert"]}
    return _figures(used, sample, size) | rates


def _naive(work: Path, sample: list[Record], workers: int, png: str) -> Record:
    shutil.rmtree(work / "naive", ignore_errors=True)
    (work / "naive").mkdir()
    used = _measure(work, "naive", sample, str(work / "naive"), workers, png)
    wrote = [sample[number] for number in json.loads((work / "result.json").read_text())]
    size = sum(path.stat().st_size for path in (work / "naive").iterdir())
    shutil.rmtree(work / "naive")
    return _figures(used, wrote, size) | {"failed": len(sample) - len(wrote)}


def _figures(used: machine.Usage, sample: list[Record], size: int) -> Record:
    rates = {
        "mpx_s": _mpx(sample) / used.wall_s,
        "files_s": len(sample) / used.wall_s,
        "source_mb_s": _bytes(sample) / used.wall_s / 1e6,
    }
    return {k: v for k, v in asdict(used).items() if k not in ("started", "ended")} | rates | {"bytes_out": size}


def _bound(work: Path, sample: list[Record], workers: int) -> Record:
    """Rates add up over processes: each counts only the seconds its codecs ran."""
    shares = _child(work, "bound", sample, workers)
    spent = [sum(share["seconds"].values()) for share in shares]
    busy = [(share, seconds) for share, seconds in zip(shares, spent, strict=True) if share["files"]]
    total = {name: sum(share["seconds"][name] for share in shares) for name in ("decode", "encode", "check")}
    mpx = sum(share["mpx"] for share in shares)
    return {
        "codec_s": spent,
        "cpu_s": sum(share["cpu_s"] for share in shares),
        "mpx_s": sum(share["mpx"] / seconds for share, seconds in busy),
        "files_s": sum(share["files"] / seconds for share, seconds in busy),
        "source_mb_s": sum(share["bytes"] / seconds for share, seconds in busy) / 1e6,
        "ms_per_mpx": {name: 1e3 * seconds / mpx for name, seconds in total.items()},
    }


def _plan(work: Path, rows: int) -> Record:
    """`layout.make` alone, in a process of its own, on scan parts that another one wrote."""
    folder = work / "plan"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _child(work, "rows", str(folder), rows)
    return dict(_child(work, "plan", str(folder)))


# --- child processes: each role runs in a fresh interpreter, its arguments and its result are JSON files


def _measure(work: Path, role: str, *arguments: Any) -> machine.Usage:
    (work / "arguments.json").write_text(json.dumps(arguments, default=str))
    os.sync()  # nothing of the program before is still to be written
    words = f"from benchmarks import build; build.child({role!r}, {str(work)!r})"
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", words]
    return machine.measure(command, work / "log", {**os.environ, "PYTHONPATH": paths})


def _child(work: Path, role: str, *arguments: Any) -> Any:
    _measure(work, role, *arguments)
    return json.loads((work / "result.json").read_text())


def child(role: str, work: str) -> None:
    """Entry of a child process."""
    roles: dict[str, Callable[..., Any]] = {
        "command": _command_role,
        "bound": _bound_role,
        "naive": _naive_role,
        "profile": _profile_role,
        "rows": _rows_role,
        "plan": _plan_role,
    }
    result = roles[role](*json.loads((Path(work) / "arguments.json").read_text()))
    (Path(work) / "result.json").write_text(json.dumps(result))


def _command_role(words: list[str], stages: str) -> None:
    """`shardkit` itself, its progress display noting when each stage begins."""
    from shardkit import cli, progress

    begun: list[tuple[str, float]] = []

    class Noted(progress.Shown):
        def stage(self, name: str, total: int | None) -> None:
            begun.append((name, time.time()))
            super().stage(name, total)

    progress.Shown = Noted  # type: ignore[misc]
    sys.argv = ["shardkit", *words]
    try:
        cli.main()
    except SystemExit as end:
        if end.code:
            raise
    Path(stages).write_text(json.dumps(begun))


def _fan_out(function: Callable[..., Any], workers: int, *arguments: Any) -> list[Any]:
    """`function(queue, i, *arguments)` in forked processes, which have all imports; what each put into the queue."""
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
    from shardkit import convert  # noqa: F401 - imported before the fork

    fork = multiprocessing.get_context("fork")
    return _fan_out(_bound_share, workers, sample, fork.Value("q", 0), fork.Barrier(workers))


def _bound_share(queue: Any, _: int, sample: list[Record], taken: Any, barrier: Any) -> None:
    """One process: the next file until none is left, so that all processes end together."""
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
        share["mpx"] += _mpx([sample[index]])
        share["files"] += 1
        share["bytes"] += sample[index]["size"]
    queue.put(share)


def _codecs_only(row: Record, seconds: dict[str, float]) -> float:
    """Add the seconds of this file's source decode, encode and check decode; returns their CPU seconds."""
    from shardkit.codecs import htj2k
    from shardkit.dicom import decoding, grayscale
    from shardkit.dicom.reading import frame, read_header
    from shardkit.dicom.triage import Rules, judge_header

    data = Path(row["path"]).read_bytes()
    clock = time.perf_counter()
    header = read_header(BytesIO(data), len(data))
    inflating = time.perf_counter() - clock if header.syntax == DeflatedExplicitVRLittleEndian else 0.0
    facts, *_ = judge_header(header, Rules())
    stream, native = frame(header, facts), header.pixels is not None and header.pixels.length is not None
    t0, cpu = time.perf_counter(), time.thread_time()
    if native:
        big = header.syntax == ExplicitVRBigEndian
        raw = decoding.native(stream, facts.rows, facts.cols, facts.bits_allocated, big)
    else:
        raw = decoding.decode(stream, header.syntax, header.dataset)[0]
    t1, between = time.perf_counter(), time.thread_time()
    lossy = header.syntax in decoding.LOSSY
    pixels = grayscale.to_uniform(raw, facts, header.dataset, lossy=lossy).pixels
    t2, cpu = time.perf_counter(), cpu + time.thread_time() - between
    image = htj2k.encode(pixels)
    t3 = time.perf_counter()
    back = htj2k.decode(image)
    t4, cpu = time.perf_counter(), time.thread_time() - cpu
    if not np.array_equal(back, pixels):
        raise RuntimeError("HTJ2K did not give back the pixels it was given")
    for name, spent in (("decode", inflating + t1 - t0), ("encode", t3 - t2), ("check", t4 - t3)):
        seconds[name] += spent
    return cpu + inflating


def _naive_role(sample: list[Record], out: str, workers: int, png: str) -> list[int]:
    import pydicom  # noqa: F401 - imported before the fork
    import webdataset  # type: ignore[import-untyped]  # noqa: F401

    return [number for numbers in _fan_out(_naive_share, workers, sample, out, workers, png) for number in numbers]


def _naive_share(queue: Any, index: int, sample: list[Record], out: str, workers: int, png: str) -> None:
    """The script: nothing checked, and what raises is left out. Tells which files it wrote."""
    import imagecodecs
    import pydicom
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
                dataset = pydicom.dcmread(sample[number]["path"])
                pixels = dataset.pixel_array
                if dataset.PhotometricInterpretation == "MONOCHROME1":
                    pixels = pixels.max() - pixels
                image = imagecodecs.png_encode(pixels.astype(np.uint16), **options)
            except Exception:
                continue
            facts = {"height": pixels.shape[0], "width": pixels.shape[1]}
            sink.write({"__key__": f"{number:08d}", "png": bytes(image), "json": facts})
            wrote.append(number)
    queue.put(wrote)


# --- one child's work, function by function


def _profile_role(sample: list[Record], source: str, scratch: str) -> Record:
    """CPU ms per Mpx by function: `child` is a conversion, `parent` what is left to the main process."""
    from shardkit.arguments import Conversion
    from shardkit.source import Source

    Path(scratch).mkdir(exist_ok=True)
    spec = Conversion(source=Source(source), out=scratch)
    _convert_one(spec, sample[0], source)
    watch = machine.Stopwatch()
    _watch_child(watch)
    clock, cpu = time.perf_counter(), time.thread_time()
    done = [_convert_one(spec, row, source) for row in sample]
    wall, cpu, mpx = time.perf_counter() - clock, time.thread_time() - cpu, _mpx(sample)
    watch.restore()
    child = {name: 1e3 * seconds / mpx for name, seconds in watch.seconds.items()}
    child["the rest"] = 1e3 * cpu / mpx - sum(child.values())
    codecs = sum(child.get(name, 0.0) for name in ("source decode", "encode", "check decode"))
    return {
        "files": len(sample),
        "mpx": mpx,
        "child_ms_per_mpx": dict(sorted(child.items(), key=lambda item: -item[1])),
        "child_total": 1e3 * cpu / mpx,
        "child_total_wall": 1e3 * wall / mpx,
        "codecs_share": codecs / (1e3 * cpu / mpx),
        "parent_ms_per_mpx": _parent_costs(done, Path(scratch), mpx),
    }


def _convert_one(spec: Any, row: Record, source: str) -> Any:
    from shardkit.convert import convert_file

    path = os.fsencode(os.path.relpath(row["path"], source))
    done = convert_file(spec, path, row["size"], (row["height"], row["width"]))
    if done.verdict != "written":
        raise RuntimeError(f"a file that a build wrote is now {done.verdict}: {done.message}")
    return done


def _watch_child(watch: machine.Stopwatch) -> None:
    """Names that a later version no longer has are left out: their time shows in the rest."""
    from types import SimpleNamespace

    from shardkit import convert
    from shardkit.codecs import htj2k
    from shardkit.dicom import content, decoding, grayscale, privacy
    from shardkit.source import Source

    hashes = SimpleNamespace(sha256=hashlib.sha256)
    if hasattr(convert, "hashlib"):
        setattr(convert, "hashlib", hashes)  # noqa: B010 - a module's own import
    places: list[tuple[str, Any, str]] = [
        ("read file", Source, "read"),
        ("SHA-256 of the file", hashes, "sha256"),
        ("parse header", convert, "read_header"),
        ("judge header", convert, "judge_header"),
        ("join frame", convert, "frame"),
        ("source decode", decoding, "decode"),
        ("source decode", decoding, "native"),
        ("grayscale.to_uniform", grayscale, "to_uniform"),
        ("content.reduce", content, "reduce"),
        ("content.find_content", content, "find_content"),
        ("content.statistics", content, "statistics"),
        ("content.burned_in_suspect", content, "burned_in_suspect"),
        ("content.thumbnail", content, "thumbnail"),
        ("content.perceptual_hash", content, "perceptual_hash"),
        ("encode", htj2k, "encode"),
        ("check decode", htj2k, "decode"),
        ("compare", convert, "_encode"),
        ("hash of the pixels", convert, "pixel_hash"),
        ("hashes of the prefixes", convert, "_prefixes"),
        ("privacy.metadata", privacy, "metadata"),
    ]
    for name, owner, attribute in places:
        if hasattr(owner, attribute):
            watch.watch(name, owner, attribute)


def _parent_costs(done: list[Any], scratch: Path, mpx: float) -> dict[str, float]:
    """Passing results through a pipe (both ends) and writing the tar, in CPU ms per Mpx."""
    from shardkit.shards.webdataset import ShardWriter

    reader, writer = multiprocessing.Pipe(duplex=False)
    cpu = time.process_time()
    sender = threading.Thread(target=lambda: deque(map(writer.send, done), maxlen=0))
    sender.start()
    for _ in done:
        reader.recv()
    sender.join()
    pipe, cpu = time.process_time() - cpu, time.process_time()
    with ShardWriter(scratch / "shard") as shard:
        for number, one in enumerate(done):
            shard.add(f"{number:06d}", "j2c", one.image, {k: str(v) for k, v in one.facts.items()})
    return {"pickle and pipe": 1e3 * pipe / mpx, "tar": 1e3 * (time.process_time() - cpu) / mpx}


# --- planning at scale


def _rows_role(folder: str, rows: int) -> None:
    """Scan parts of made-up rows, and bins for them."""
    from shardkit import bins, scan
    from shardkit.testing.radiographs import synth_sizes

    rng = np.random.default_rng(0)
    for start in range(0, rows, scan.PART):
        table = _made_up(start, min(scan.PART, rows - start), rng)
        pq.write_table(table, Path(folder) / f"scan-{start // scan.PART:05d}.parquet", compression="zstd")
    heights, widths, _ = synth_sizes(20_000, rng)
    found = bins.parse("auto:36", heights, widths, 48, 3072)
    (Path(folder) / "bins.json").write_text(json.dumps(found.to_json()))


def _made_up(start: int, count: int, rng: np.random.Generator) -> pa.Table:
    """Rows as a header pass leaves them: one in twenty is no image, one in fifty is for processing."""
    from shardkit.scan import SCHEMA
    from shardkit.testing.radiographs import synth_sizes

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
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in SCHEMA}, SCHEMA)


def _plan_role(folder: str) -> Record:
    from shardkit import bins, layout

    place = Path(folder)
    parts = sorted(place.glob("scan-*.parquet"))
    found = bins.Bins.from_json(json.loads((place / "bins.json").read_text()), 48)
    rows = sum(pq.read_metadata(part).num_rows for part in parts)
    before, clock = machine.peak_of_this_process(), time.perf_counter()
    made = layout.make(place, parts, [], found, {}, 512 << 20)
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
        "plan_bytes_per_row": (place / layout.PLAN).stat().st_size / rows,
    }


# --- what it comes to


def summarise(repeats: list[Record]) -> Record:
    """Median, least and most of every figure and ratio over the repeats; ratios are taken within a repeat first."""

    def over(*keys: str) -> Record:
        found = [functools.reduce(lambda record, key: record[key], keys, repeat) for repeat in repeats]
        return {name: _spread_of([record[name] for record in found]) for name in found[0]}

    plain = {name: [{k: r[name][k] for k in FIGURES if k in r[name]} for r in repeats] for name in PROGRAMS}
    figures = {
        name: {k: _spread_of([record[k] for record in records]) for k in records[0]} for name, records in plain.items()
    }
    parts = {"stages_s": over("build", "stages_s"), "bound_ms_per_mpx": over("bound", "ms_per_mpx")}
    return {**figures, **parts, "ratios": over("ratios")}


def _spread_of(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def show(result: Record, console: Console) -> None:
    """The figures in one screen."""
    facts, summary = result["conditions"], result["summary"]
    console.print(
        f"{facts['files']:,} files, {facts['written']:,} written: {facts['mpx_written']:,.0f} Mpx from"
        f" {facts['bytes_written_from'] / 1e9:.2f} GB; {facts['workers']} workers on {result['machine']['cpu']},"
        f" {len(result['repeats'])} repeats, median (min-max)",
        highlight=False,
    )
    table = Table("", "Mpx/s", "files/s", "MB/s in", "CPU s", "peak MiB", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for program in PROGRAMS:
        medians = [summary[program].get(name) for name in ("files_s", "source_mb_s", "cpu_s", "peak_pss_mib")]
        cells = [f"{spread['median']:,.1f}" if spread else "-" for spread in medians]
        table.add_row(program, _words(summary[program]["mpx_s"], 1), *cells)
    console.print(table)
    for name, spread in summary["ratios"].items():
        console.print(f"{name}: {_words(spread, 2)}", highlight=False)
    stages = ", ".join(f"{name} {spread['median']:.1f}" for name, spread in summary["stages_s"].items())
    console.print(f"build, seconds: {stages}", highlight=False)
    if "profile" in result:
        profile = result["profile"]
        costs = {**profile["child_ms_per_mpx"], **profile["parent_ms_per_mpx"]}
        text = ", ".join(f"{name} {ms:.2f}" for name, ms in costs.items() if ms >= 0.05)
        console.print(f"CPU ms per Mpx: {text}; codecs are {profile['codecs_share']:.0%} of a child", highlight=False)
    for plan in result.get("plan", []):
        console.print(
            f"plan of {plan['rows']:,} rows: {plan['seconds']:.1f} s, {plan['peak_mib']:,.0f} MiB"
            f" ({plan['peak_above_imports_mib']:,.0f} above imports)",
            highlight=False,
        )


def _words(spread: dict[str, float], digits: int) -> str:
    return f"{spread['median']:,.{digits}f} ({spread['min']:,.{digits}f}-{spread['max']:,.{digits}f})"
