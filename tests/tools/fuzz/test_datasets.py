"""Whatever a dataset made by others holds: commands end well or in one sentence, in bounded time and memory, and read,
write and show nothing but the dataset."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import shutil
import sys
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shardkit import Loader, cli, from_text
from shardkit.errors import ShardkitError
from shardkit.synthetic.export import make_export
from tools.fuzz.datasets import CANARY, mutate

SECONDS, MEMORY = 30, 1 << 30  # that a run may take more than it would; a hang or a bomb takes any amount
COMMANDS = ("loader", "verify", "info", "preview", "plan", "transcode")
FORMS: dict[str, dict[str, Any]] = {
    "htj2k": {},
    "png": {"codec": "png"},
    "raw": {"codec": "raw"},
    "zarr": {"format": "zarr", "codec": "blosc", "levels": 2},
}
_opened: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
        _opened.append(os.fspath(arguments[0]))


@pytest.fixture(scope="module")
def bases(make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A few small radiographs in every format and codec."""
    place = tmp_path_factory.mktemp("hostile")
    make_export(place / "export", 4, seed=3, defects=0.0, scale=0.05)
    options: dict[str, Any] = {"bins": "auto:2", "shard_bytes": 24 << 10, "workers": 1}
    sys.addaudithook(_watch)
    return {form: make_dataset(place / "export", place / form, **options, **spec) for form, spec in FORMS.items()}


def _load(place: Path) -> int:
    batching = from_text("resized:side=32,batch_size=2,patch=16,per_step=1")
    loader = Loader(place, batching=batching, split=None, rank=0, world_size=1, device="cpu", attempts=1, threads=1,
                    max_bad=1.0, decoder="auto" if place.stat().st_ino % 2 else "threads")  # fmt: skip
    for _ in loader:
        pass
    return 0


def _run(command: str, place: Path, key: str, work: Path) -> int:
    other = "webdataset" if (place / "zarr.json").exists() else "zarr"
    words = {
        "verify": ["verify", str(place), "--workers", "1"],
        "info": ["info", str(place)],
        "preview": ["preview", key, "--dataset", str(place), "-o", str(work / "x.png")],
        "plan": ["plan", str(place), "--batching", "resized:side=32,batch_size=2,patch=16", "--split", "all"],
        "transcode": ["transcode", str(place), str(work / "out"), "--format", other, "--workers", "1"],
    }
    return _load(place) if command == "loader" else cli.run(words[command])


def _outside(place: Path) -> list[Path]:
    """All files beside the dataset but the results that were asked for."""
    return sorted(p for p in place.parent.rglob("*") if not {"out", "x.png"} & {*p.parts} and place not in p.parents)


def _judged(command: str, place: Path, key: str, work: Path) -> tuple[str, list[str]]:
    """(how it ended, what was wrong)."""
    global _opened
    ended, said, wrong = list[str](), io.StringIO(), list[str]()

    def run() -> None:
        try:
            ended.append("well" if _run(command, place, key, work) == 0 else "refused")
        except ShardkitError as error:
            said.write(f"{error}\n")
            ended.append("refused")
        except BaseException as error:
            wrong.append(f"{type(error).__name__}: {str(error)[:150]}")

    there = _outside(place)
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    _opened = []
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(SECONDS)
    opened, _opened = _opened, None
    secret = f"{place.parent / 'secret'}{os.sep}"
    wrong += ["no end"] if thread.is_alive() else []
    wrong += [f"opened {path}" for path in opened if os.path.normpath(path).startswith(secret)]
    if (more := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10) > MEMORY:
        wrong.append(f"{more >> 20} MiB more memory in {time.monotonic() - begun:.1f} s")
    text = said.getvalue()
    wrong += ["a traceback"] if "Traceback" in text else []
    wrong += ["the canary is shown"] if CANARY in text else []
    wrong += sorted({repr(c) for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")})
    if _outside(place) != there:
        wrong.append("files outside appeared or vanished")
    return (ended or ["wrong"])[0], wrong


def _campaign(bases: dict[str, Path], place: Path, seeds: range, commands: int) -> tuple[Counter[str], list[str]]:
    """Every seed's mutation, with `commands` of the commands in turn."""
    counts, wrong = Counter[str](), list[str]()
    for seed in seeds:
        base = bases[sorted(bases)[seed % len(bases)]]
        for folder in ("ds", "secret", "work"):
            shutil.rmtree(place / folder, ignore_errors=True)
        shutil.copytree(base, place / "ds")
        (place / "work").mkdir()
        (place / "secret").mkdir()
        (place / "secret" / "canary").write_text(CANARY * 1000)
        key = next((base / "keys").read_text().split()[i] for i in (seed % 2,))
        done = mutate(place / "ds", place / "secret", seed)
        for number in range(commands):
            command = COMMANDS[(seed + number) % len(COMMANDS)]
            ended, found = _judged(command, place / "ds", key, place / "work")
            counts[ended] += 1
            wrong += [f"{done}: {command}: {one}" for one in found]
    return counts, wrong


def _keys(bases: dict[str, Path]) -> None:
    import pyarrow.parquet as pq

    for base in bases.values():
        if not (base / "keys").exists():
            (base / "keys").write_text(" ".join(pq.ParquetFile(base / "manifest.parquet").read()["key"].to_pylist()))


@pytest.mark.deep
def test_a_hostile_dataset_ends_well_or_in_a_sentence(bases: dict[str, Path], tmp_path: Path) -> None:
    _keys(bases)
    counts, wrong = _campaign(bases, tmp_path, range(64), 2)
    assert wrong == []
    assert counts["refused"] > 40
    assert counts["well"] > 20


@pytest.mark.deep
def test_hostile_datasets_and_every_command(bases: dict[str, Path], tmp_path: Path) -> None:
    _keys(bases)
    counts, wrong = _campaign(bases, tmp_path, range(1000, 1240), len(COMMANDS))
    print(dict(counts), len(wrong))
    assert wrong == []
