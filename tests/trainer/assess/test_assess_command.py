"""The command from a run to a page: images are read once, every feature is judged, and what was seen before is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.assess import features
from trainer.commands.cli import run as command
from trainer.evaluate import predictions

SMALL = """
--model.width 32 --model.depth 1 --model.heads 2 --model.decoder-width 32 --model.decoder-depth 1
--loader.batching packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop --run.steps 2 --val.every 0
--log.baseline 0 --log.pictures 0 --log.no-tensorboard --loader.split sizes:train
"""
QUICK = ["--fractions", "0.5", "1", "--draws", "2", "--replicates", "100"]


@pytest.fixture(scope="module")
def run(synthetic: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset with labels, and a run on the training part of their split."""
    folder = tmp_path_factory.mktemp("assess")
    data = folder / "data"
    shutil.copytree(synthetic("webdataset"), data)
    put_labels(data, "sizes", by_patient)
    assert command(["pretrain", "--data", str(data), "--out", str(folder / "run"), *SMALL.split()]) == 0
    return data, folder / "run"


def test_a_run_is_judged_by_each_table_and_its_images_are_read_once(
    run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, trained = run
    words = ["assess", str(trained), "--data", str(data), "--labels", "sizes", "--out", str(tmp_path), *QUICK]
    assert command([*words, "--objective.columns", "high", "wide"]) == 0
    told, found = capsys.readouterr().out, json.loads((tmp_path / "assess.json").read_text())
    (table,) = found["tables"]
    assert (table["kind"], table["asked"]) == ("multilabel", "the official test split of sizes")
    names = {"pre-trained", "random, seed 0", "random, seed 1", "32 x 32 pixels"}
    asked = {(row["source"], row["method"], row["fraction"]) for row in table["rows"]}
    whole = {(name, how, 1) for name in names for how in ("k-NN", "logistic")}
    assert whole <= asked <= whole | {(name, how, 0.5) for name, how, _ in whole}, "half may lack a class"
    assert all(set(row["classes"]) == {"high", "wide"} for row in table["rows"])
    assert "No image of data that is asked about was in the pre-training." in told
    kept = sorted((tmp_path / "predictions" / "sizes").iterdir())
    assert len(kept) == 8
    assert {len(predictions.read(path)) for path in kept} == {table["tested"]["data"]}
    page = (tmp_path / "index.html").read_text()
    assert all(name in page for name in names)

    monkeypatch.setattr(features, "_read", lambda *_: pytest.fail("images are read again"))
    assert command([*words, "--objective.columns", "shape"]) == 0
    again = json.loads((tmp_path / "assess.json").read_text())["tables"][0]
    assert again["kind"] == "multiclass"


@pytest.mark.deep
def test_images_that_pre_training_saw_are_counted(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, trained = run
    words = ["assess", str(trained), "--data", str(data), "--labels", "sizes", "--out", str(tmp_path), "--folds", "2"]
    assert command([*words, "--fractions", "1", "--replicates", "100", "--objective.columns", "rows"]) == 0
    (table,) = json.loads((tmp_path / "assess.json").read_text())["tables"]
    assert (table["kind"], table["score"], table["asked"]) == ("regression", "mae", "2 folds by patient")
    told = " ".join(capsys.readouterr().out.split())
    assert f"of the {table['tested']['data']} images of data that are asked about were in the pre-training" in told


@pytest.mark.deep
def test_other_weights_and_other_images_are_other_features(run: tuple[Path, Path], tmp_path: Path) -> None:
    data, trained = run
    words = ["assess", str(trained), "--data", str(data), "--labels", "sizes", *QUICK, "--objective.columns", "high"]
    assert command([*words, "--out", str(tmp_path)]) == 0
    before = set((tmp_path / "features").iterdir())
    assert len(before) == 4
    smaller = "packed:patch=8,level=2,per_step=2,tokens=512"
    assert command([*words, "--out", str(tmp_path), "--batching", smaller]) == 0
    more = set((tmp_path / "features").iterdir()) - before
    assert len(more) == 3  # the pixels stay
    rows = {np.load(path).shape[0] for path in before | more}
    assert len(rows) == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "name a run, or a recipe and its weights"),
        (["--recipe", "nothing", "--init", "x.pth"], "recipe nothing is unknown"),
    ],
)
def test_what_cannot_be_judged_is_told_in_a_sentence(
    words: list[str], told: str, run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["assess", *words, "--data", str(run[0]), "--labels", "sizes", "--out", str(tmp_path)]) == 1
    assert told in capsys.readouterr().err
