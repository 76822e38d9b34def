"""One export with every planted defect, built once; and a bench of helpers that the tests of builds share."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shardkit.build.ingest import ShardDone
from shardkit.build.outcome import Outcome
from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.dataset import contents
from shardkit.dataset.description import DatasetDescription
from shardkit.formats import FORMATS, listing, shard_format
from shardkit.storage import Store
from shardkit.synthetic.export import Export, make_export, plan_export
from shardkit.synthetic.records import ImageSpec
from tests.one_process import one_process

STUDIES, SEED, DEFECTS, SCALE = 32, 1, 0.43, 0.08
KEY = bytes(range(32))
SHARD_BYTES = 64 << 10
LEVELS = {"webdataset": 0, "zarr": 1}  # smaller images stored beside others
PYTHON = sys.executable

# A build in a process of its own: prints every event, and may kill itself before one of its renames or removals.
DRIVER = """
import os, pathlib, pickle, signal, sys
from shardkit.build.run import build

class Told:
    def stage(self, name, total): print("stage", name, flush=True)
    def scanned(self, files): print("scanned", files, flush=True)
    def converted(self, done): print("converted", done.name, flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background hands on that it is ignored
    arguments, crash_at = pickle.loads(bytes.fromhex(sys.argv[1])), int(sys.argv[2])
    if crash_at:
        left, replace, unlink = [crash_at], pathlib.Path.replace, pathlib.Path.unlink
        def step():
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
        pathlib.Path.replace = lambda *a: (step(), replace(*a))[1]
        pathlib.Path.unlink = lambda *a, **k: (step(), unlink(*a, **k))[1]
    build(arguments, Told())
"""


@dataclass(frozen=True)
class Made:
    """An export on disk, what is planted in it, and the plan of every file by its path."""

    root: Path
    export: Export
    specs: dict[str, ImageSpec]


@dataclass
class Watcher:
    """Progress that remembers what it was told."""

    stages: list[str] = field(default_factory=list)
    done: list[ShardDone] = field(default_factory=list)

    def stage(self, name: str, total: int | None) -> None:
        self.stages.append(name)

    def scanned(self, files: int) -> None: ...

    def converted(self, done: ShardDone) -> None:
        self.done.append(done)


@dataclass(frozen=True)
class Built:
    """A finished build: its place, outcome, and the samples each shard had before duplicates were settled."""

    out: Path
    private: Path
    outcome: Outcome
    before: dict[str, int]
    form: str = "webdataset"

    @property
    def store(self) -> Store:
        return Store(str(self.out))

    def samples(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = contents.samples(self.store).to_pylist()
        return rows

    def ledger(self) -> dict[str, dict[str, Any]]:
        return {row["path"]: row for row in pq.read_table(self.private / "ledger.parquet").to_pylist()}

    @property
    def description(self) -> DatasetDescription:
        return contents.description(self.store)

    def objects(self, shard: str) -> list[str]:
        """Names of all objects of a shard, by that in the manifest."""
        return [shard_format(self.form).part(shard, level) for level in range(LEVELS[self.form] + 1)]

    def rewritten(self) -> set[str]:
        """Objects of shards that lost samples after they were committed."""
        now: dict[str, int] = {}
        for row in self.samples():
            now[row["shard"]] = now.get(row["shard"], 0) + 1
        every = {name: shard_format(self.form).objects(name, LEVELS[self.form]) for name in self.before}
        changed = [name for name, count in self.before.items() if now.get(every[name][0], 0) != count]
        return {one for name in changed for one in every[name]}


class Bench:
    """Helpers for builds of one format, handed out as a fixture because test folders are no packages."""

    key = KEY

    def __init__(self, form: str) -> None:
        self.form = form

    def arguments(self, source: Path | str, out: Path | str, private: Path, **changes: Any) -> BuildConfig:
        """A build's arguments with many small shards; one worker, as to start another is most of its work."""
        if self.form == "zarr":
            changes = {"format": "zarr", "codec": "blosc", "levels": LEVELS["zarr"], **changes}
        defaults = {"bins": "auto:4", "shard_bytes": SHARD_BYTES, "workers": 1}
        return BuildConfig.of(str(source), str(out), private, **{**defaults, **changes})

    def build(self, source: Path | str, out: Path | str, private: Path, **changes: Any) -> Built:
        """Build in this process, with the shared key unless the private folder has one; with `workers`, by children."""
        retry, executor = changes.pop("retry", None), changes.pop("executor", None)
        self.seed_key(private)
        watcher = Watcher()
        with contextlib.nullcontext() if "workers" in changes else one_process():
            outcome = build(self.arguments(source, out, private, **changes), watcher, executor, retry)
        before = {done.name: done.samples for done in watcher.done}
        return Built(Path(str(out)), private, outcome, before, self.form)

    @staticmethod
    def seed_key(private: Path) -> None:
        private.mkdir(parents=True, exist_ok=True)
        if not (private / "pseudonym.key").exists():
            (private / "pseudonym.key").touch(0o600)
            (private / "pseudonym.key").write_bytes(KEY)

    @staticmethod
    def tree(root: Path) -> dict[str, bytes]:
        """Every file below `root` by its relative path."""
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}

    @staticmethod
    def identity(out: Path) -> dict[str, tuple[int, int]]:
        """(inode, mtime) of every object of a whole shard, by its name.

        Objects of its levels appear before the one that makes it whole: a kill in between leaves some that belong to
        no shard, and the next run writes them anew.
        """
        store = Store(str(out))
        listed = [(name, form) for form in FORMATS.values() for name, _ in listing(store, form)]
        names = [name for name, form in listed if (out / form.whole(name)[0]).is_file()]
        facts = {name: (out / name).stat() for name in sorted(names)}
        return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in facts.items()}

    @staticmethod
    def copy(source: Path, target: Path, paths: list[str]) -> None:
        """Copy files of an export one by one in the order given; links stay links."""
        for path in paths:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source / path, target / path, follow_symlinks=False)

    @staticmethod
    def driver(arguments: BuildConfig, crash_at: int = 0, **options: Any) -> subprocess.Popen[str]:
        """Start a build in a process of its own that prints its events."""
        import pickle

        script = arguments.private.parent / "driver.py"
        script.write_text(DRIVER)
        command = [PYTHON, str(script), pickle.dumps(arguments).hex(), str(crash_at)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)

    @staticmethod
    def cli(*words: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line in a process of its own."""
        command = [PYTHON, "-c", "from shardkit.cli import main; main()", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, env=env, check=False)


@pytest.fixture(scope="session")
def bench(form: str) -> Bench:
    return Bench(form)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The session's export: every kind of defect at least once."""
    root = tmp_path_factory.mktemp("pacs") / "export"
    export = make_export(root, STUDIES, seed=SEED, defects=DEFECTS, scale=SCALE)
    specs = {s.path: s for s in plan_export(STUDIES, seed=SEED, defects=DEFECTS, scale=SCALE)}
    return Made(root, export, specs)


@pytest.fixture(scope="session")
def builds() -> dict[str, Built]:
    """Builds of the session's export by format, so that none is made again when the format of the tests changes."""
    return {}


@pytest.fixture(scope="session")
def built(made: Made, bench: Bench, builds: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The session's export, built by two workers. Tests read it and leave it as it is."""
    if bench.form not in builds:
        place = tmp_path_factory.mktemp("built")
        builds[bench.form] = bench.build(made.root, place / "out", place / "private", workers=2)
    return builds[bench.form]


@pytest.fixture
def built_copy(built: Built, tmp_path: Path) -> Built:
    """A copy that a test may change."""
    shutil.copytree(built.out, tmp_path / "out")
    shutil.copytree(built.private, tmp_path / "private")
    return Built(tmp_path / "out", tmp_path / "private", built.outcome, built.before, built.form)
