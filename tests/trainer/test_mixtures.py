"""Training on a mixture and on an official split: validation beside it, going on, and a run's steps replayed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.cli import run as shardkit
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.storage import Store
from trainer.commands.cli import run as command

SMALL = """
--model.width 32 --model.depth 1 --model.heads 2
--model.decoder-width 32 --model.decoder-depth 1 --model.decoder-heads 2
--loader.batching packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop
--save.every 2 --log.every 2 --log.pictures 0 --log.baseline 0 --val.every 2
"""
WORDS = ["train", "train", "train", "val", "test"]


@pytest.fixture
def place(dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, now the current one, with the dataset shards/one."""
    shutil.copytree(dataset_folder, tmp_path / "shards" / "one")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def train(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(steps: int, *more: str) -> tuple[int, str]:
        fixed = ["--data", "cocktail.json", "--out", "run", "--run.steps", str(steps)]
        code = command(["pretrain", *fixed, *SMALL.split(), *more])
        told = capsys.readouterr()
        return code, " ".join((told.out + told.err).split())

    return run


def label(*words: str | None) -> None:
    store = Store("shards/one")
    keys = pq.read_table("shards/one/manifest.parquet", columns=["key"])["key"].to_pylist()
    split = [words[at % len(words)] for at in range(len(keys))]
    table = pa.table(
        {"key": keys, "Edema": pa.array([0] * len(keys), pa.int8()), "split": pa.array(split, pa.string())}
    )
    told = {"matched": len(keys), "ambiguous": 0, "unmatched": 0}
    kinds: dict[str, Any] = {"Edema": "binary"}
    labels.write(store, LabelTable(LabelsDescription(name="nih14", level="image", kinds=kinds, rows=told), table))


def test_a_run_on_a_mixture_validates_on_its_labels_val_split_goes_on_and_is_replayed(
    place: Path, train: Callable[..., tuple[int, str]]
) -> None:
    label(*WORDS)
    assert shardkit(["mix", "cocktail.json", "one=shards/one:1.5", "--normalise", "one=zscore"]) == 0
    code, told = train(2, "--loader.split", "nih14:train")
    assert code == 0, told
    record = json.loads((place / "run" / "validation.jsonl").read_text().splitlines()[-1])
    assert record["images"] == label_count("val"), "each once, whatever the weight"
    assert f"on {label_count('val')} images" in told
    code, told = train(4, "--loader.split", "nih14:train")
    assert code == 0, told
    assert len((place / "run" / "validation.jsonl").read_text().splitlines()) == 2
    assert shardkit(["replay", "--run", "run", "--step", "3", "-o", "step.png"]) == 0


def test_randaugment_is_refused_where_a_member_has_another_black_and_white(
    place: Path, train: Callable[..., tuple[int, str]]
) -> None:
    """It would take full scale's, and turn black into something else than white."""
    assert shardkit(["mix", "cocktail.json", "one=shards/one:1", "--normalise", "one=zscore"]) == 0
    code, told = train(1, "--loader.split", "all", "--augment.rand", "rand-m6")
    assert code == 1
    assert "--loader.normalise percentile, and the mixture normalises one by zscore: shardkit mix it without" in told


@pytest.mark.deep
def test_a_run_goes_on_with_other_labels_only_when_it_is_told_to(
    place: Path, train: Callable[..., tuple[int, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    label(*WORDS)
    assert shardkit(["mix", "cocktail.json", "one=shards/one:1.5"]) == 0
    assert train(4, "--loader.split", "nih14:train")[0] == 0

    label("test", *WORDS)
    code, told = train(6, "--loader.split", "nih14:train")
    assert code == 1
    assert "another split by its labels; go on with --run.on-new-data restart-epoch" in told
    capsys.readouterr()
    assert shardkit(["replay", "--run", "run", "--step", "3", "-o", "step.png"]) == 1
    assert "name another nih14:train than when run was trained" in " ".join(capsys.readouterr().err.split())
    code, told = train(6, "--loader.split", "nih14:train", "--run.on-new-data", "restart-epoch")
    assert code == 0, told


def label_count(word: str) -> int:
    return int(labels.read(Store("shards/one"), "nih14").table["split"].to_pylist().count(word))


def test_other_weights_are_another_dataset(place: Path, train: Callable[..., tuple[int, str]]) -> None:
    assert shardkit(["mix", "cocktail.json", "one=shards/one:1"]) == 0
    assert train(2)[0] == 0
    assert shardkit(["mix", "cocktail.json", "one=shards/one:2"]) == 0
    code, told = train(4)
    assert code == 1
    assert "is not as it was at step 2" in told


def test_a_run_does_not_go_on_with_other_grey_levels_of_a_member(
    place: Path, train: Callable[..., tuple[int, str]]
) -> None:
    """A mixture's digest does not know them."""
    mix = ["mix", "cocktail.json", "one=shards/one:1", "--normalise"]
    assert shardkit([*mix, "one=0.5,0.25"]) == 0
    assert train(2)[0] == 0
    assert json.loads((place / "run" / "run.json").read_text())["trained"][0]["normalise"] == "0.5,0.25"
    assert shardkit([*mix, "one=zscore"]) == 0
    code, told = train(4)
    assert code == 1
    assert "run was trained with one normalised by 0.5,0.25, and not by zscore: shardkit mix the same" in told
    assert shardkit([*mix, "one=0.5,0.25"]) == 0
    assert train(4)[0] == 0
    assert len(json.loads((place / "run" / "run.json").read_text())["trained"]) == 1


def test_an_official_split_without_a_val_split_is_trained_on_without_validation(
    place: Path, train: Callable[..., tuple[int, str]]
) -> None:
    label("train", "test")
    assert shardkit(["mix", "cocktail.json", "one=shards/one"]) == 0
    code, told = train(2, "--loader.split", "nih14:train")
    assert code == 0
    assert "no validation: cocktail.json has no image in the nih14:val split" in told
    assert not (place / "run" / "validation.jsonl").exists()
