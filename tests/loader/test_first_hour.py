"""What somebody types in the first hour, and what the answers name."""

from __future__ import annotations

import importlib.resources
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import shardkit
from shardkit import Fixed, Loader, Packed
from shardkit.cli import run
from shardkit.commands.loading import BATCHING
from shardkit.dataset import contents, manifest
from shardkit.errors import ArgumentError, RowError
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.plan.batching import KINDS
from shardkit.storage import Store

SMALL: dict[str, Any] = {"split": None, "device": "cpu", "window": 8}
PACKED = Packed(tokens=512, patch=16, per_step=2)


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str]) -> Any:
    """Words of the command line -> (exit code, output, errors)."""

    def command(*words: object) -> tuple[int, str, str]:
        code = run([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return command


def test_a_loader_takes_the_words_of_the_command_line(dataset_folder: Path) -> None:
    words = Loader(
        dataset_folder, batching="packed:tokens=512,patch=16,per_step=2", split="all", device="cpu", window=8
    )
    objects = Loader(dataset_folder, batching=PACKED, **SMALL)
    assert words.state_dict() == objects.state_dict()
    assert words.batching == PACKED
    with pytest.raises(ArgumentError, match="is unknown"):
        Loader(dataset_folder, batching="pecked:tokens=512", **SMALL)


def test_a_row_that_is_none_is_named_with_the_rows_there_are(dataset_folder: Path) -> None:
    loader = Loader(dataset_folder, batching=PACKED, **SMALL)
    last = ManifestIndex(str(dataset_folder)).rows - 1
    assert re.fullmatch("[0-9a-f-]+", loader.key(last))
    for row in (-1, last + 1):
        with pytest.raises(RowError, match=rf"row {row} is none of .* rows 0 to {last};.* weight 0") as caught:
            loader.key(row)
        assert isinstance(caught.value, IndexError)


@pytest.mark.parametrize("needs", [(), ("height",)])
def test_a_filter_that_was_not_given_its_column_names_it(dataset_folder: Path, needs: tuple[str, ...]) -> None:
    wanted = re.escape(repr((*needs, "width")))
    with pytest.raises(ArgumentError, match=rf"column width, and needs does not name it: pass needs={wanted}"):
        Loader(dataset_folder, batching=PACKED, where=lambda t: t["width"].to_numpy() > 100, needs=needs, **SMALL)


def test_a_fault_of_a_filter_s_own_is_left_alone(dataset_folder: Path) -> None:
    def broken(table: pa.Table) -> Any:
        nothing: dict[str, Any] = {}
        return nothing["nothing"]

    with pytest.raises(KeyError, match="nothing"):
        Loader(dataset_folder, batching=PACKED, where=broken, needs=("width",), **SMALL)


@pytest.mark.parametrize("batching", [Packed(tokens=20, patch=16), Fixed(64, patch=16)], ids=str)
def test_an_image_that_fits_nowhere_is_named_with_what_would_hold_it(
    dataset_folder: Path, batching: Any, type_in: Any
) -> None:
    with pytest.raises(ArgumentError) as caught:
        Loader(dataset_folder, batching=batching, **SMALL)
    code, _, error = type_in("plan", dataset_folder, "--batching", batching, "--split", "all")
    assert code == 1
    assert error == f"shardkit: {caught.value}"
    found = re.search(r"largest being ([\w-]+) with (\d+) x (\d+) pixels: give (\w+)=(\d+)", error)
    assert found
    rows = pq.read_table(dataset_folder / "manifest.parquet", columns=["key", "height", "width"]).to_pylist()
    assert {"key": found[1], "height": int(found[2]), "width": int(found[3])} in rows
    Loader(dataset_folder, batching=f"{type(batching).__name__.lower()}:{found[4]}={found[5]},patch=16", **SMALL)


def test_plan_and_replay_need_no_batching(dataset_folder: Path, tmp_path: Path, type_in: Any) -> None:
    code, out, error = type_in("plan", dataset_folder)
    assert code == 0, error
    assert "packed:patch=48" in out
    code, out, error = type_in("replay", dataset_folder, "--step", 0, "-o", tmp_path / "page.png")
    assert code == 0, error
    assert "images of step 0 of epoch 0" in out
    assert (tmp_path / "page.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest_digest": "0" * 64}, "the state belongs to the dataset 000000000000"),
        ({"step": -1}, "not all whole numbers"),
        ({"seed": "2"}, "not all whole numbers"),
        ({"more": 1}, "no loader's state"),
    ],
)
def test_replay_refuses_a_state_that_is_not_this_dataset_s(
    dataset_folder: Path, tmp_path: Path, change: dict[str, Any], words: str, type_in: Any
) -> None:
    state = Loader(dataset_folder, batching=PACKED, **SMALL).state_dict()
    file, page = tmp_path / "state.json", tmp_path / "page.png"
    file.write_text(json.dumps(state | change))
    code, _, error = type_in("replay", dataset_folder, "--state", file, "--step", 0, "-o", page)
    assert code == 1
    assert words in error
    assert not page.exists()


def test_the_package_lists_its_lazy_names_and_ships_its_types() -> None:
    assert set(shardkit.__all__) | {"__version__"} <= set(dir(shardkit))
    assert (importlib.resources.files("shardkit") / "py.typed").is_file()


def test_pandas_reads_the_manifest(dataset_folder: Path) -> None:
    import pandas as pd

    frame = pd.read_parquet(dataset_folder / "manifest.parquet")
    rows = contents.samples(Store(str(dataset_folder))).to_pylist()
    assert len(frame) == len(rows)
    for mine, theirs in zip(rows, frame.to_dict("records"), strict=True):
        for name in ("key", "height", "pixel_hash", "split"):
            assert mine[name] == theirs[name]
        for name in ("level_hash", "level_bytes"):
            assert mine[name] == list(theirs[name])


def test_a_manifest_of_an_earlier_version_is_the_same_dataset(dataset_folder: Path, tmp_path: Path) -> None:
    """Its level hashes were binaries of a fixed size in the file, too; the digest is of values and says so of both."""
    folder = tmp_path / "earlier"
    shutil.copytree(dataset_folder, folder)
    path = folder / manifest.NAME
    table = contents.samples(Store(str(folder)))
    metadata = pq.read_schema(path).metadata
    assert table.schema.field("level_hash").type != pq.read_schema(path).field("level_hash").type
    pq.write_table(table.replace_schema_metadata(metadata), path, row_group_size=64, write_page_checksum=True)
    whole = contents.samples(Store(str(folder)))  # checked against the digest
    assert whole.equals(contents.samples(Store(str(dataset_folder))))
    batches = zip(*(Loader(f, batching=PACKED, **SMALL) for f in (folder, dataset_folder)), strict=True)
    for earlier, now in batches:
        np.testing.assert_array_equal(earlier.patches.numpy(), now.patches.numpy())


def test_a_loader_without_batching_says_what_there_is_with_an_example_that_works(dataset_folder: Path) -> None:
    with pytest.raises(ArgumentError) as caught:
        Loader(dataset_folder)
    said = str(caught.value)
    assert all(f" {kind} (" in said for kind in KINDS)
    example = re.search(r'batching="([^"]+)"', said)
    assert example
    assert len(Loader(dataset_folder, batching=example[1], device="cpu").plan)


def test_a_world_that_does_not_divide_a_step_is_told_one_that_it_does(
    dataset_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["plan", str(dataset_folder), "--world-size", "3"]
    assert run([*words, "--batching", "packed:tokens=2048,patch=16,per_step=8"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    remedy = re.search(r"per_step=(\d+)$", said)
    assert remedy, said
    assert run([*words, "--batching", f"packed:tokens=2048,patch=16,per_step={remedy[1]}"]) == 0
    with pytest.raises(ArgumentError, match="choose a multiple, as per_step=9"):
        Loader(dataset_folder, batching="packed:tokens=2048,patch=16,per_step=8", rank=0, world_size=3)


def test_the_help_of_plan_names_the_default_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    run(["plan", "--help"])
    assert "24,576" in " ".join(capsys.readouterr().out.split())
    assert "tokens=24576" in BATCHING


def test_preview_needs_no_key_and_names_some_that_it_takes(
    dataset_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--dataset", str(dataset_folder), "-o", str(tmp_path / "x.png")]
    assert run(["preview", *words]) == 0
    shown, _, others = capsys.readouterr().out.strip().partition("\n")
    named = others.partition(": ")[2].split()
    assert len(named) == 5
    first = (tmp_path / "x.png").read_bytes()
    assert run(["preview", shown.partition(": ")[2].partition(",")[0], *words]) == 0
    assert (tmp_path / "x.png").read_bytes() == first
    for key in named:
        assert run(["preview", key, *words]) == 0
