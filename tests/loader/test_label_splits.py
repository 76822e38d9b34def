"""Official splits and labels by manifest row, of one dataset and of a mixture's members."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit import Dataset, Loader, Packed, labels
from shardkit.cli import run
from shardkit.errors import ArgumentError, StateError
from shardkit.labels import LabelsDescription, LabelTable
from shardkit.labels.split_names import Split
from shardkit.loader.manifest_index import ManifestIndex
from shardkit.loader.replay import from_state, replay
from shardkit.storage import Store

PACKED = Packed(tokens=512, patch=16, per_step=2)
ON_CPU: dict[str, Any] = {"batching": PACKED, "device": "cpu"}
Tables = dict[str, dict[str, Any]]


def write(folder: Path, name: str, split: Sequence[str | None], **columns: list[Any]) -> None:
    """Label the first samples of a dataset: their split, and columns of whole numbers, of floats or of words."""
    keys = ManifestIndex(str(folder)).columns("key")["key"].to_pylist()[: len(split)]
    kinds: dict[str, Any] = {}
    arrays: dict[str, Any] = {"key": keys}
    for label, values in columns.items():
        known = [value for value in values if value is not None]
        kinds[label] = {int: "binary", float: "number", str: "category"}[type(known[0])]
        arrays[label] = pa.array(values, {"binary": pa.int8(), "number": pa.float64()}.get(kinds[label], pa.string()))
    arrays["split"] = pa.array(split, pa.string())
    told = {"matched": len(split), "ambiguous": 0, "unmatched": 0}
    description = LabelsDescription(name=name, level="image", kinds=kinds, rows=told)
    labels.write(Store(str(folder)), LabelTable(description, pa.table(arrays)))


@pytest.fixture
def labelled(members: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """tars with the table nih14 (4 train, 2 test, 1 without), zarr with none, png with the table covidx."""
    folders = {name: shutil.copytree(members[name], tmp_path / name) for name in members}
    split = ["train", "test", "train", None, "train", "test", "train"]
    write(
        folders["tars"],
        "nih14",
        split,
        Edema=[1, 0, -1, None, 1, 0, 0],
        view=["PA", "AP", None, "PA", "PA", "AP", "LL"],
    )
    write(folders["png"], "covidx", ["train", "test", "test"], Edema=[0, None, 1], view=["AP", "XX", None])
    return folders


def rows(loader: Loader) -> list[int]:
    return sorted(row for batch in loader for row in batch.rows.tolist() if row >= 0)


# -------------------------------------------------------------------------------------------------------- one dataset


def test_an_official_split_has_the_samples_that_its_table_names(labelled: dict[str, Path]) -> None:
    train = Loader(labelled["tars"], split="nih14:train", **ON_CPU)
    assert rows(train) == [0, 2, 4, 6]
    assert rows(Loader(labelled["tars"], split="nih14:test", **ON_CPU)) == [1, 5]
    hashed = ManifestIndex(str(labelled["tars"])).splits
    assert train.splits == {**hashed, "nih14:train": 4, "nih14:test": 2}
    assert Loader(labelled["tars"], split="train", **ON_CPU).splits == hashed
    assert "split='nih14:train'" in repr(train) or "split=nih14:train" in repr(train)


def test_parts_of_an_official_split_are_by_our_own_val_and_leave_nothing_out(
    synthetic: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(synthetic("webdataset"), tmp_path / "dataset")
    own = ManifestIndex(str(folder)).columns("split")["split"].to_pylist()
    official = ["train" if word != "test" else "test" for word in own[:-1]] + ["test"]
    write(folder, "nih14", official, Edema=[row % 2 for row in range(len(own))])
    whole = [row for row, word in enumerate(official) if word == "train"]
    held = [row for row in whole if own[row] == "val"]
    assert 0 < len(held) < len(whole), "some of each"
    parts = {part: Loader(folder, split=f"nih14:train/{part}", **ON_CPU) for part in ("train", "val")}
    assert rows(parts["val"]) == held
    assert sorted(rows(parts["train"]) + held) == whole
    for part in ("train", "val"):
        assert parts[part].splits["nih14:train/val"] == len(held)
        assert parts[part].splits["nih14:train/train"] == len(whole) - len(held)
        filtered = Dataset(str(folder)).filter(split=f"nih14:train/{part}")
        assert sorted(filtered.rows.tolist()) == rows(parts[part])
    state = parts["val"].state_dict()
    Loader(folder, split="nih14:train/val", **ON_CPU).load_state_dict(state)
    with pytest.raises(StateError, match="was saved with"):
        parts["train"].load_state_dict(state)


def test_labels_come_by_manifest_row(labelled: dict[str, Path]) -> None:
    loader = Loader(labelled["tars"], split="nih14:train", **ON_CPU)
    found = loader.labels("nih14")
    assert found.columns == ("Edema", "view")
    assert len(found.values) == len(loader.columns("key"))
    for batch in loader:
        shown = batch.rows[batch.weight > 0]
        edema = found.values[shown][:, 0]
        assert edema.tolist() == [{0: 1, 2: -1, 4: 1, 6: 0}[row] for row in shown.tolist()]
    assert found.known[:7, 0].tolist() == [True, True, True, False, True, True, True]
    assert not found.known[7:].any()
    assert [found.categories["view"][int(found.values[row, 1])] for row in (0, 1, 6)] == ["PA", "AP", "LL"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("covidx:train", "has no labels named covidx: there are nih14"),
        ("nih14:val", "nih14 has the splits test and train, not val"),
        ("none14:train,covidx:train", "has no labels named none14: there are nih14"),
        ("nih14:", "give train, val, test, all, or a labels table's, as nih14:train"),
        (":train", "give train, val, test, all, or a labels table's"),
        ("", "give train, val, test, all"),
        ("train,val", "for several splits together give split='all' and where"),
        ("NIH:train", "'NIH' is no name for labels"),
        ("nothing", "no sample in split 'nothing'"),
        ("nih14:tset/val", "nih14 has the splits test and train, not tset"),
        ("nih14:train/test", "has the parts nih14:train/val"),
    ],
)
def test_a_split_that_is_not_there_is_refused_with_those_that_are(
    labelled: dict[str, Path], manifests: Any, split: str, words: str
) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        Loader(labelled["tars"], split=split, **ON_CPU)
    assert manifests.one_sentence(caught.value)


def test_labels_that_are_not_there_are_refused_with_those_that_are(
    labelled: dict[str, Path], mixed: Callable[..., Path]
) -> None:
    with pytest.raises(ArgumentError, match="has no labels named findings: there are nih14"):
        Loader(labelled["tars"], split=None, **ON_CPU).labels("findings")
    with pytest.raises(ArgumentError, match="has no labels named findings: there are none"):
        Loader(labelled["zarr"], split=None, **ON_CPU).labels("findings")
    loader = Loader(mixed(labelled, tars=1, zarr=1, png=1), split=None, **ON_CPU)
    with pytest.raises(ArgumentError, match="labels named findings: there are nih14 of tars, covidx of png"):
        loader.labels("findings")


def test_a_state_knows_labels_that_have_changed_and_not_those_that_choose_nothing(labelled: dict[str, Path]) -> None:
    before = Loader(labelled["tars"], split="nih14:train", **ON_CPU).state_dict()
    assert before["format"].startswith("1 split=nih14:train labels=")
    write(
        labelled["tars"],
        "nih14",
        ["train", "test", "train", None, "train", "test", "train"],
        Edema=[0, 0, 1, 1, 1, 1, 1],
    )
    Loader(labelled["tars"], split="nih14:train", **ON_CPU).load_state_dict(before)
    write(
        labelled["tars"],
        "nih14",
        ["train", "train", "train", None, "train", "test", "train"],
        Edema=[0, 0, 1, 1, 1, 1, 1],
    )
    after = Loader(labelled["tars"], split="nih14:train", **ON_CPU)
    with pytest.raises(StateError, match=r"the labels that say which samples of .* have changed since the state"):
        after.load_state_dict(before)
    with pytest.raises(StateError, match="was saved with"):
        Loader(labelled["tars"], split="nih14:test", **ON_CPU).load_state_dict(before)


def test_a_step_of_an_official_split_is_replayed_from_its_state(labelled: dict[str, Path], tmp_path: Path) -> None:
    loader = Loader(labelled["tars"], split="nih14:train", **ON_CPU)
    (tmp_path / "state.json").write_text(json.dumps(loader.state_dict()))
    again = from_state(str(labelled["tars"]), tmp_path / "state.json")
    assert rows(again) == [0, 2, 4, 6]
    assert "4 images of step 0" in replay(again, 0, tmp_path / "step.png")
    write(labelled["tars"], "nih14", ["test"] * 6 + ["train"], Edema=[1] * 7)
    with pytest.raises(StateError, match="have changed since"):
        from_state(str(labelled["tars"]), tmp_path / "state.json")


def test_a_split_s_name_may_hold_anything_a_table_says(labelled: dict[str, Path]) -> None:
    write(labelled["tars"], "own", ["train and val", "fold 3: x%", None], Edema=[1, 1, 1])
    for word, row in (("train and val", 0), ("fold 3: x%", 1)):
        loader = Loader(labelled["tars"], split=f"own:{word}", **ON_CPU)
        assert rows(loader) == [row]
        again = Loader(labelled["tars"], split=str(loader.plan_spec.split), **ON_CPU)
        again.load_state_dict(loader.state_dict())
        assert type(loader.plan_spec).read(str(loader.plan_spec)) == loader.plan_spec


# --------------------------------------------------------------------------------------------------------- mixtures


def test_each_member_takes_the_official_split_of_its_table_and_the_others_their_own(
    labelled: dict[str, Path], mixed: Callable[..., Path]
) -> None:
    file = mixed(labelled, tars=1, zarr=1, png=1)
    everything = Loader(file, split=None, **ON_CPU)
    start = {name: where.start for name, where in everything.members.items()}
    hashed = everything.columns("split")["split"].to_pylist()
    by_hash = {name: [row for row in where if hashed[row] == "train"] for name, where in everything.members.items()}
    one = Loader(file, split="nih14:train", **ON_CPU)
    assert rows(one) == sorted([0, 2, 4, 6, *by_hash["zarr"], *by_hash["png"]])
    both = Loader(file, split="nih14:train,covidx:train", **ON_CPU)
    assert rows(both) == sorted([0, 2, 4, 6, *by_hash["zarr"], start["png"]])
    assert {name: n for name, n in both.splits.items() if ":" in name} == {
        "nih14:train": 4,
        "nih14:test": 2,
        "covidx:train": 1,
        "covidx:test": 2,
    }
    mine = Loader(file, split="nih14:train,covidx:test,train", **ON_CPU)
    assert rows(mine) == sorted([0, 2, 4, 6, *by_hash["zarr"], start["png"] + 1, start["png"] + 2])


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("nih14:train,covidx:test", "zarr has none of these labels, and its own splits are train, val, test"),
        ("none:train", "has no labels named none: there are covidx, nih14"),
        ("nih14:fold1,train", "split=nih14:fold1,train: nih14 has the splits test and train, not fold1$"),
        ("nih14:trian", "split=nih14:trian: nih14 has the splits test and train, not trian$"),
        ("nih14:train,covidx:tset", "covidx has the splits test and train, not tset$"),
    ],
)
def test_a_split_that_a_mixture_cannot_have_is_refused(
    labelled: dict[str, Path], mixed: Callable[..., Path], split: str, words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        Loader(mixed(labelled, tars=1, zarr=1, png=1), split=split, **ON_CPU)


def test_a_member_that_has_nothing_of_a_split_is_named(
    labelled: dict[str, Path], mixed: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write(labelled["png"], "covidx", ["train", "test", "val"], Edema=[0, None, 1])
    file, split = mixed(labelled, tars=1, png=1), "nih14:val,covidx:val"
    assert "1, none of tars" in repr(Loader(file, split=split, **ON_CPU))
    assert "none of" not in repr(Loader(file, split="nih14:train,covidx:train", **ON_CPU))
    assert run(["plan", str(file), "--split", split, "--batching", str(PACKED)]) == 0
    assert f"no sample of tars is in the split {split}" in " ".join(capsys.readouterr().out.split())


def test_labels_of_members_are_put_together_and_the_rest_is_unknown(
    labelled: dict[str, Path], mixed: Callable[..., Path]
) -> None:
    write(labelled["png"], "nih14", ["train", "test"], view=["XX", "AP"], age=[3.5, None])
    loader = Loader(mixed(labelled, zarr=1, tars=1, png=1), split=None, **ON_CPU)
    found, tars, png = loader.labels("nih14"), loader.members["tars"], loader.members["png"]
    assert found.columns == ("Edema", "view", "age")
    assert found.categories == {"view": ("AP", "LL", "PA", "XX")}
    assert len(found.values) == len(found.split) == png.stop
    assert not found.known[: tars.start].any()
    alone = Loader(labelled["tars"], split=None, **ON_CPU).labels("nih14")
    here = slice(tars.start, tars.stop)
    assert np.array_equal(found.values[here, 0], alone.values[:, 0])
    assert np.array_equal(found.known[here, :2], alone.known)
    assert np.array_equal(found.has_row[here], alone.has_row)
    assert alone.has_row.any()
    assert not found.has_row[: tars.start].any()
    assert found.split[here].tolist() == alone.split.tolist()

    def words(of: Any, row: int) -> str | None:
        return of.categories["view"][int(of.values[row, 1])] if of.known[row, 1] else None

    assert [words(found, tars.start + row) for row in range(7)] == [words(alone, row) for row in range(7)]
    assert [words(found, png.start + row) for row in range(3)] == ["XX", "AP", None]
    assert found.values[png.start, 2] == 3.5
    assert found.known[png.start : png.start + 3, 2].tolist() == [True, False, False]


def test_a_label_of_several_kinds_is_refused(labelled: dict[str, Path], mixed: Callable[..., Path]) -> None:
    write(labelled["png"], "nih14", ["train"], Edema=["yes"])
    loader = Loader(mixed(labelled, tars=1, png=1), split=None, **ON_CPU)
    with pytest.raises(ArgumentError, match="Edema of the labels nih14 is a binary in tars and a category in png"):
        loader.labels("nih14")


def test_names_of_splits_are_read_as_they_are_written() -> None:
    for text in ("train", "nih14:train", "nih14:train,covidx:test", "nih14:train,train"):
        assert str(Split.read(text)) == text
        assert Split.read(text).official == (text != "train")
    assert Split.named("all") is Split.named(None) is None
