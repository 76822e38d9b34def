"""`shardkit plan` and `shardkit replay` from the command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit import Loader, Packed, Resized
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.plan_report import costs
from shardkit.loader.replay import replay

Command = Callable[..., subprocess.CompletedProcess[str]]
TEXT = "packed:patch=16,per_step=2,tokens=512"


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_plan_prints_the_accounts_of_the_epoch(dataset_folder: Path) -> None:
    done = _run("plan", dataset_folder, "--batching", TEXT, "--split", "all", "--world-size", 2)
    assert done.returncode == 0, done.stderr
    account = Loader(dataset_folder, batching=Packed(tokens=512, patch=16, per_step=2), split=None).account()
    text = re.sub(r" +", " ", done.stdout)
    assert f"{account.samples:,} samples in {account.steps:,} steps" in text
    assert f"used {account.real_tokens:,} 100.00 %" in text
    assert f"padded {account.padding_tokens:,}" in text
    assert f"{100 * account.overhead:.2f} %" in text
    for word in ("their patient", "their scanner", "their bin", "their shard", "read by a rank", "cache needs"):
        assert word in text
    assert "--window" not in text


def test_plan_advises_a_wider_window_where_shards_stay_together(dataset_folder: Path, command: Command) -> None:
    shards = len(ManifestIndex(str(dataset_folder)).shards)
    done = command("plan", dataset_folder, "--batching", TEXT, "--split", "all", "--window", 1)
    assert done.returncode == 0, done.stderr
    assert f"meet {shards:.1f} times as often as in a perfect shuffle, since 1 of {shards} shards" in done.stdout
    assert f"--window {-(-shards // 2)} brings it to 2" in done.stdout


@pytest.mark.formats
def test_the_bytes_of_a_plan_are_those_that_are_read(dataset_folder: Path) -> None:
    for level in (0, 2):
        loader = Loader(dataset_folder, batching=Packed(tokens=4096, patch=8, per_step=2, level=level), split=None)
        catalog = ManifestIndex(str(dataset_folder))
        found = costs(catalog, loader.plan)
        assert found.range_bytes == sum(catalog.detail(row).prefix(level) for row in range(catalog.rows))
        objects = {catalog.detail(row).object(level) for row in range(catalog.rows)}
        assert found.shard_bytes == sum((dataset_folder / name).stat().st_size for name in objects)
        assert found.window_bytes <= found.shard_bytes


def test_a_cache_of_the_size_that_plan_names_reads_hardly_a_shard_twice(dataset_folder: Path, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"batching": Packed(tokens=512, patch=16, per_step=1), "split": None, "window": 6}
    needed = costs(ManifestIndex(str(dataset_folder)), Loader(dataset_folder, **arguments).plan)
    assert needed.window_bytes < needed.shard_bytes

    def fills(limit: int) -> int:
        cache = tmp_path / str(limit)
        loader = Loader(dataset_folder, cache=cache, cache_bytes=limit, read_ahead=1, prefetch=1, **arguments)
        for _ in loader:
            pass
        return int(loader.stats()["cache"]["fills"])

    # An epoch of a second cannot tell which shard was used last (that is noted once a minute): the oldest goes.
    assert fills(needed.window_bytes) <= 1.3 * needed.shards
    assert fills(needed.window_bytes // 3) > 1.5 * needed.shards
    assert fills(needed.shard_bytes) == needed.shards


@pytest.mark.formats
def test_replay_draws_the_images_that_the_step_had(dataset_folder: Path, tmp_path: Path, command: Command) -> None:
    batching = Resized(64, batch_size=3, per_step=2, crop=(0.4, 0.8), flip=0.5, level="auto")
    loader = Loader(dataset_folder, batching=batching, seed=9, split=None, device="cpu")
    state = None
    for batch in loader:
        if batch.position.step == 3:
            state = loader.state_dict()  # within the step, as a run that watches its loss would have it
            wanted = batch["images"][0, 0].numpy().copy()
            row = int(batch.rows[0])
            break
    assert state is not None
    (tmp_path / "state.json").write_text(json.dumps(state))
    done = command(
        "replay", dataset_folder, "--step", 3, "--state", tmp_path / "state.json", "-o", tmp_path / "grid.png"
    )
    assert done.returncode == 0, done.stderr
    assert "6 images of step 3 of epoch 0" in done.stdout
    with Image.open(tmp_path / "grid.png") as page:
        cell = np.asarray(page)[8 : 8 + 64, 8 + 80 : 8 + 80 + 64].astype(float)
    assert np.corrcoef(cell.ravel(), wanted.ravel())[0, 1] > 0.999, f"row {row} is not where it was"


@pytest.mark.deep
def test_a_default_run_s_state_is_replayed_and_a_filtered_one_s_is_refused(
    dataset_folder: Path, tmp_path: Path
) -> None:
    batching = Packed(tokens=512, patch=16, per_step=2)
    arguments: dict[str, Any] = {"batching": batching, "device": "cpu"}
    file = tmp_path / "state.json"
    file.write_text(json.dumps(Loader(dataset_folder, **arguments).state_dict()))
    done = _run("replay", dataset_folder, "--step", 1, "--state", file, "-o", tmp_path / "grid.png")
    assert done.returncode == 0, done.stderr
    some = Loader(dataset_folder, where=lambda t: t["width"].to_numpy() > 100, needs=("width",), **arguments)
    file.write_text(json.dumps(some.state_dict()))
    done = _run("replay", dataset_folder, "--step", 1, "--state", file, "-o", tmp_path / "grid.png")
    assert done.returncode == 1
    assert "filtered its samples" in done.stderr


def test_replay_of_the_last_step_names_its_epoch(dataset_folder: Path, tmp_path: Path) -> None:
    loader = Loader(
        dataset_folder, batching=Packed(tokens=512, patch=16, per_step=2), epoch=3, split=None, device="cpu"
    )
    last = len(loader.plan) - 1
    assert f"step {last} of epoch 3" in replay(loader, last, tmp_path / "grid.png")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("plan", "--batching", "wrong:1"), "is unknown"),
        (("plan", "--batching", "packed:tokens=0"), "tokens=0"),
        (("plan", "--batching", TEXT, "--world-size", "3"), "does not divide"),
        (("replay", "--batching", TEXT, "--step", "100000", "-o", "x.png"), "no step 100000"),
        (("replay", "--state", "x", "--batching", TEXT, "--step", "0", "-o", "x.png"), "leave --batching out"),
        (("replay", "--state", "/nonexistent.json", "--step", "0", "-o", "x.png"), "cannot be read"),
    ],
)
def test_a_wrong_command_gets_one_sentence(
    dataset_folder: Path, words: tuple[str, ...], sentence: str, command: Command
) -> None:
    done = command(words[0], dataset_folder, *words[1:])
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
