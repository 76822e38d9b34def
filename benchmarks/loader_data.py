"""What the loader benchmark reads: one export, as a dataset of ours and in each peer's format.

It lies on a disk, in a bucket, and behind a slow mount.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow.parquet as pq

from benchmarks.peers import PEERS
from benchmarks.peers.work import Record, level_of
from shardkit.dataset.rounding import halved

BUCKET = "benchmark"
PNG = "imagecodecs.png_encode(level=1, strategy=RLE, filter=SUB), the settings of cv2.imencode"
VARIANTS = ("png", "htj2k")
COLUMNS = ["key", "shard", "offset", "level_bytes", "height", "width", "bits", "p0_5", "p99_5"]
Run = Callable[..., Any]  # a role of a child process, with its arguments


@dataclass(frozen=True)
class Data:
    """What is read: the same radiographs in every program's format.

    Attributes
    ----------
    root
        Folder of all of it.
    samples
        In manifest order, with key, shard, offset, level_bytes, height, width, bits, low, high, auto (level) and means
        (of the normalised image, and of its central square).
    dicom
        Path in the export -> key of the sample made from it.
    formats
        Program and variant -> folder below the root.
    """

    root: Path
    samples: list[Record]
    dicom: dict[str, str]
    formats: dict[tuple[str, str], str]

    def files(self, folder: str) -> list[str]:
        """Return the files of a folder that a program reads."""
        if folder == "export":
            return sorted(self.dicom)
        base = self.root / folder
        found = (p for p in base.rglob("*") if p.is_file() and not p.name.startswith("."))
        return sorted(str(p.relative_to(base)) for p in found)

    def bytes(self, folder: str) -> int:
        """Return the bytes of these files; of a dataset of ours, of its shards."""
        names = [name for name in self.files(folder) if folder != "shardkit" or name.endswith(".tar")]
        return sum((self.root / folder / name).stat().st_size for name in names)

    def mpx(self, level: str = "") -> float:
        """Return the megapixels of all samples, at native size or, with "auto", at the level that covers 224 pixels."""
        halvings = [int(s[level]) if level else 0 for s in self.samples]
        sides = [(int(s["height"]), int(s["width"])) for s in self.samples]
        return sum(halved(h, n) * halved(w, n) for (h, w), n in zip(sides, halvings, strict=True)) / 1e6


# --- making it


def make(root: Path, files: int, scale: float, seed: int, shard_mib: int, programs: list[str], run: Run) -> Data:
    """Make the export, its dataset and the peers' datasets below `root`; `run` runs a role of a child process."""
    samples = ours(root, files, scale, seed, shard_mib, run).samples
    ledger = pq.read_table(root / "private/ledger.parquet", columns=["path", "verdict", "key"]).to_pylist()
    dicom = {os.fsdecode(row["path"]): row["key"] for row in ledger if row["verdict"] == "written"}
    places = _encode(root, samples)
    workers = len(os.sched_getaffinity(0))
    formats = {("shardkit", ""): "shardkit", ("dicom", "dicom"): "export"}
    rows = [sample | {"at": at} for sample, at in zip(samples, places, strict=True)]
    encoded = {variant: root / variant for variant in VARIANTS}
    for program in (p for p in programs if PEERS[p].write):
        out = {variant: f"{program}-{variant}" for variant in VARIANTS}
        formats |= {(program, variant): folder for variant, folder in out.items()}
        folders = {variant: root / folder for variant, folder in out.items()}
        run("write", program, rows, encoded, folders, workers, peers=True)
    for variant in VARIANTS:
        (root / variant).unlink()
    kept = {pair: folder for pair, folder in formats.items() if pair[0] in ("shardkit", *programs)}
    return Data(root, samples, dicom, kept)


def ours(root: Path, files: int, scale: float, seed: int, shard_mib: int, run: Run) -> Data:
    """Make the export and its dataset below `root`; samples have no means."""
    make_files(root / "export", files, scale, seed)
    words = ["build", "--source", root / "export", "--out", root / "shardkit", "--private", root / "private"]
    run("command", [str(word) for word in [*words, "--shard-size", shard_mib, "--accept-outcome"]])
    samples = [_sample(row) for row in pq.read_table(root / "shardkit/manifest.parquet", columns=COLUMNS).to_pylist()]
    return Data(root, samples, {}, {("shardkit", ""): "shardkit"})


def make_files(folder: Path, files: int, scale: float, seed: int, defects: float = 0.0) -> None:
    """Make a synthetic export of at least so many files."""
    from shardkit.synthetic.export import make_export, plan_export

    studies = max(1, files // 2)
    while len(plan_export(studies, seed=seed, defects=defects, scale=scale)) < files:
        studies += max(1, files // 50)
    make_export(folder, studies, seed=seed, defects=defects, scale=scale, workers=len(os.sched_getaffinity(0)))


def _sample(row: Record) -> Record:
    row["low"], row["high"] = row.pop("p0_5"), row.pop("p99_5")
    return row | {"auto": level_of(row["height"], row["width"])}


def _encode(root: Path, samples: list[Record]) -> list[dict[str, tuple[int, int]]]:
    """Write all images to the files `png` and `htj2k`, one after the other; return where each lies. Adds means."""
    found = []
    with contextlib.ExitStack() as stack:
        sinks = {variant: stack.enter_context((root / variant).open("wb")) for variant in VARIANTS}
        pool = stack.enter_context(ThreadPoolExecutor(len(os.sched_getaffinity(0))))
        done = pool.map(lambda sample: _encoded(root / "shardkit", sample), samples)
        for sample, (images, means) in zip(samples, done, strict=True):
            sample["means"] = means
            found.append({variant: (sinks[variant].tell(), len(image)) for variant, image in images.items()})
            for variant, image in images.items():
                sinks[variant].write(image)
    return found


def _encoded(dataset: Path, sample: Record) -> tuple[dict[str, bytes], Record]:
    import imagecodecs

    from shardkit.codecs import htj2k

    with (dataset / sample["shard"]).open("rb") as file:
        file.seek(sample["offset"])
        data = file.read(sample["level_bytes"][0])
    pixels = htj2k.decode(data)
    options = {"level": 1, "strategy": imagecodecs.PNG.STRATEGY.RLE, "filter": imagecodecs.PNG.FILTER.SUB}
    scaled = np.clip((pixels.astype(np.float64) - sample["low"]) / max(sample["high"] - sample["low"], 1), 0, 1)
    height, width = pixels.shape
    side = min(height, width)
    square = scaled[(height - side) // 2 :, (width - side) // 2 :][:side, :side]
    means = {"full": float(scaled.mean()), "224": float(square.mean())}
    return {"png": bytes(imagecodecs.png_encode(pixels, **options)), "htj2k": data}, means


# --- where it lies


@dataclass(frozen=True)
class Source:
    """Where data are read from.

    Attributes
    ----------
    name
        disk, s3 or nas.
    where
        The same in words.
    place
        What a program is told of a folder of the data.
    environment
        Credentials, for child processes.
    forget
        Is called before each program.
    """

    name: str
    where: str
    place: Callable[[str], Record]
    environment: dict[str, str]
    forget: Callable[[], None] = lambda: None


def disk(data: Data) -> Source:
    """Return the local disk. Every byte has just been read or written: it is in the page cache."""
    return Source(
        "disk",
        "local disk, every byte in the page cache",
        lambda folder: {"kind": "disk", "root": str(data.root / folder)},
        {},
    )


@contextlib.contextmanager
def nas(data: Data, work: Path, latency_ms: float, gbit: float) -> Iterator[Source]:
    """Mount a NAS; its caches are dropped before each program, the server's page cache stays warm."""
    from tools.slow_nas import drop_caches, slow_mount

    with slow_mount(data.root, work / "nas", latency_ms / 1e3, gbit * 1e9) as mount:
        yield Source(
            "nas",
            f"sshfs, {latency_ms:g} ms each way, {gbit:g} Gbit/s; nothing cached on this side",
            lambda folder: {"kind": "mount", "root": str(mount / folder)},
            {},
            lambda: drop_caches(mount),
        )


@contextlib.contextmanager
def bucket(data: Data, work: Path, start_rgw: Path | None) -> Iterator[Source]:
    """Start a gateway of this machine with a bucket that holds all the data in memory."""
    size = sum(data.bytes(folder) for folder in data.formats.values())
    server = _moto() if start_rgw is None else _gateway(start_rgw, work / "rgw", size)
    with server as environment:
        _upload(data, environment)
        name = "moto, a test server in Python" if start_rgw is None else "Ceph object gateway, data in its memory"
        endpoint = environment["AWS_ENDPOINT_URL"]
        yield Source(
            "s3",
            f"{name}, on this machine",
            lambda folder: {"kind": "s3", "url": f"s3://{BUCKET}/{folder}", "endpoint": endpoint},
            environment,
        )


@contextlib.contextmanager
def wired(source: Source, latency_ms: float, gbit: float) -> Iterator[Source]:
    """Put a bucket behind a slow wire, the one that the slow mount has, too."""
    from tools.slow_wire import Proxy

    where = urlsplit(source.environment["AWS_ENDPOINT_URL"])
    with Proxy(str(where.hostname), int(where.port or 80), latency_ms / 1e3, gbit * 1e9) as wire:
        endpoint = f"http://{wire.host}:{wire.port}"
        yield replace(
            source,
            where=f"{source.where}, behind {latency_ms:g} ms each way and {gbit:g} Gbit/s",
            place=lambda folder: source.place(folder) | {"endpoint": endpoint},
            environment=source.environment | {"AWS_ENDPOINT_URL": endpoint, "S3_ENDPOINT_URL": endpoint},
        )


@contextlib.contextmanager
def _gateway(start: Path, folder: Path, size: int) -> Iterator[dict[str, str]]:
    """Run a gateway: `start FOLDER PORT` starts it and prints its variables, stop_rgw.sh beside it ends it."""
    memory = {**os.environ, "MEM_BYTES": str(max(6 << 30, 2 * size))}
    try:
        done = subprocess.run([start, folder, str(_port())], env=memory, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{start.name} ended with {done.returncode} and there is no bucket; its logs say why")
        yield _complete(dict(word.split("=", 1) for word in done.stdout.split()))
    finally:
        subprocess.run([start.with_name("stop_rgw.sh"), folder], check=False)


@contextlib.contextmanager
def _moto() -> Iterator[dict[str, str]]:
    port = _port()
    command = [sys.executable, "-m", "moto.server", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not _answers(port):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("moto does not start: pip install '.[test]', or name a gateway with --rgw")
            time.sleep(0.05)
        keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_ALLOW_HTTP": "true"}
        yield _complete({**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1"})
    finally:
        server.terminate()
        server.wait()


def _complete(environment: dict[str, str]) -> dict[str, str]:
    """Return the variables also under the names that boto3 and MosaicML look for."""
    more = {"S3_ENDPOINT_URL": environment["AWS_ENDPOINT_URL"], "AWS_DEFAULT_REGION": environment["AWS_REGION"]}
    return environment | more


def _port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _upload(data: Data, environment: dict[str, str]) -> None:
    """Upload every folder that a program reads."""
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name=environment["AWS_REGION"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    client.create_bucket(Bucket=BUCKET)
    names = [f"{folder}/{name}" for folder in data.formats.values() for name in data.files(folder)]
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda name: client.put_object(Bucket=BUCKET, Key=name, Body=(data.root / name).read_bytes()), names
            )
        )
