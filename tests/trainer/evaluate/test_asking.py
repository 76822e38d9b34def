"""Which split a run is asked about, with which targets, and what a reader is told of both."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import Dataset, Loader, labels
from shardkit.errors import ArgumentError
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.storage import Store
from trainer.evaluate.asking import about, asked_targets, chosen_split, validation_split
from trainer.evaluate.results import LEAK
from trainer.tasks.config import TaskConfig
from trainer.tasks.trained import Trained

Official = Callable[[int, str], str | None]


def _by_patient(at: int, patient: str) -> str:
    return "test" if int(patient[:4], 16) % 3 == 0 else "train"


def _by_image(at: int, patient: str) -> str:
    return "test" if at % 3 == 0 else "train"


def _none(at: int, patient: str) -> None:
    return None


@pytest.fixture
def site(dataset_folder: Path, tmp_path: Path) -> Callable[..., Dataset]:
    """(official split of a row) -> a copy of the dataset with labels: a category, a binary one and a number."""

    def made(official: Official = _none) -> Dataset:
        folder = tmp_path / "site"
        shutil.copytree(dataset_folder, folder)
        samples = pq.read_table(folder / "manifest.parquet", columns=["key", "patient"]).to_pylist()
        columns: dict[str, Any] = {
            "side": [("left", "right", "both")[at % 3] for at in range(len(samples))],
            "ill": pa.array([at % 2 for at in range(len(samples))], pa.int8()),
            "size": [float(at) for at in range(len(samples))],
        }
        kinds: dict[str, Any] = {"side": "category", "ill": "binary", "size": "number"}
        split = pa.array([official(at, one["patient"]) for at, one in enumerate(samples)], pa.string())
        table = pa.table({"key": [one["key"] for one in samples], **columns, "split": split}).sort_by("key")
        rows = {"matched": len(samples), "ambiguous": 0, "unmatched": 0}
        digest = Dataset(str(folder)).description.digest
        described = LabelsDescription(name="tab", level="image", kinds=kinds, rows=rows, dataset=digest)
        labels.write(Store(str(folder)), LabelTable(described, table))
        return Dataset(str(folder))

    return made


def _run(
    split: str = "train",
    digest: str = "another",
    trained: list[dict[str, Any]] | None = None,
    chosen: dict[str, Any] | None = None,
    **task: Any,
) -> Trained:
    facts: dict[str, Any] = {"digest": digest, "config": {"loader.split": split}}
    facts |= {} if trained is None else {"trained": trained}
    of = {"facts": facts, "run": Path("run"), "step": 7, "selection": chosen or {}, "began": ""}
    return cast(Trained, SimpleNamespace(**of, task=TaskConfig(**{"labels": "tab", "kind": "multiclass", **task})))


def _notes(of: Trained, site: Dataset, split: str) -> tuple[str, ...]:
    return about(of, ("run", None), site, "site", split, "tab", ("left", "right")).notes


@pytest.mark.parametrize(
    ("trained", "here", "official", "split"),
    [
        ("train", True, False, "test"),
        ("train", True, True, "test"),
        ("tab:train", True, True, "tab:test"),
        ("tab:train/train", True, True, "tab:test"),
        ("tab:train,covidx:train", False, True, "tab:test"),
        ("train", False, True, "tab:test"),
        ("train", False, False, "test"),
        ("all", False, False, "test"),
    ],
)
def test_the_split_fits_the_one_of_the_training_and_elsewhere_the_official_one_goes_first(
    site: Callable[..., Dataset], trained: str, here: bool, official: bool, split: str
) -> None:
    at = site(_by_patient if official else _none)
    of = _run(trained, at.description.digest if here else "another")
    assert chosen_split(of.facts, at, "tab") == split


def _mixture(*members: tuple[Dataset, list[str]]) -> list[dict[str, Any]]:
    """Return what `run.json` says of members: datasets, and keys."""
    named = [{"name": f"m{at}", "digest": of.description.digest, "keys": keys} for at, (of, keys) in enumerate(members)]
    return [{"name": "elsewhere", "digest": "of another", "keys": ["0a"]}, *named]


@pytest.mark.parametrize("split", ["train", "other:train,tab:train", "other:train", "other:dev/train"])
def test_a_run_on_a_mixture_was_trained_at_each_of_its_members(site: Callable[..., Dataset], split: str) -> None:
    at = site(_by_patient)
    of = _run(split, "of the mixture", _mixture((at, [])))
    by_table = "tab:" in split
    assert chosen_split(of.facts, at, "tab") == ("tab:test" if by_table else "test")
    own = "tab:train" if by_table else "train"
    assert any(
        note.startswith(LEAK) and f"{len(at.filter(split=own)):,} images" in note for note in _notes(of, at, own)
    )
    assert validation_split(of, at) == ("" if by_table else "val"), "the labels have no val"


def test_a_dataset_that_has_grown_is_known_by_its_samples(site: Callable[..., Dataset]) -> None:
    at = site(_by_patient)
    grown = [{"name": "", "digest": "before it grew", "keys": at.filter(split="train").keys[:3]}]
    assert any("images" in note and note.startswith(LEAK) for note in _notes(_run(trained=grown), at, "train"))
    assert chosen_split(_run(trained=grown).facts, at, "tab") == "test"
    elsewhere = [{"name": "", "digest": "before it grew", "keys": ["0a"]}]
    assert not any(note.startswith(LEAK) for note in _notes(_run(trained=elsewhere), at, "train"))


def test_a_training_split_that_is_there_no_more_is_said(site: Callable[..., Dataset]) -> None:
    at = site()
    assert any("no more" in note for note in _notes(_run("gone:train", at.description.digest), at, "test"))


def test_a_val_split_is_there_where_the_run_was_trained_and_the_labels_are(site: Callable[..., Dataset]) -> None:
    at = site()
    digest = at.description.digest
    assert validation_split(_run(digest=digest), at) == "val"
    assert validation_split(_run(), at) == ""
    assert validation_split(_run(digest=digest, labels="other"), at) == ""


def test_an_official_split_that_is_not_used_is_named(site: Callable[..., Dataset]) -> None:
    at = site(_by_patient)
    [note] = _notes(_run(digest=at.description.digest), at, "test")
    assert "published scores are of tab:test" in note


def test_what_was_trained_on_is_a_leak_and_what_was_not_is_none(site: Callable[..., Dataset]) -> None:
    at = site()
    digest = at.description.digest
    assert _notes(_run(digest=digest), at, "test") == ()
    [note] = _notes(_run(digest=digest), at, "train")
    assert note.startswith(LEAK)
    assert f"{at.splits['train']:,} images" in note
    assert _notes(_run(digest="another"), at, "train") == (), "another dataset, of which nothing was trained on"


def _earlier(at: Dataset, split: str = "train", labelled: bool = True, **more: Any) -> dict[str, Any]:
    """Return what a run of before says of itself, which was trained on a dataset."""
    kind = {"kind": "Task" if labelled else "Masked"}
    return {
        "digest": at.description.digest,
        "config": {"loader.split": split, "objective.freeze": more.pop("freeze", False)},
        "objective": kind,
        **more,
    }


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    """(what runs of before say of themselves, by their folders) -> a run on another dataset that began with `one`."""

    def made(**runs: dict[str, Any]) -> Trained:
        monkeypatch.setattr("trainer.runs.lineage.facts_at", lambda source: runs.get(source, {}))
        of = _run()
        of.facts.update(init="one", classes=["left"])
        return of

    return made


def test_what_runs_of_before_were_trained_on_with_labels_is_a_leak(
    site: Callable[..., Dataset], before: Callable[..., Trained]
) -> None:
    at = site()
    of = before(one={**_earlier(at, "val"), "digest": "elsewhere", "init": "two"}, two=_earlier(at))
    [note] = _notes(of, at, "train")
    assert note == (
        f"{LEAK}the run began with weights that were trained, with labels, on images of this split, or of its patients:"
        f" {note.split('patients: ')[1]}"
    )
    assert f"{at.splits['train']:,} images" in note
    assert _notes(of, at, "test") == ()


def test_what_runs_of_before_saw_without_labels_is_told_and_no_leak(
    site: Callable[..., Dataset], before: Callable[..., Trained]
) -> None:
    at = site()
    [note] = _notes(before(one=_earlier(at, labelled=False)), at, "train")
    assert note.startswith("The run began with weights that were trained, without labels, on images of this split")


@pytest.mark.parametrize(("classes", "told"), [(["left"], True), (["others"], False)])
def test_a_head_that_was_trained_alone_counts_where_it_may_have_been_taken(
    site: Callable[..., Dataset], before: Callable[..., Trained], classes: list[str], told: bool
) -> None:
    at = site()
    of = before(one=_earlier(at, freeze=True, classes=classes))
    assert any(note.startswith(LEAK) for note in _notes(of, at, "train")) == told


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"init": "runs/gone"}, "gone is no run, or is gone."),
        ({"init": "vit.pth", "weights": "weights are those of vit.pth"}, "vit.pth is no run, or is gone."),
        ({"init": "a.mae", "weights": "weights are those of a.mae, pre-trained on ImageNet-1k"}, ""),
        ({"init": "gone", "weights": "all weights are those of gone, which began so: pre-trained on X"}, "gone is no"),
        ({"init": None, "weights": "weights begin at random"}, ""),
    ],
)
def test_weights_of_which_nothing_is_known_are_told(
    site: Callable[..., Dataset], facts: dict[str, Any], said: str
) -> None:
    of = _run()
    of.facts.update(facts)
    notes = _notes(of, site(), "train")
    assert len(notes) == bool(said)
    assert not said or said in notes[0]


def test_a_member_of_which_only_other_splits_have_images_was_in_the_training(site: Callable[..., Dataset]) -> None:
    at = site()
    member = {"name": "m", "digest": "before it grew", "keys": [], "held": at.keys[:3], "normalise": "zscore"}
    of = _run("train", "of the mixture", [member], {"split": "val"})
    assert validation_split(of, at) == "val"
    assert any("chosen by its score on this split" in note for note in _notes(of, at, "val"))


@pytest.mark.parametrize(
    ("trained", "asked", "chosen", "told"),
    [
        ("train", "val", "val", True),
        ("tab:train/train", "tab:train/val", "val", True),
        ("train", "test", "val", False),
        ("train", "test", "test", False),
        ("train", "val", None, False),
    ],
)
def test_the_split_that_the_checkpoint_was_chosen_on_is_named(
    site: Callable[..., Dataset], trained: str, asked: str, chosen: str | None, told: bool
) -> None:
    at = site(_by_patient if "tab" in trained else _none)
    of = _run(trained, at.description.digest, chosen={} if chosen is None else {"split": chosen})
    assert any("chosen by its score on this split" in note for note in _notes(of, at, asked)) == told
    elsewhere = _run(trained, "another", chosen={"split": "val"})
    assert not any("chosen by its score" in note for note in _notes(elsewhere, at, asked))


def test_an_official_split_that_parts_patients_is_a_leak(site: Callable[..., Dataset]) -> None:
    at = site(_by_image)
    notes = _notes(_run("tab:train", at.description.digest), at, "tab:test")
    assert any(note.startswith(f"{LEAK}the official split of tab") for note in notes)
    assert any("patients in common" in note for note in notes)


def _loader(at: Dataset, split: str | None = None) -> Loader:
    return Loader(at.url, batching="packed:patch=16,tokens=1024", split=split, device="cpu")


def test_categories_that_the_run_does_not_have_are_unknown_and_named(site: Callable[..., Dataset]) -> None:
    at = site()
    values, notes = asked_targets(_run(columns=("side",)), _loader(at), "tab", ("left", "right", "none"))
    sides = np.array([("left", "right", "both")[row % 3] for row in range(len(at))])
    assert np.isnan(values[sides == "both"]).all()
    assert values[sides == "left"].tolist() == [[1.0, 0.0, 0.0]] * int((sides == "left").sum())
    assert f"{(sides == 'both').sum()} images of categories that the run does not know: both." in notes


def _both_in_val(at: int, patient: str) -> str:
    """Return the split of a row: those of the side both are in val, and of right none is in test."""
    return ("test", "train", "val")[at % 3]


def test_notes_are_of_the_images_of_the_split(site: Callable[..., Dataset]) -> None:
    at = site(_both_in_val)
    said = {
        split: asked_targets(_run(columns=("side",)), _loader(at, f"tab:{split}"), "tab", ("left", "right"))[1]
        for split in ("test", "train")
    }
    assert said == {
        "test": ["The labels tab know no image of right in this split."],
        "train": ["The labels tab know no image of left in this split."],
    }
    with pytest.raises(ArgumentError, match="in this split"):
        asked_targets(_run(columns=("side",)), _loader(at, "tab:val"), "tab", ("left", "right"))


def test_an_official_split_that_was_joined_again_is_another_one(site: Callable[..., Dataset]) -> None:
    before = site(_by_patient)
    facts, digest = ("run", None), before.description.digest
    old, none = (
        about(_run(), facts, before, "site", split, "facts", ("left",)).split_digest for split in ("tab:test", "test")
    )
    assert (old, none) == (before.label_table("tab").digest, "")
    table = before.label_table("tab")
    words = pa.array(["test"] * len(before), pa.string())
    changed = table.table.set_column(table.table.column_names.index("split"), "split", words)
    labels.write(Store(before.url), replace(table, table=changed))
    after = Dataset(before.url)
    assert after.description.digest == digest
    assert about(_run(), facts, after, "site", "tab:test", "facts", ("left",)).split_digest not in (old, "")


@pytest.mark.parametrize(("kind", "there"), [("multilabel", "ill"), ("regression", "size")])
def test_classes_that_a_site_says_nothing_of_are_unknown_and_named(
    site: Callable[..., Dataset], kind: Any, there: str
) -> None:
    values, notes = asked_targets(_run(kind=kind), _loader(site()), "tab", (there, "elsewhere"))
    assert not np.isnan(values[:, 0]).any()
    assert np.isnan(values[:, 1]).all()
    assert notes == ["The labels tab say nothing of elsewhere in this split."]


def test_a_site_that_knows_no_class_is_refused(site: Callable[..., Dataset]) -> None:
    with pytest.raises(ArgumentError, match="choose other --labels"):
        asked_targets(_run(columns=("side",)), _loader(site()), "tab", ("up", "down"))


@pytest.mark.parametrize("blank", ["zeros", "ignore"])
def test_blanks_that_count_as_negative_are_told_beside_the_scores(site: Callable[..., Dataset], blank: Any) -> None:
    at = site()
    table = at.label_table("tab")
    ill = pa.array([None if i % 3 else i % 2 for i in range(len(at))], pa.int8())
    changed = table.table.set_column(table.table.column_names.index("ill"), "ill", ill)
    labels.write(Store(at.url), replace(table, table=changed))
    run = _run(kind="multilabel", blank=blank)
    values, notes = asked_targets(run, _loader(at), "tab", ("ill",))
    unsaid = ill.null_count
    assert np.isnan(values[:, 0]).sum() == (0 if blank == "zeros" else unsaid)
    told = [
        f"Blanks count as 0 (--objective.blank zeros; ignore leaves them out), on images of this split: ill {unsaid}."
    ]
    assert notes == (told if blank == "zeros" else [])
