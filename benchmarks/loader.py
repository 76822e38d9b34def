"""How fast radiographs reach a training loop, against other loaders and against what the machine and its storage allow.

Every program delivers each sample once, decoded and normalised, as float32 torch tensors on the CPU; task `full` at
native size, task `224` as the central square of 224 x 224 pixels. A program is a fresh process; the time runs from
asking for the iterator to the last batch. In every repeat, interleaved:

shardkit    the loader with its defaults: Packed(8192 tokens of 48 pixels), or Resized(224, level="auto"); also with
            DALI's CPU decoder (disk), and with an empty disk cache (s3).
mosaic, litdata, webdataset, lance, spdl
            the same samples in that library's format, decoded in a worker process (the first three: of a DataLoader)
            or thread a core, twice: as 16-bit PNG, and with our HTJ2K bytes and decoder inside (at 224: decoded at a
            reduced level). See `peers`.
dicom       a DataLoader over the DICOM files: pydicom's pixel_array, MONOCHROME1 inverted, divided by the maximum.
decode      limit: the HTJ2K bytes in memory, decoded on a thread a core, nothing else.
read        limit: the byte ranges that the loader's plan asks for, read with as many connections, nothing else.

The binding limit is the lower of the two. Both are measured alone, while gateway, wire, ssh and loader share the cores
here: the CPU limit is what cores allow that do both, by the CPU seconds both took (for reads, the whole machine's).
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from benchmarks import loader_data, loader_epochs, loader_views, machine
from benchmarks.loader_data import Data, Source
from benchmarks.loader_programs import LIBRARIES, PATCH, READS, TOKENS
from benchmarks.loader_summary import Name, plots, ratios, readme, show, summarise
from benchmarks.peers import PEERS
from benchmarks.peers.webdataset import SHUFFLED
from benchmarks.peers.work import FETCHES, SIDE, Record
from benchmarks.results import FOLDER, ROOT, begin, save
from shardkit.terminal.output import Terminal

__all__ = ["plots", "readme", "run"]

TASKS, SOURCES = ("full", str(SIDE)), ("disk", "s3", "nas")
BATCH = {"full": 8, str(SIDE): 64}
TOLERANCE = {"full": 1e-4, str(SIDE): 0.02}  # of an image's mean; at 224, for other ways to resize
LEVEL = 2  # whose share of the bytes is measured
Program = Literal["shardkit", "mosaic", "litdata", "webdataset", "lance", "spdl", "dicom"]
Place = Literal["disk", "s3", "nas"]
Part = Literal["single", "epochs", "views"]
PARTS: tuple[Part, ...] = ("single", "epochs", "views")
VIEWS_FILES = 60  # of the part views


def run(
    *,
    files: int = 200,
    repeats: int = 2,
    scale: float = 1.0,
    seed: int = 0,
    shard_mib: int = 32,
    programs: Annotated[list[Program] | None, Parameter(consume_multiple=True)] = None,
    sources: Annotated[list[Place] | None, Parameter(consume_multiple=True)] = None,
    parts: Annotated[list[Part] | None, Parameter(consume_multiple=True)] = None,
    peers_python: Path | None = None,
    rgw: Path | None = None,
    latency_ms: float = 1.0,
    gbit: float = 1.0,
    out: Path = FOLDER / "loader.json",
) -> None:
    """Load the same radiographs with shardkit and with other loaders, from a disk, a bucket and a slow mount.

    Parameters
    ----------
    files
        Files the synthetic export holds at least.
    repeats
        How often every program runs.
    scale
        Factor on heights and widths of the radiographs; 1 is full size.
    seed
        Seed of the export.
    shard_mib
        Size aimed at for a shard of ours.
    programs
        Those to run, shardkit always among them; default all. One that is not installed and not left out is an error.
    sources
        Where the data lie; default all.
    parts
        single: single images, against other loaders. epochs: several epochs of a process, against decoding alone, see
        `loader_epochs`. views: several views of each, see `loader_views`. Either of these takes some five minutes on
        two cores. Default all. What is not run stays in the JSON file as it is.
    peers_python
        Interpreter that runs the peers; default this one. Some pin an old NumPy: `pip install '.[peers]'` in an
        environment of its own.
    rgw
        Script that starts a Ceph gateway, called with a folder and a port; prints the variables a client needs. Beside
        it lies stop_rgw.sh. Default: moto, a test server whose rates say nothing.
    latency_ms
        Of the slow mount, each way.
    gbit
        Rate of the slow mount.
    out
        JSON file for the figures.
    """
    result = json.loads(out.read_text()) if out.exists() else {}
    chosen, console = parts or PARTS, Terminal(width=max(Terminal().width, 130))
    with tempfile.TemporaryDirectory(prefix="shardkit-bench-") as folder, ExitStack() as stack:
        bench = Bench(Path(folder), str(peers_python or sys.executable))
        if "single" in chosen:
            wanted = [p for p in PEERS if programs is None or p in programs]
            bench.require(wanted)
            kept = {part: result[part] for part in PARTS if part in result}
            result = begin((__doc__ or "").partition("\n")[0], LIBRARIES) | kept
            result["peers"] = bench.child("describe", peers=True)
            data = loader_data.make(bench.data, files, scale, seed, shard_mib, wanted, bench.child)
            names = sources or SOURCES
            opened = [stack.enter_context(_source(name, data, bench.work, rgw, latency_ms, gbit)) for name in names]
            result["conditions"] = {"files": files, "scale": scale, "seed": seed} | _conditions(data, opened)
            groups = _groups(data, opened)
            result["repeats"] = [_repeat(i, repeats, groups, data, bench) for i in range(repeats)]
            result["level_2"] = _level_2(data, bench)
            result["summary"] = summarise(result)
        if "epochs" in chosen:
            data = loader_data.ours(bench.work / "epochs", files, scale, seed, shard_mib, bench.child)
            sizes = {task: _batch(task, data) for task in TASKS}
            result["epochs"] = loader_epochs.measure(bench, data, repeats, sizes)
        if "views" in chosen:
            most = min(files, VIEWS_FILES)
            result["views"] = loader_views.measure(bench, most, repeats, scale, seed, shard_mib)
    save(result, out, plots if "summary" in result else None)
    if "single" in chosen:
        show(result, console)
    if "epochs" in chosen:
        loader_epochs.show(result["epochs"], console)
    if "views" in chosen:
        loader_views.show(result["views"], console)


def _source(name: str, data: Data, work: Path, rgw: Path | None, latency_ms: float, gbit: float) -> Any:
    opened: dict[str, AbstractContextManager[Source]] = {
        "disk": nullcontext(loader_data.disk(data)),
        "s3": loader_data.bucket(data, work, rgw),
        "nas": loader_data.nas(data, work, latency_ms, gbit),
    }
    return opened[name]


# --- child processes: each runs a role of benchmarks.loader_programs in a fresh interpreter


@dataclass(frozen=True)
class Bench:
    """The folder of a run, and the interpreter of the peers."""

    work: Path
    peers_python: str

    @property
    def data(self) -> Path:
        """Folder of what is read."""
        return self.work / "data"

    def require(self, programs: list[str]) -> None:
        """End with a sentence if one of them is not installed where it would run."""
        code = (
            "import importlib.util as u, json, sys; print(json.dumps([m for m in sys.argv[1:] if not u.find_spec(m)]))"
        )
        command = [self.peers_python, "-c", code, *(PEERS[name].module for name in programs)]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
        missing = [peer.distribution for peer in PEERS.values() if peer.module in found]
        if missing:
            raise SystemExit(
                f"the interpreter that runs the peers has no {', '.join(missing)}: pip install '.[peers]' in an"
                " environment and name its python with --peers-python, or say with --programs what to compare"
            )

    def child(self, role: str, *arguments: Any, peers: bool = False, environment: dict[str, str] | None = None) -> Any:
        """Run a role; return what it returns."""
        return self.measured(role, *arguments, peers=peers, environment=environment)[1]

    def measured(
        self, role: str, *arguments: Any, peers: bool = False, environment: dict[str, str] | None = None
    ) -> tuple[machine.Usage, Any]:
        """Run a role; return what it took, and what it returned."""
        self.data.mkdir(exist_ok=True)
        (self.work / "arguments.json").write_text(json.dumps(arguments, default=str))
        os.sync()  # nothing of the program before is still to be written
        words = f"from benchmarks import loader_programs; loader_programs.child({role!r}, {str(self.work)!r})"
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        more = {"PYTHONPATH": paths, "LITDATA_DISABLE_VERSION_CHECK": "1", **(environment or {})}
        command = [self.peers_python if peers else sys.executable, "-c", words]
        used = machine.measure(command, self.work / "log", {**os.environ, **more})
        return used, json.loads((self.work / "result.json").read_text())


# --- what runs


def _groups(data: Data, sources: list[Source]) -> list[list[tuple[Name, Source]]]:
    """Return programs of one task and source; the limit of decoding is measured beside the first source."""
    groups = []
    for at, source in enumerate(sources):
        for task in TASKS:
            pairs = [("decode", "")] if at == 0 else []
            pairs += [("read", ""), *data.formats]
            pairs += [("shardkit", {"disk": "dali", "s3": "cache"}[source.name])] if source.name != "nas" else []
            groups.append([(Name(program, variant, source.name, task), source) for program, variant in pairs])
    return groups


def _repeat(index: int, repeats: int, groups: list[list[tuple[Name, Source]]], data: Data, bench: Bench) -> Record:
    """Run every program once; who begins rotates, so that a drift of the machine favours none."""
    rows = []
    for group in groups:
        start = index * len(group) // repeats
        rows += [measure(name, source, data, bench) for name, source in group[start:] + group[:start]]
    return {"rows": rows, "ratios": ratios(rows, len(os.sched_getaffinity(0)))}


def measure(name: Name, source: Source, data: Data, bench: Bench) -> Record:
    """Run one program in a fresh process, and check what it delivers."""
    folder = data.formats.get((name.program, name.variant), "shardkit")
    scratch = bench.work / "scratch"
    scratch.mkdir()
    job = {
        "program": name.program,
        "variant": name.variant,
        "task": name.task,
        "place": (loader_data.disk(data) if name.program == "decode" else source).place(folder),
        "batch": _batch(name.task, data),
        "workers": len(os.sched_getaffinity(0)),
        "scratch": scratch,
        "decoder": "dali" if name.variant == "dali" else "auto",
        "cache": data.bytes("shardkit") if name.variant == "cache" else 0,
    }
    if name.program in ("decode", "read"):
        job["samples"] = data.samples
    elif name.program in PEERS:
        job["files"] = data.files(folder)
    source.forget()
    peer = name.program in PEERS
    try:
        used, found = bench.measured("epoch", job, peers=peer, environment=source.environment)
    except RuntimeError as error:
        raise RuntimeError(f"{name}: {error}") from None
    shutil.rmtree(scratch)
    return name.fields() | _figures(name, used, found, data, folder)


def _batch(task: str, data: Data) -> int:
    """Return the images of a batch: no more than lets every worker make two."""
    return min(BATCH[task], math.ceil(len(data.samples) / 2 / len(os.sched_getaffinity(0))))


def _figures(name: Name, used: machine.Usage, found: Record, data: Data, folder: str) -> Record:
    """Return a program's figures; raise RuntimeError unless every sample came, with the pixels it has."""
    keys = [_key(data, name, sample) for sample in found["delivered"]]
    if set(keys) != {sample["key"] for sample in data.samples}:
        raise RuntimeError(f"{name} delivered {len(set(keys))} of {len(data.samples)} samples")
    reduced = name.task != "full" and (name.program not in PEERS or name.variant == "htj2k")
    seconds, mpx, decoded = found["seconds"], data.mpx(), data.mpx("auto" if reduced else "")
    stats = found["stats"]
    read = stats["cache"]["filled_bytes"] if name.variant == "cache" else stats.get("read_bytes", data.bytes(folder))
    return {
        "samples": len(set(keys)),
        "repeated": len(keys) - len(set(keys)),
        "seconds": seconds,
        "startup_s": found["began"] - used.started,
        "first_batch_s": found["first_batch_s"],
        "batches": found["batches"],
        "samples_s": len(set(keys)) / seconds,
        "mpx_s": mpx / seconds,
        "decoded_mpx_s": decoded / seconds,
        "read_bytes": read,
        "read_mb_s": read / seconds / 1e6,
        "cpu_s": found["cpu_s"],
        "machine_cpu_s": found["machine_cpu_s"],
        "peak_pss_mib": used.peak_pss_mib,
        "peak_rss_mib": used.peak_rss_mib,
        "checked": _checked(name, found["means"], data),
        **({"stats": stats} if name.program == "shardkit" else {}),
    }


def _key(data: Data, name: Name, sample: Any) -> str:
    if name.program == "dicom":
        return data.dicom[sample]
    return sample if isinstance(sample, str) else str(data.samples[sample]["key"])


def _checked(name: Name, means: dict[str, float], data: Data) -> int:
    """Count the images of the last batch that were compared; DICOM's are normalised otherwise and are not."""
    if name.program == "dicom":
        return 0
    known = {sample["key"]: sample["means"][name.task] for sample in data.samples}
    for sample, mean in means.items():
        key = str(data.samples[int(sample)]["key"]) if name.program == "shardkit" else sample
        if not abs(known[key] - mean) <= TOLERANCE[name.task]:
            raise RuntimeError(f"{name} delivered an image whose mean is {mean:.4f} instead of {known[key]:.4f}")
    return len(means)


def _level_2(data: Data, bench: Bench) -> Record:
    """Measure the bytes read for one epoch at level 2, by those of all images."""
    job = {"task": str(SIDE), "batch": _batch(str(SIDE), data), "place": loader_data.disk(data).place("shardkit")}
    found: Record = bench.child("level", job, LEVEL)
    total = sum(sample["level_bytes"][0] for sample in data.samples)
    return found | {"image_bytes": total, "share": found["read_bytes"] / total}


def _conditions(data: Data, sources: list[Source]) -> Record:
    cores = len(os.sched_getaffinity(0))
    return {
        "images": len(data.samples),
        "mpx": data.mpx(),
        "mpx_at_224": data.mpx("auto"),
        "workers": cores,
        "batch": {
            **{task: _batch(task, data) for task in TASKS},
            "shardkit full": f"packs of {TOKENS} patches of {PATCH} x {PATCH} pixels",
        },
        "sources": {source.name: source.where for source in sources},
        "bytes": {folder: data.bytes(folder) for folder in data.formats.values()},
        "image_bytes": {f"level {i}": sum(s["level_bytes"][i] for s in data.samples) for i in range(6)},
        "shards": len({sample["shard"] for sample in data.samples}),
        "png": loader_data.PNG,
        "order": "shuffled by each library's own means; webdataset: shards, and a buffer of"
        f" {SHUFFLED} samples; spdl: the list of files",
        "caches": "empty at the start of every run; mosaic and litdata copy shards from s3 and nas",
        "connections": READS | {"lance, spdl": FETCHES},
        "read_bytes": "shardkit: counted by the loader; peers: the size of their dataset, read once",
    }
