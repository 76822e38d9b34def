"""Fine-tuning and probing by command line: what is learnt, from what, and what a user is told of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from shardkit import Dataset, Loader, Packed, labels
from shardkit.labels import LabelTable
from shardkit.storage import Store
from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.commands.cli import run as command
from trainer.models.classifier import Classifier
from trainer.models.mae import MaeConfig
from trainer.models.vit import VitConfig
from trainer.runs import checkpoint, unpickling
from trainer.tasks.config import TaskConfig

Words = Callable[..., list[str]]
Refused = Callable[..., str]
LARGER = "packed:patch=8,level=1,per_step=2,tokens=1024,remainder=drop"
LABELLED = ("--objective.columns", "high")


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text())
    return found


def _split(dataset: Path, name: str) -> int:
    """How many images are in an official split of the labels sizes."""
    words = pq.read_table(dataset / "labels" / "sizes.parquet", columns=["split"])["split"].to_pylist()
    return sum(word == name for word in words)


def test_a_task_is_learnt_and_its_best_checkpoint_kept(
    words: Words, tmp_path: Path, labelled_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--run.steps", "40", "--val.every", "8", "--optim.lr", "4e-3", "--objective.uncertain", "ignore"]
    more += ["--optim.eps", "1e-8", "--objective.head.std", "0.1", "--loader.batching", LARGER]
    assert command(words("finetune", "--objective.columns", "high", *more)) == 0
    told, run = capsys.readouterr().out, tmp_path / "run"
    validated, facts = _read(run / "validation.jsonl"), _facts(run)
    values = [line["metrics"]["auc"] for line in validated]
    best = max(range(len(values)), key=lambda at: (values[at], -at))
    trained = [line["metrics"]["accuracy"] for line in _read(run / "metrics.jsonl")]
    assert sum(trained[-6:]) / 6 > 0.8
    assert [line["step"] for line in validated if line["best"]][-1] == validated[best]["step"]
    # The val split is what is measured unless another is asked for: each of its labelled images once.
    assert {(line["split"], line["images"]) for line in validated} == {("val", _split(labelled_dataset, "val"))}
    assert _split(labelled_dataset, "val") != _split(labelled_dataset, "test")
    assert facts["config"]["select.split"] == "val"
    assert facts["notes"] == []
    assert facts["command"] == "finetune"
    assert facts["objective"]["classes"] == ["high"]
    kept = unpickling.progress(run / "best")
    assert kept["step"] == kept["selection"]["step"] == validated[best]["step"]
    assert kept["selection"]["value"] == facts["selection"]["value"] == values[best]
    assert checkpoint.named(run) == run / "best"
    assert f"best auc on the val split: {values[best]:.5g}, at step {kept['step']}, kept in {run / 'best'}" in told
    assert len(re.findall("  best so far\n", told)) == sum(line["best"] for line in validated)
    page = (run / "report.html").read_text()
    assert f"is that of step {kept['step']}" in page
    assert "What it learns from" in page
    assert "mean-image" not in page.lower()


def test_scores_of_a_regression_are_in_the_unit_of_its_labels(
    words: Words, tmp_path: Path, labelled_dataset: Path
) -> None:
    more = ("--objective.kind", "regression", "--select.metric", "mae", "--run.steps", "2", "--val.every", "1")
    assert command(words("finetune", "--objective.columns", "rows", *more)) == 0
    run = tmp_path / "run"
    facts, first = _facts(run)["objective"], _read(run / "validation.jsonl")[0]
    of = Loader(labelled_dataset, batching=Packed(tokens=1024, patch=8), split=None, device="cpu").labels("sizes")
    trained = of.column("rows")[(of.split == "train") & of.known.any(1)]
    assert facts["mean"] == pytest.approx([trained.mean()])
    assert facts["deviation"] == pytest.approx([trained.std()])
    # A new head says the mean: its error is about the deviation in pixels, and about 1 in the loss.
    assert 0.3 < first["loss"] < 3
    assert 0.3 * facts["deviation"][0] < first["metrics"]["mae"] < 2 * facts["deviation"][0]
    task = TaskConfig(labels="sizes", columns=("rows",), kind="regression")
    assert task.targets(Loader(labelled_dataset, batching=Packed(tokens=1024, patch=8), device="cpu")).known.any()
    model = Classifier(VitConfig(patch=8, width=32, depth=1, heads=2).encoder(last_norm=False), 1, task.head)
    checkpoint.weights(run / "best", model)
    assert model.head.offset.tolist() == pytest.approx(facts["mean"])
    assert model.head.scale.tolist() == pytest.approx(facts["deviation"])


def test_a_probe_begins_with_a_runs_encoder_and_leaves_it_as_it_was(words: Words, tmp_path: Path) -> None:
    before, run = tmp_path / "before", tmp_path / "run"
    small = "--model.width 48 --model.depth 2 --model.heads 2 --model.decoder-width 32 --model.decoder-depth 1"
    small += " --model.decoder-heads 2 --run.steps 1 --val.every 0 --log.pictures 0 --log.baseline 0"
    batching = "packed:patch=8,level=1,per_step=2,tokens=512,remainder=drop"
    data = words()[words().index("--data") + 1]
    pretrain = ["pretrain", "--data", data, "--out", str(before), *small.split(), "--loader.batching", batching]
    assert command(pretrain) == 0
    typed = words("probe", "--init", str(before), "--optim.weight-decay", "0.1", *LABELLED)
    plain = [word for at, word in enumerate(typed) if not (word + typed[at - 1]).count("--model.")]
    assert command(plain) == 0
    assert _facts(run)["config"]["model.width"] == 48, "the run's, as no --model option was typed"
    model = MaeConfig(patch=8, width=48, depth=2, heads=2, decoder_width=32, decoder_depth=1, decoder_heads=2).build()
    checkpoint.weights(before / "checkpoints" / "step_00000001", model)
    own = Classifier(VitConfig(patch=8, width=48, depth=2, heads=2).encoder(last_norm=False), 1, TaskConfig().head)
    checkpoint.weights(run / "best", own)
    for name, value in own.encoder.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert own.head.fc.bias.abs().sum() > 0


@pytest.mark.parametrize("batching", ["binned:batch_size=3,patch=8,level=1", "resized:batch_size=4,patch=8,side=64"])
def test_tasks_run_on_binned_and_resized_batches(words: Words, tmp_path: Path, batching: str) -> None:
    assert command(words("finetune", "--run.steps", "2", "--val.every", "2", "--loader.batching", batching)) == 0
    (line,) = _read(tmp_path / "run" / "validation.jsonl")
    assert line["metrics"]["auc"] is not None


def test_a_run_begins_with_the_head_of_a_run_of_the_same_classes(words: Words, tmp_path: Path) -> None:
    before, short = str(tmp_path / "before"), ("--run.steps", "1", "--val.every", "0", "--select.metric", "")
    assert command(words("finetune", *LABELLED, *short, "--out", before)) == 0
    assert _facts(tmp_path / "before")["classes"] == ["high"]
    assert command(words("finetune", *LABELLED, *short, "--init", before, "--loader.normalise", "zscore")) == 0
    assert _facts(tmp_path / "run")["weights"].startswith("weights of encoder and head are those of")
    assert f"the weights of {before} were trained on images normalised by" in _facts(tmp_path / "run")["notes"][-1]


# --- what is refused, and what is told


def test_a_recipe_of_another_command_is_refused_with_the_right_one(refused: Refused) -> None:
    said = refused("finetune", "--recipe", "tiny")
    assert "recipe tiny is one of pretrain, not of finetune: run python -m trainer pretrain --recipe tiny, or" in said
    assert "recipe tiny-probe is one of probe, not of pretrain" in refused("pretrain", "--recipe", "tiny-probe")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--labels", ""), "--labels is missing: name a labels table of the dataset"),
        (("--labels", "other"), "has no labels named other: there are leaky, plain, sizes, two"),
        (("--labels", "facts"), "there is no binary label: choose --objective.kind multiclass"),
        (("--labels", "facts", "--objective.columns", "sex"), "does not know the sex of any image: build the dataset"),
        (("--objective.columns", "never"), "say the same of all"),
        (("--objective.ones", "Edema"), "--objective.ones names Edema, which is none of high, wide, never"),
        (("--objective.fold", "high"), "--objective.fold high must be old=new"),
        (("--select.metric", "acu"), "--select.metric acu is not measured: choose one of loss, auc, ap"),
        (("--loader.split", "all"), "--select.metric auc has nothing to choose by, --loader.split all trains on the"),
        (("--val.every", "0"), "--select.metric auc has nothing to choose by, as --val.every is 0: give a --val.every"),
        (("--labels", "two", "--loader.split", "two:train"), "has no image in the two:val split"),
        (("--labels", "two", "--loader.split", "two:train"), ": give --loader.split two:train/train, which holds out"),
        (("--loader.split", "plain:train"), "plain has no official split: name train, val or test alone, which are"),
        (("--recipe", "krones-a", "--run.seed", "3"), "for one, give --run.seeds 3 in place of --run.seed"),
        (("--run.epochs", "2"), "--run.steps and --run.epochs both say how long the run is: give one of them"),
        (("--run.seeds", "1", "--run.seed", "1"), "--run.seeds takes each seed once, and goes without --run.seed"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(
    refused: Refused, tmp_path: Path, more: tuple[str, ...], said: str
) -> None:
    assert said in refused("finetune", *more)
    assert not (tmp_path / "run" / "run.json").exists(), "before anything is written"


def _notes(words: Words, run: Path, *more: str) -> list[str]:
    """Return the notes of a run of one step, but for that of -1, which `sizes` has."""
    assert command(words("finetune", "--run.steps", "1", "--val.every", "1", *LABELLED, *more)) == 0
    return _without_doubts(_facts(run)["notes"])


def _without_doubts(notes: list[str]) -> list[str]:
    return [note for note in notes if not note.startswith("Uncertain values (-1) count as 0")]


def test_patients_on_both_sides_of_a_split_are_told_and_kept(
    words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = _notes(words, tmp_path / "run", "--labels", "leaky", "--loader.split", "leaky:train")
    leaks = [note for note in found if "patients have images both in the training split leaky:train and in" in note]
    assert [note.rpartition(": ")[2] for note in leaks] == [
        f"scores of leaky:{s} are too good" for s in ("val", "test")
    ]
    assert all(note in capsys.readouterr().out for note in leaks[:1])
    assert "patients have images both in the training split" in (tmp_path / "run" / "report.html").read_text()


def test_an_official_split_that_keeps_patients_apart_is_nothing_to_tell(words: Words, tmp_path: Path) -> None:
    assert _notes(words, tmp_path / "run") == []


def test_a_part_of_an_official_split_without_val_chooses_a_checkpoint(
    words: Words, tmp_path: Path, own_dataset: Path
) -> None:
    """By patients, so that nothing leaks and nothing is told."""
    tested = set(Dataset(str(own_dataset)).filter(split="test").keys)

    def without_val(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            row["split"] = "test" if row["key"] in tested else "train"

    put_labels(own_dataset, "part", without_val)
    more = ("--data", str(own_dataset), "--labels", "part", "--select.metric", "loss")
    assert _notes(words, tmp_path / "run", *more, "--loader.split", "part:train/train") == []
    [line] = _read(tmp_path / "run" / "validation.jsonl")
    assert 0 < line["images"] <= len(Dataset(str(own_dataset)).filter(split="part:train/val"))
    assert (line["split"], line["best"]) == ("val", True)
    assert (tmp_path / "run" / "best").is_dir()


def test_an_official_split_that_is_not_used_is_told(words: Words, tmp_path: Path) -> None:
    (note,) = _notes(words, tmp_path / "run", "--loader.split", "train", "--select.metric", "")
    assert note.startswith("the labels sizes have an official split, and --loader.split train is another one")
    assert note.endswith("--loader.split sizes:train")


def test_a_choice_by_the_test_split_is_told_and_stamped(
    words: Words, tmp_path: Path, labelled_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (note,) = _notes(words, tmp_path / "run", "--select.split", "test")
    assert note.startswith("--select.split test: validation and the choice of the best checkpoint read the test split")
    told, run = capsys.readouterr().out, tmp_path / "run"
    assert note in told
    assert "step 1/1  test loss" in told
    (line,) = _read(run / "validation.jsonl")
    assert (line["split"], line["images"]) == ("test", _split(labelled_dataset, "test"))
    assert unpickling.progress(run / "best")["selection"]["split"] == "test"
    page = (run / "report.html").read_text()
    assert "read the test split: scores on it are too good" in page
    assert "on the test split" in page
    assert "on the val split" not in page


def test_a_class_that_cannot_be_learnt_is_told_and_its_absence_averaged_nowhere(words: Words, tmp_path: Path) -> None:
    assert command(words("finetune", "--run.steps", "1", "--val.every", "1")) == 0
    assert _facts(tmp_path / "run")["notes"] == [
        "no image of the training split sizes:train has never: it cannot be learnt",
        "Blanks count as 0 (--objective.blank zeros; ignore leaves them out), on images of this split: wide 10.",
        "Uncertain values (-1) count as 0 (--objective.uncertain zeros), on images of this split: high 9.",
    ]


def test_rows_of_blanks_alone_are_learnt_as_zeros_and_told(words: Words, own_dataset: Path, tmp_path: Path) -> None:
    """A table whose only label is 1 or empty has its negatives in such rows."""

    def one_or_empty(rows: list[dict[str, Any]]) -> None:
        by_patient(rows)
        for row in rows:
            blank = dict.fromkeys(("wide", "never", "shape", "rows"))
            row.update(blank, high=1 if row["high"] == 1 else None)

    put_labels(own_dataset, "sizes", one_or_empty)
    (note,) = _notes(words, tmp_path / "run", "--data", str(own_dataset))
    of = _facts(tmp_path / "run")["objective"]
    assert of["known"] == [_split(own_dataset, "train")] == [of["labelled"]]
    blank = of["known"][0] - of["positive"][0]
    assert note == (
        f"Blanks count as 0 (--objective.blank zeros; ignore leaves them out), on images of this split: high {blank}."
    )


def test_labels_that_know_no_image_of_the_val_split_choose_nothing(own_dataset: Path, refused: Refused) -> None:
    manifest = pq.read_table(own_dataset / "manifest.parquet", columns=["key", "split"]).to_pylist()
    held = {row["key"] for row in manifest if row["split"] == "val"}

    def change(rows: list[dict[str, Any]]) -> None:
        rows[:] = [row for row in rows if row["key"] not in held]

    put_labels(own_dataset, "plain", change)
    said = refused("finetune", "--data", str(own_dataset), "--labels", "plain", "--loader.split", "train")
    assert "has nothing to choose by, the labels know no image of the val split" in said


def test_a_val_split_without_a_positive_chooses_nothing(own_dataset: Path, refused: Refused) -> None:
    """The AUC has no value there: a run with patience would have ended early, with no checkpoint."""
    manifest = pq.read_table(own_dataset / "manifest.parquet", columns=["key", "split"]).to_pylist()
    held = {row["key"] for row in manifest if row["split"] == "val"}

    def change(rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if row["key"] in held:
                row["high"] = row["wide"] = 0

    put_labels(own_dataset, "plain", change)
    words = ["--data", str(own_dataset), "--labels", "plain", "--loader.split", "train"]
    said = refused("finetune", *words)
    assert "--select.metric auc has nothing to choose by, the labels of the val split are too few, or all the" in said
    assert ": choose by a metric that they do give, --select.metric loss or accuracy" in said
    assert "train on" not in said, "it does, on our own split"
    said = refused("finetune", *words[:-2], "--objective.columns", "high", *words[-2:])
    assert "the labels of high of the val split are too few" in said
    assert "or more classes with --objective.columns, or give --select.metric '' to choose no checkpoint" in said


@pytest.mark.deep
def test_labels_that_have_changed_are_told_as_a_changed_dataset_is(
    own_dataset: Path, words: Words, refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = ("--data", str(own_dataset), "--run.steps", "2", *LABELLED)
    assert command(words("finetune", *again)) == 0

    def change(rows: list[dict[str, Any]]) -> None:
        by_patient(rows)
        rows[0]["high"] = 1 - abs(rows[0]["high"])

    put_labels(own_dataset, "sizes", change)
    longer = (*again[:2], "--run.steps", "3", *LABELLED)
    said = refused("finetune", *longer)
    assert f"are not as they were at step 2 of {tmp_path / 'run'}: go on with --run.on-new-data restart-epoch" in said
    assert command(words("finetune", *longer, "--run.on-new-data", "restart-epoch")) == 0
    assert "the labels have changed since step 2" in capsys.readouterr().out
    assert command(words("finetune", *longer)) == 0, "from there on they are the run's"


def test_a_finished_run_says_that_its_labels_have_changed_since_and_stays_as_it_is(
    own_dataset: Path, words: Words, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = words("finetune", "--data", str(own_dataset), "--run.steps", "1", *LABELLED)
    assert command(again) == 0
    before = (tmp_path / "run" / "run.json").read_bytes()
    capsys.readouterr()
    assert command(again) == 0
    assert "changed since" not in capsys.readouterr().out

    def change(rows: list[dict[str, Any]]) -> None:
        by_patient(rows)
        rows[0]["high"] = 1 - abs(rows[0]["high"])

    put_labels(own_dataset, "sizes", change)
    assert command(again) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"have changed since {tmp_path / 'run'} was trained, and it has not learnt from what is there now" in told
    assert "name another --out for a run that does" in told
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_labels_with_other_classes_are_no_way_to_go_on(own_dataset: Path, words: Words, refused: Refused) -> None:
    more = ("--objective.columns", "shape", "--objective.kind", "multiclass", "--run.steps")
    assert command(words("finetune", "--data", str(own_dataset), *more, "1")) == 0

    def change(rows: list[dict[str, Any]]) -> None:
        by_patient(rows)
        for row in rows:
            row["shape"] = row["shape"].replace("square", "long")

    put_labels(own_dataset, "sizes", change)
    said = refused("finetune", "--data", str(own_dataset), *more, "2")
    assert "holds a run of the classes flat, square, upright, and the labels have flat, long, upright now" in said


@pytest.mark.parametrize(
    ("kind", "metric", "gained"),
    [("multiclass", "accuracy", pa.array(["a"])), ("multilabel", "auc", pa.array([1], pa.int8()))],
)
@pytest.mark.deep
def test_a_run_keeps_to_its_labels_where_the_table_gains_others(
    own_dataset: Path, words: Words, tmp_path: Path, kind: str, metric: str, gained: pa.Array
) -> None:
    data = ("--data", str(own_dataset))
    more = (*data, "--labels", "plain", "--loader.split", "train", "--objective.kind", kind, "--select.metric", metric)
    assert command(words("finetune", *more, "--run.steps", "1")) == 0
    run, store = tmp_path / "run", Store(str(own_dataset))
    before, table = _facts(run)["objective"], labels.read(store, "plain")
    kinds: Any = {**table.description.kinds, "source": "category" if kind == "multiclass" else "binary"}
    at = table.table.num_columns - 1
    column = pa.chunked_array([gained] * table.table.num_rows)
    wider = table.table.add_column(at, "source", column)
    labels.write(store, LabelTable(replace(table.description, kinds=kinds), wider))
    assert command(words("finetune", *more, "--run.steps", "2")) == 0
    assert _facts(run)["objective"] == before
    page = ("--labels", "plain", "--out", str(tmp_path / "page"), "--bootstrap", "100")
    assert command(["evaluate", str(run), *data, *page]) == 0


# --- several seeds


@pytest.mark.deep
def test_seeds_are_runs_side_by_side_and_finished_ones_are_left_alone(
    words: Words, refused: Refused, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    several = [*words("finetune", "--run.steps", "2", "--val.every", "1", *LABELLED), "--run.seeds", "3", "5"]
    assert command(several) == 0
    runs = [tmp_path / "run" / f"seed_{seed}" for seed in (3, 5)]
    assert [_facts(run)["config"]["run.seed"] for run in runs] == [3, 5]
    losses = [_read(run / "metrics.jsonl")[0]["loss"] for run in runs]
    assert losses[0] != losses[1]
    lines = [(run / "metrics.jsonl").read_text() for run in runs]
    for place in runs[1].glob("checkpoints/step_00000002/*"):
        place.unlink()
    capsys.readouterr()
    assert command(several) == 0
    told = capsys.readouterr().out
    assert f"{runs[0]} has all its 2 steps" in told
    assert f"{runs[1]} has all its" not in told
    assert (runs[0] / "metrics.jsonl").read_text() == lines[0]
    assert "holds runs of several seeds: name them by --run.seeds" in refused("finetune", *LABELLED)
    only = refused("finetune", "--out", str(runs[0]), "--run.seeds", "3", *LABELLED)
    assert f"{runs[0]} holds a run, and cannot hold runs of --run.seeds" in only
