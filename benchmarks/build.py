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

import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq

from benchmarks import build_archives, machine
from benchmarks.build_profile import mpx
from benchmarks.build_sources import SOURCES, Kind
from benchmarks.build_summary import PROGRAMS, plots, readme, show, summarise
from benchmarks.loader_data import make_files
from benchmarks.results import FOLDER, ROOT, Record, begin, save
from shardkit.terminal.output import Terminal

__all__ = ["plots", "readme", "run"]

DEFECTS = 0.05
KEY = bytes(range(32))  # decides the order of files: that of all builds is one
PNG = {
    "opencv": "imagecodecs.png_encode(level=1, strategy=RLE, filter=SUB), the settings of cv2.imencode",
    "default": "imagecodecs.png_encode(), zlib's default level",
}
RATIOS = {  # name: (numerator, denominator), both a figure of a repeat
    "build / bound": (("build", "mpx_s"), ("bound", "mpx_s")),
    "convert stage / bound": (("build", "convert_mpx_s"), ("bound", "mpx_s")),
    "build / naive": (("build", "mpx_s"), ("naive", "mpx_s")),
    "codec CPU / build CPU": (("bound", "cpu_s"), ("build", "cpu_s")),  # hardly moved by other load on the machine
    "bytes out, build / naive": (("build", "bytes_out"), ("naive", "bytes_out")),
}


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
    kind: Kind = "dicom",
    archives: bool = True,
    others: bool = True,
    export: Path | None = None,
    out: Path = FOLDER / "build.json",
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
    kind
        Files that are built from: the synthetic DICOM, or a PNG of each image in it. PNG are decoded by Pillow in the
        codecs alone, as in the script, and nothing is taken apart function by function.
    archives
        Also build from archives of the same files, which should give the same bytes in the same time.
    others
        Also run the three programs on the other kind of files, made from the same export.
    export
        Folder to make the export in, or one that holds an export already; default a temporary one.
    out
        JSON file for the figures.
    """
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder:
        work = Path(folder)
        made = export or work / "export"
        _ensure_export(made, files, scale, seed)
        result = begin((__doc__ or "").partition("\n")[0])
        source, options = _source(kind, made, work), SOURCES[kind].options
        found, sample = _measured(kind, source, work, workers, png, repeats)
        result |= found
        result["conditions"] = {"workers": workers, "scale": scale, "seed": seed, "naive_png": PNG[png]} | found[
            "conditions"
        ]
        if archives:
            result["archives"] = build_archives.compared(
                lambda of: _build(of, work, workers, options), source, work, repeats
            )
        if profile_files and kind == "dicom":
            result["profile"] = _child(work, "profile", _spread(sample, profile_files), source, work / "profile")
        if others:
            names = [name for name in SOURCES if name != kind]
            result["kinds"] = {
                name: _measured(name, _source(name, made, work), work, workers, png, repeats)[0] for name in names
            }
        if plan_rows:
            result["plan"] = [_plan(work, rows) for rows in (plan_rows // 10, plan_rows) if rows >= 100]
    save(result, out, plots)
    show(result, Terminal())


# --- the files


def _ensure_export(folder: Path, files: int, scale: float, seed: int) -> None:
    """Make the export; a folder with something in it is taken as it is."""
    if not folder.is_dir() or not any(folder.iterdir()):
        make_files(folder, files, scale, seed, DEFECTS)


def _source(kind: Kind, made: Path, work: Path) -> Path:
    """Make files of a kind from the export, where they are others; return their folder."""
    folder = work / f"files-{kind}"
    folder.mkdir()
    return SOURCES[kind].make(made, folder)


def _measured(
    kind: Kind, source: Path, work: Path, workers: int, png: str, repeats: int
) -> tuple[Record, list[Record]]:
    """Run the three programs on files of a kind; return conditions, repeats and summary, and the files compared on."""
    options = SOURCES[kind].options
    # One unmeasured build finds the files to compare on, and leaves every byte of them in the page cache.
    _build(source, work, workers, options)
    sample, conditions = _written(work, source), _conditions(work, source, kind)
    done = [_repeat(i, source, work, sample, workers, png, options) for i in range(repeats)]
    return {"conditions": conditions, "repeats": done, "summary": summarise(done)}, sample


def _written(work: Path, source: Path) -> list[Record]:
    """Return path, size, height and width of every file that the last build wrote."""
    ledger = pq.read_table(work / "out.private" / "ledger.parquet", columns=["path", "size", "verdict", "key"])
    samples = pq.read_table(work / "out" / "manifest.parquet", columns=["key", "height", "width", "transfer_syntax"])
    facts = {row["key"]: row for row in samples.to_pylist()}
    rows = [row | facts[row["key"]] for row in ledger.to_pylist() if row["verdict"] == "written"]
    return [{**row, "path": str(source / row["path"])} for row in rows]


def _conditions(work: Path, source: Path, kind: Kind) -> Record:
    from pydicom.uid import UID

    sample, count = _written(work, source), pq.read_metadata(work / "out.private" / "ledger.parquet").num_rows
    syntaxes = Counter(UID(row["transfer_syntax"]).name if row["transfer_syntax"] else kind.upper() for row in sample)
    return {
        "export": f"{SOURCES[kind].words}, {DEFECTS:.0%} of the DICOM files defective",
        "files": count,
        "written": len(sample),
        "mpx_written": mpx(sample),
        "bytes_written_from": _bytes(sample),
        "syntaxes": dict(syntaxes.most_common()),
        "storage": "local disk; every source byte in the page cache; outputs flushed and deleted between programs",
    }


def _bytes(rows: list[Record]) -> int:
    return sum(int(row["size"]) for row in rows)


def _spread(rows: list[Record], count: int) -> list[Record]:
    """Choose `count` rows, evenly over all."""
    at = np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)
    return [rows[i] for i in at]


# --- the three programs


def _repeat(
    index: int,
    source: Path,
    work: Path,
    sample: list[Record],
    workers: int,
    png: str,
    options: tuple[str, ...],
) -> Record:
    """Run every program once; who begins rotates, so that a drift of the machine favours none."""
    run_one = {
        "build": lambda: _build(source, work, workers, options),
        "bound": lambda: _bound(work, sample, workers),
        "naive": lambda: _naive(work, sample, workers, png),
    }
    start = index % len(PROGRAMS)
    order = PROGRAMS[start:] + PROGRAMS[:start]
    done: Record = {name: run_one[name]() for name in order}
    done = {name: done[name] for name in PROGRAMS}
    return {"order": order, **done, "ratios": ratios(done)}


def ratios(repeat: Record) -> dict[str, float]:
    """Return each of RATIOS, from one repeat's figures."""
    return {name: repeat[a][x] / repeat[b][y] for name, ((a, x), (b, y)) in RATIOS.items()}


def _build(source: Path, work: Path, workers: int, options: tuple[str, ...]) -> Record:
    """Run the command in a fresh folder; files in are all of the export, pixels are those it wrote."""
    for name in ("out", "out.private"):
        shutil.rmtree(work / name, ignore_errors=True)
    key = work / "out.private" / "pseudonym.key"
    key.parent.mkdir(mode=0o700)
    key.touch(0o600)
    key.write_bytes(KEY)
    words = ["build", "--source", source, "--out", work / "out", "--workers", workers, "--max-quarantine", 1, *options]
    words.append("--accept-outcome")  # a small export may leave a split empty
    used = _measure(work, "command", [str(word) for word in words], str(work / "stages.json"))
    sample, stages = _written(work, source), json.loads((work / "stages.json").read_text())
    bounds = [("startup", used.started), *stages, ("end", used.ended)]
    seconds: dict[str, float] = {}
    for (name, start), (_, end) in pairwise(bounds):
        seconds[name] = seconds.get(name, 0.0) + end - start
    size = sum(path.stat().st_size for path in (work / "out" / "shards").rglob("*.tar"))
    rates = {"stages_s": seconds, "convert_mpx_s": mpx(sample) / seconds["convert"]}
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
        "mpx_s": mpx(sample) / used.wall_s,
        "files_s": len(sample) / used.wall_s,
        "source_mb_s": _bytes(sample) / used.wall_s / 1e6,
    }
    return {k: v for k, v in asdict(used).items() if k not in ("started", "ended")} | rates | {"bytes_out": size}


def _bound(work: Path, sample: list[Record], workers: int) -> Record:
    """Run the codecs alone. Rates add up over processes: each counts only the seconds its codecs ran."""
    shares = _child(work, "bound", sample, workers)
    spent = [sum(share["seconds"].values()) for share in shares]
    busy = [(share, seconds) for share, seconds in zip(shares, spent, strict=True) if share["files"]]
    total = {name: sum(share["seconds"][name] for share in shares) for name in ("decode", "encode", "check")}
    area = sum(share["mpx"] for share in shares)
    return {
        "codec_s": spent,
        "cpu_s": sum(share["cpu_s"] for share in shares),
        "mpx_s": sum(share["mpx"] / seconds for share, seconds in busy),
        "files_s": sum(share["files"] / seconds for share, seconds in busy),
        "source_mb_s": sum(share["bytes"] / seconds for share, seconds in busy) / 1e6,
        "ms_per_mpx": {name: 1e3 * seconds / area for name, seconds in total.items()},
    }


def _plan(work: Path, rows: int) -> Record:
    """Run `shard_plan.make` alone, in a process of its own, on scan parts that another one wrote."""
    folder = work / "plan"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    _child(work, "rows", str(folder), rows)
    return dict(_child(work, "plan", str(folder)))


# --- child processes: each runs a role of benchmarks.build_programs, or the command, in a fresh interpreter


def _measure(work: Path, role: str, *arguments: Any) -> machine.Usage:
    (work / "arguments.json").write_text(json.dumps(arguments, default=str))
    os.sync()  # nothing of the program before is still to be written
    words = f"from benchmarks import build_programs; build_programs.child({role!r}, {str(work)!r})"
    if role == "command":
        words = f"from benchmarks import build_command; build_command.command({str(work)!r})"
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-c", words]
    return machine.measure(command, work / "log", {**os.environ, "PYTHONPATH": paths})


def _child(work: Path, role: str, *arguments: Any) -> Any:
    _measure(work, role, *arguments)
    return json.loads((work / "result.json").read_text())
