"""From a run to a page by command line: nothing is predicted twice, and the page needs neither run nor data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.folders import put
from trainer.commands.cli import run as command
from trainer.evaluate.collect import Wanted, collect
from trainer.evaluate.predictions import read
from trainer.evaluate.results import FILE, found

SMALL = """
--labels facts --objective.columns view --objective.kind multiclass --model.width 16 --model.depth 1 --model.heads 2
--loader.batching packed:level=2,patch=8,per_step=2,tokens=1024 --run.steps 2 --val.every 1 --save.every 1
--select.metric accuracy --log.pictures 0 --log.baseline 0 --log.no-tensorboard
"""


@pytest.fixture(scope="module")
def run(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates on the views of the small dataset."""
    out = tmp_path_factory.mktemp("runs") / "views"
    assert command(["finetune", "--data", str(dataset_folder), "--out", str(out), *SMALL.split()]) == 0
    return out


@pytest.fixture
def evaluate(dataset_folder: Path, tmp_path: Path) -> Callable[..., int]:
    def evaluated(*words: str) -> int:
        return command(["evaluate", *words, "--out", str(tmp_path / "page"), "--bootstrap", "100"])

    return evaluated


def test_a_run_becomes_predictions_a_page_and_scores(
    run: Path,
    dataset_folder: Path,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own, data, out = tmp_path / "own" / "views", tmp_path / "shards", tmp_path / "page"
    shutil.copytree(run, own)
    shutil.copytree(dataset_folder, data)
    assert evaluate(str(own), "--data", str(data)) == 0
    told = capsys.readouterr().out
    path = out / "views" / "shards" / "predictions.parquet"
    found = read(path)
    split = pq.read_table(data / "manifest.parquet", columns=["key", "split"]).to_pylist()
    assert found.keys == sorted(row["key"] for row in split if row["split"] == "test")
    assert f"views at shards, split test: {len(found)} images" in told
    assert (found.about.select_split, found.about.select_metric) == ("val", "accuracy")
    assert found.about.classes == tuple(json.loads((own / "run.json").read_text())["objective"]["classes"])
    before, page, scores = path.stat(), (out / "index.html").read_bytes(), (out / "scores.json").read_bytes()
    assert b"data:image/jpeg" in page

    assert evaluate(str(own), "--data", str(data)) == 0
    assert "views at shards, split test: predicted already" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before.st_mtime_ns

    shutil.rmtree(own)
    shutil.rmtree(data)
    assert evaluate("--page-only") == 0
    assert (out / "index.html").read_bytes() == page
    assert (out / "scores.json").read_bytes() == scores


def test_the_split_of_the_training_is_called_a_leak(
    run: Path, dataset_folder: Path, evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(str(run), "--data", str(dataset_folder), "--split", "train", "--no-pictures") == 0
    assert "Leak: the run was trained on images of this split" in capsys.readouterr().out.replace("\n", " ")


def test_a_run_that_it_began_with_is_followed(
    dataset_folder: Path, evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for out, split, init in ((first, "test", None), (second, "train", first)):
        words = ["finetune", "--data", str(dataset_folder), "--out", str(out), "--loader.split", split, *SMALL.split()]
        assert command([*words, *([] if init is None else ["--init", str(init)])]) == 0
    capsys.readouterr()
    assert evaluate(str(second), "--data", str(dataset_folder), "--no-pictures") == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "Leak: the run began with weights that were trained, with labels, on images of this split" in told
    shutil.rmtree(first)
    shutil.rmtree(tmp_path / "page")
    capsys.readouterr()
    assert evaluate(str(second), "--data", str(dataset_folder), "--no-pictures") == 0
    assert "were trained on images of this split is not known: first is no run, or is gone." in " ".join(
        capsys.readouterr().out.split()
    )


def test_nothing_is_predicted_that_could_not_stand_on_the_page(
    run: Path,
    dataset_folder: Path,
    evaluate: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "page"
    assert evaluate(str(run), "--data", str(dataset_folder), f"{dataset_folder}/", "--split", "val", "test") == 1
    assert "named twice" in capsys.readouterr().err
    put(out, run="findings")
    assert evaluate(str(run), "--data", str(dataset_folder)) == 1
    assert "a page is of one task" in capsys.readouterr().err
    assert found(out) == [out / "findings" / "nih" / FILE], "and the folder is as it was"


def test_a_split_is_not_replaced_by_another_and_a_moved_run_is_not_asked_again(
    run: Path, dataset_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dataset_folder)
    wanted = Wanted(
        runs=(run,), data=(".",), labels=(), splits=("val",), checkpoint="best", validation=False, out=tmp_path
    )
    said: list[str] = []
    assert collect(wanted, said.append)
    path = tmp_path / run.name / dataset_folder.name / FILE
    assert read(path).about.split == "val"
    with pytest.raises(ArgumentError, match="another split") as refused:
        collect(replace(wanted, splits=("test",)), said.append)
    assert str(path) in str(refused.value)
    moved = shutil.copytree(run, tmp_path / "moved" / run.name)
    assert collect(replace(wanted, runs=(moved,)), said.append)
    assert "predicted already" in said[-1]


def test_the_mean_absolute_error_is_not_called_a_mean_error(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path / "page", kind="regression", classes=("age",))
    assert evaluate("--page-only") == 0
    told = capsys.readouterr().out
    assert " MAE " in told
    assert "mean error" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["RUN"], "RUN and --data"),
        (["--page-only", "--data", "shards"], "leave out runs and --data"),
        (["--page-only", "--bootstrap", "5"], "--bootstrap 5"),
        (["--page-only"], "leave --page-only out"),
        (["RUN", "--data", "a", "b", "c", "--split", "test", "all"], "one for each of the 3"),
        (
            ["RUN", "--data", "a", "b", "--labels", "x", "y", "z"],
            "--labels takes one name, or one for each of the 2 datasets of --data, not 3",
        ),
        (["RUN", "--data", "shards", "--thresholds", "0.5", "2"], "between 0 and 1"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["evaluate", *words, "--out", str(tmp_path / "page")]) == 1
    assert said in capsys.readouterr().err


def test_a_run_without_labels_is_refused(
    run: Path, dataset_folder: Path, evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    about["objective"]["kind"] = "Masked"
    (tmp_path / "run" / "run.json").write_text(json.dumps(about))
    assert evaluate(str(tmp_path / "run"), "--data", str(dataset_folder)) == 1
    assert "fine-tune or probe it first" in capsys.readouterr().err


@pytest.mark.deep
def test_two_processes_write_what_one_writes(run: Path, dataset_folder: Path, tmp_path: Path) -> None:
    words = ["-m", "trainer", "evaluate", str(run), "--data", str(dataset_folder), "--bootstrap", "100"]
    pages = []
    for name, launch in (("one", []), ("two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"])):
        where = tmp_path / name
        done = subprocess.run(
            [sys.executable, *launch, *words, "--out", str(where)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
        pages.append(where)
    one, two = (read(where / run.name / dataset_folder.name / "predictions.parquet") for where in pages)
    assert one.about == two.about
    assert one.keys == two.keys
    assert abs(one.scores - two.scores).max() < 1e-5
