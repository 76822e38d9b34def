"""The command from a run to a page: images are read once, every feature is judged, and what was seen before is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Loader
from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.assess import features, record
from trainer.assess.seen import Seen, seen_by
from trainer.assess.study import Judged
from trainer.commands.cli import run as command
from trainer.config import LoaderConfig
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


@pytest.mark.deep
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


@pytest.fixture(scope="module")
def tuned(run: tuple[Path, Path]) -> Path:
    """A run of the default head, begun with the other one, and trained on the val part."""
    data, before = run
    out = before.parent / "tuned"
    words = ["finetune", "--data", str(data), "--out", str(out), "--init", str(before), "--labels", "sizes"]
    batching = "packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop"
    words += ["--loader.split", "sizes:val", "--loader.batching", batching, "--objective.columns", "high"]
    assert command([*words, "--run.steps", "1", "--val.every", "0", "--select.metric", "", "--log.pictures", "0"]) == 0
    return out


@pytest.mark.deep
def test_a_fine_tuned_run_is_judged_and_what_it_and_its_pre_training_saw_is_said(
    run: tuple[Path, Path], tuned: Path, tmp_path: Path
) -> None:
    words = ["assess", str(tuned), "--data", str(run[0]), "--labels", "sizes", "--out", str(tmp_path), "--folds", "2"]
    assert command([*words, "--fractions", "1", "--replicates", "10", "--objective.columns", "high"]) == 0
    (table,) = json.loads((tmp_path / "assess.json").read_text())["tables"]
    labelled, plain = table["notes"]
    assert "trained on, with labels" in labelled
    assert "in the pre-training, without their labels" in plain


def opened(config: LoaderConfig, data: str) -> Loader:
    return Loader(data, batching=config.batching, seed=0, split=config.split, rank=0, world_size=1)


def test_what_was_seen_is_followed_to_the_first_run(run: tuple[Path, Path], tuned: Path) -> None:
    before, after = seen_by(str(run[1]), opened), seen_by(str(tuned), opened)
    assert before.plain
    assert (before.labelled, before.whole) == (frozenset(), True)
    assert (after.plain, after.whole) == (before.plain, True)
    assert after.labelled
    assert not after.labelled & before.plain


def test_a_frozen_encoder_has_learnt_nothing_from_labels(tuned: Path, tmp_path: Path) -> None:
    probe = shutil.copytree(tuned, tmp_path / "probe")
    facts = json.loads((probe / "run.json").read_text())
    facts["config"]["objective.freeze"] = True
    (probe / "run.json").write_text(json.dumps(facts))
    found = seen_by(str(probe), opened)
    assert found.plain
    assert not found.labelled
    assert found.whole


@pytest.mark.parametrize(
    ("which", "change"),
    [
        ("tuned", {"init": "gone"}),
        ("tuned", {"data": "gone"}),
        ("tuned", {"digest": "of what it was"}),
        ("run", {"trained": [{"name": "", "digest": "of what it was at first", "keys": ["0a"]}]}),
        ("run", {"trained": [{"name": "", "digest": "of what it was at first", "keys": []}]}),
        ("run", {"init": "weights.pth"}),
        ("run", {"weights": "weights are those of timm's vit_small_patch16_224.mae"}),
    ],
)
def test_what_cannot_be_followed_is_not_known(
    which: str, change: dict[str, Any], run: tuple[Path, Path], tuned: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(tuned if which == "tuned" else run[1], tmp_path / "copy")
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps(facts | change))
    found = seen_by(str(copy), opened)
    assert not found.whole
    assert found.plain or found.labelled
    assert not seen_by("vit_small_patch16_224.mae", opened).whole


@pytest.mark.parametrize(
    ("seen", "kinds"),
    [
        (Seen(), ["plain"]),
        (Seen(whole=True), ["good"]),
        (Seen(plain=frozenset("a")), ["alert", "plain"]),
        (Seen(labelled=frozenset("ab"), plain=frozenset("a"), whole=True), ["alert", "alert"]),
        (Seen(labelled=frozenset("z"), whole=True), ["good"]),
    ],
)
def test_only_what_is_wholly_known_is_told_as_good(seen: Seen, kinds: list[str]) -> None:
    judged = Judged("multilabel", "all", {"here": ("a", "b")}, ())
    assert [kind for kind, _ in record.notes(judged, seen)] == kinds


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
        (["--k", "0"], "--k 0 must be 1 or more"),
        (["--draws", "0"], "--draws 0 must be 1 or more"),
        (["--replicates", "0"], "--replicates 0 must be 1 or more"),
        (["--seed", "-1"], "--seed -1 must be 0 or more"),
        (["--folds", "1"], "--folds 1 must be 2 or more, or 0 for a test split"),
        (["--fractions", "10"], "--fractions 10 must be above 0 and at most 1: 10 % is 0.1"),
        (["--fractions", "0.1", "0"], "--fractions 0 must be above 0"),
        (["--fractions", "nan"], "--fractions nan must be above 0"),
    ],
)
def test_what_cannot_be_judged_is_told_in_a_sentence(
    words: list[str], told: str, run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["assess", *words, "--data", str(run[0]), "--labels", "sizes", "--out", str(tmp_path)]) == 1
    assert told in " ".join(capsys.readouterr().err.split())


def test_a_dataset_that_is_named_twice_is_no_second_site(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = ["--data", str(run[0]), f"{run[0].parent}/run/../data/"]
    assert command(["assess", str(run[1]), *twice, "--labels", "sizes", "--out", str(tmp_path), *QUICK]) == 1
    assert "is named twice: name it once" in " ".join(capsys.readouterr().err.split())


def test_one_of_several_seeds_is_to_be_named(
    run: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run[1], tmp_path / "seeds" / "seed_0")
    words = ["assess", str(tmp_path / "seeds"), "--data", str(run[0]), "--labels", "sizes", "--out", str(tmp_path)]
    assert command(words) == 1
    assert "holds runs of 1 seeds: name one of them" in " ".join(capsys.readouterr().err.split())
