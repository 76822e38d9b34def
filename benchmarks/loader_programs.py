"""The programs that the loader benchmark times, each a role of a fresh process: arguments and result are JSON files."""

import asyncio
import importlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from benchmarks import machine, peers
from benchmarks.peers.work import SIDE, Record

LIBRARIES = (
    *("shardkit", "numpy", "torch", "nvidia-dali-cuda130", "imagecodecs", "obstore", "pydicom", "mosaicml-streaming"),
    *("litdata", "webdataset", "opencv-python-headless", "boto3", "moto", "pylibjpeg-libjpeg", "pyjpegls"),
    *("lancedb", "spdl-core"),
)
TOKENS, PATCH = 8192, 48  # a pack holds about as many images as the peers' batches
READS = {"s3": 32, "disk": 16, "mount": 16}  # concurrent reads; as many as the loader has
LONGEST_S = 900
Delivered = tuple[list[Any], Any]  # samples of a batch, and their images: a tensor, a list of tensors, or None


def child(role: str, work: str) -> None:
    """Run a role in a child process: one of these, or module:function of another benchmark."""
    roles: dict[str, Callable[..., Any]] = {
        "command": _command_role,
        "describe": lambda: machine.describe(LIBRARIES),
        "write": peers.write,
        "epoch": _epoch_role,
        "level": _level_role,
    }
    module, _, name = role.partition(":")
    function = getattr(importlib.import_module(f"benchmarks.{module}"), name) if name else roles[role]
    result = function(*json.loads((Path(work) / "arguments.json").read_text()))
    (Path(work) / "result.json").write_text(json.dumps(result))


def _command_role(words: list[str]) -> None:
    """Run `shardkit` itself."""
    from shardkit import cli

    if code := cli.run(words):
        raise SystemExit(code)


# --- one epoch of one program


def _epoch_role(job: Record) -> Record:
    """Run an epoch of a program.

    Seconds are from asking for the iterator to the last batch; CPU seconds are also of what came after it, such as
    ending workers. The means of the images of the last batch, by sample, show that they are the right ones.
    """
    signal.alarm(LONGEST_S)  # a program that hangs ends the benchmark
    make = {"shardkit": _Shardkit, "decode": _Decode, "read": _Read}.get(job["program"], _Peer)
    program: Any = make(job)
    delivered: list[Any] = []
    stamps: list[float] = []
    last: Delivered = ([], None)
    busy, cpu, began = machine_seconds(), _tree_seconds(), time.time()
    clock = time.perf_counter()
    for last in program.batches():
        stamps.append(time.perf_counter() - clock)
        delivered += last[0]
    busy, cpu = machine_seconds() - busy, _tree_seconds() - cpu
    return {
        "began": began,
        "first_batch_s": stamps[0],
        "seconds": stamps[-1],
        "cpu_s": cpu,
        "machine_cpu_s": busy,
        "batches": len(stamps),
        "delivered": delivered,
        "means": {} if last[1] is None else {str(k): float(v.mean()) for k, v in zip(*last, strict=True)},
        "stats": program.stats(),
    }


def machine_seconds() -> float:
    """Return CPU seconds of all of this machine's processes: those of gateways and mounts are among them."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")  # without idle and waiting for a disk


def _tree_seconds() -> float:
    """Return CPU seconds of this process and of all it started, those that have ended included."""
    ticks = 0
    for pid in machine._tree(os.getpid()):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


class _Peer:
    """Another loader."""

    def __init__(self, job: Record) -> None:
        self._batches = peers.batches(job)

    def batches(self) -> Iterable[Delivered]:
        """Return its batches."""
        return self._batches

    def stats(self) -> Record:
        """Return nothing: the others do not say."""
        return {}


class _Shardkit:
    """The loader with its defaults, and an empty disk cache of `job["cache"]` bytes, if any."""

    def __init__(self, job: Record) -> None:
        if job.get("decoder") == "dali":
            import nvidia.dali.fn  # noqa: F401 - imports are outside the time, for all

        cache = {"cache": job["scratch"], "cache_bytes": job["cache"]} if job.get("cache") else {}
        self._loader = open_loader(job, **cache, decoder=job.get("decoder", "auto"))

    def batches(self) -> Iterator[Delivered]:
        """Yield rows of the manifest, and their images."""
        from shardkit import PackedBatch

        for batch in self._loader:
            there = batch.weight > 0
            rows = batch.rows[there].tolist()
            yield rows, _Packed(batch, len(rows)) if isinstance(batch, PackedBatch) else batch.images[there]

    def stats(self) -> Record:
        """Return the loader's stats."""
        found = self._loader.stats()
        found.pop("bins")
        return dict(found)


class _Packed:
    """The images of a packed batch, one after the other."""

    def __init__(self, batch: Any, count: int) -> None:
        self._batch, self._count = batch, count

    def __iter__(self) -> Iterator[Any]:
        ends = self._batch.cu_seqlens.tolist()
        for i, (start, end) in enumerate(pairwise(ends[: self._count + 1])):
            yield self._batch.patches[start:end].double().sum() / self._batch.hw[i].prod()


def open_loader(job: Record, level: int | Literal["auto"] = "auto", **more: Any) -> Any:
    """Open the loader for the job's task, on the CPU, over all samples."""
    from shardkit import Loader

    return Loader(url_of(job), batching=_batching(job, level), split=None, device="cpu", **more)


def _batching(job: Record, level: int | Literal["auto"] = "auto") -> Any:
    from shardkit import Packed, Resized

    if job["task"] == "full":
        return Packed(tokens=TOKENS, patch=PATCH, per_step=1)
    return Resized(SIDE, batch_size=job["batch"], level=level, per_step=1)


def url_of(job: Record) -> str:
    """Return the url or folder of the dataset in the job's place."""
    return str(job["place"]["url"] if job["place"]["kind"] == "s3" else job["place"]["root"])


# --- limits: decoding and reading, each alone, of what the loader's plan asks for, in its order


def _wanted(job: Record) -> list[tuple[int, int]]:
    """Return manifest row and level of each image, in the order of the loader's plan."""
    from shardkit import EpochPlan
    from shardkit.loader.manifest_index import ManifestIndex

    plan = EpochPlan(ManifestIndex(url_of(job)).samples(None), 0, 0, _batching(job))
    crops = [micro.crops for step in plan for micro in step]
    return [pair for v in crops for pair in zip(v.row.tolist(), v.level.tolist(), strict=True)]


class _Decode:
    """HTJ2K bytes in memory to pixels, dropped at once, on as many threads as there are workers."""

    def __init__(self, job: Record) -> None:
        self._threads = job["workers"]
        samples = job["samples"]
        self._data = []
        for row, level in _wanted(job):
            with Path(job["place"]["root"], samples[row]["shard"]).open("rb") as file:
                file.seek(samples[row]["offset"])
                self._data.append((row, level, samples[row]["bits"], file.read(samples[row]["level_bytes"][level])))
        import shardkit.kernels  # noqa: F401 - which a level of the first large image would load within the time

        self._decode(self._data[0])

    @staticmethod
    def _decode(one: tuple[int, int, int, bytes]) -> int:
        from shardkit.codecs import htj2k

        row, level, bits, data = one
        htj2k.decode(data, level, bits)
        return row

    def batches(self) -> Iterator[Delivered]:
        """Yield the row of each image that is decoded."""
        with ThreadPoolExecutor(self._threads) as pool:
            yield from (([row], None) for row in pool.map(self._decode, self._data))

    def stats(self) -> Record:
        """Return nothing read: the bytes are in memory."""
        return {"read_bytes": 0}


class _Read:
    """Byte ranges from the source, dropped at once: preads of threads from a folder, obstore's from a bucket."""

    def __init__(self, job: Record) -> None:
        samples, self._place = job["samples"], job["place"]
        self._ranges = [
            (row, samples[row]["shard"], samples[row]["offset"], samples[row]["level_bytes"][level])
            for row, level in _wanted(job)
        ]

    def batches(self) -> Iterator[Delivered]:
        """Yield the rows of what is read."""
        return self._bucket() if self._place["kind"] == "s3" else self._folder()

    def _folder(self) -> Iterator[Delivered]:
        files = {name: (Path(self._place["root"]) / name).open("rb") for name in {name for _, name, *_ in self._ranges}}

        def read(one: tuple[int, str, int, int]) -> int:
            row, name, start, length = one
            if len(os.pread(files[name].fileno(), length, start)) != length:
                raise RuntimeError("a read came back short")
            return row

        with ThreadPoolExecutor(READS[self._place["kind"]]) as pool:
            yield from (([row], None) for row in pool.map(read, self._ranges))

    def _bucket(self) -> Iterator[Delivered]:
        asyncio.run(self._all())
        yield [row for row, *_ in self._ranges], None

    async def _all(self) -> None:
        import obstore

        store, following = obstore.store.from_url(self._place["url"]), iter(self._ranges)

        async def read() -> None:
            for _, name, start, length in following:
                if len(await obstore.get_range_async(store, name, start=start, length=length)) != length:
                    raise RuntimeError("a read came back short")

        await asyncio.gather(*(read() for _ in range(READS["s3"])))

    def stats(self) -> Record:
        """Return the bytes of all ranges."""
        return {"read_bytes": sum(length for *_, length in self._ranges)}


# --- how much of the bytes a level is


def _level_role(job: Record, level: int) -> Record:
    """Read one epoch at a level; return its images and bytes."""
    loader = open_loader(job, level=level)
    images = sum(int(batch.weight.sum()) for batch in loader)
    return {"images": images, "read_bytes": loader.stats()["read_bytes"]}
