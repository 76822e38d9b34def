"""Published tables joined by name with samples that stand for their images: counts by hand, readers, splits, boxes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shardkit.errors import ArgumentError
from shardkit.labels.joining.join import joined
from shardkit.labels.reading.tables import TableOptions, read
from shardkit.labels.targets import Targets
from shardkit.privacy import Pseudonyms
from shardkit.sources import tables

NAME = Pseudonyms(bytes(32))


def samples_of(paths: Sequence[str], side: int = 1024, halvings: int = 0) -> tuple[pa.Table, Targets]:
    """A dataset in which each path became a sample."""
    count = len(paths)
    keys = pa.array([f"{i:040d}" for i in range(count)])
    samples = pa.table(
        {
            "key": keys,
            "patient": keys,
            "study": keys,
            "height": np.full(count, side, np.int32),
            "width": np.full(count, side, np.int32),
            "halvings": np.full(count, halvings, np.int8),
        }
    )
    nothing = pa.nulls(count, pa.string())
    reason = pa.array(["ok"] * count)
    everything = np.ones(count, np.bool_)
    return samples, Targets(
        pa.array(paths), reason, nothing, nothing, nothing, nothing, np.arange(count, dtype=np.int32), everything
    )


@pytest.fixture(scope="module")
def nih(labelled: Path) -> Path:
    return labelled / "nih"


def test_the_nih_sample_has_the_counts_of_its_table_its_split_and_its_boxes(nih: Path, tmp_path: Path) -> None:
    with (nih / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        published = list(csv.DictReader(file))
    test = set((nih / "test_list.txt").read_text().split())
    table = tmp_path / "t.csv"
    with table.open("w", newline="") as file:
        rows = [[row["Image Index"], row["Finding Labels"], row["Image Index"] in test] for row in published]
        splits = [[name, findings, "test" if last else "train"] for name, findings, last in rows]
        csv.writer(file).writerows([["Image Index", "Finding Labels", "Split"], *splits])
    options = TableOptions(
        by="name",
        list_column="Finding Labels",
        split_column="Split",
        boxes=str(nih / "BBox_List_2017.csv"),
    )
    taken, _ = read(table, options)
    samples, targets = samples_of([f"images_001/images/{row['Image Index']}" for row in published])
    made, outcome, conflicts, boxed = joined("nih", taken, samples, targets, NAME)
    assert outcome.rows == {"matched": 120, "ambiguous": 0, "unmatched": 0}
    assert made.table.num_rows == 120
    by_hand = Counter(finding for row in published for finding in row["Finding Labels"].split("|"))
    assert {name: pc.sum(made.table[name]).as_py() for name in made.columns} == by_hand
    assert Counter(made.table["split"].to_pylist()) == {"train": 82, "test": 38}
    assert (conflicts, boxed and boxed.table.num_rows, boxed and boxed.unmatched) == ((), 31, 0)


def test_boxes_follow_an_image_that_was_halved_and_end_at_its_edge(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,Mass\na.png,1\n")
    boxes = tmp_path / "b.csv"
    boxes.write_text(
        "image,label,left,top,width,height\n"
        "a.png,Mass,100,200,300,400\na.png,Mass,900,-10,300,60\na.png,Mass,2000,2000,5,5\nb.png,Mass,1,1,1,1\n"
    )
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="name", boxes=str(boxes)))
    samples, targets = samples_of(["a.png"], 512, 1)
    _, _, _, boxed = joined("x", taken, samples, targets, NAME)
    assert boxed is not None
    sides = [tuple(row.values())[2:] for row in boxed.table.to_pylist()]
    assert sides == [(0, 450, 25, 62), (100, 50, 200, 150)]
    assert (boxed.unmatched, boxed.outside, boxed.cut) == (1, 1, 1)


@pytest.fixture(scope="module")
def readings(published: Path) -> dict[tuple[str, str], set[str]]:
    """Of VinDr-CXR: what each of three readers found in each of 15,000 images."""
    table, _ = tables.read_place(published / "vinbigdata-train.csv.gz", "--table")
    found: dict[tuple[str, str], set[str]] = {}
    columns = (table[name].to_pylist() for name in ("image_id", "rad_id", "class_name"))
    for image, reader, finding in zip(*columns, strict=True):
        found.setdefault((image, reader), set()).add(finding)
    return found


@pytest.mark.deep
def test_several_readers_need_a_vote_and_a_majority_of_vindr_is_as_published(
    readings: dict[tuple[str, str], set[str]], tmp_path: Path
) -> None:
    rows: list[list[Any]] = [
        [image, reader, int("Lung Opacity" in found)] for (image, reader), found in readings.items()
    ]
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image_id", "rad_id", "Lung Opacity"], *rows])
    by_image: dict[str, list[int]] = {}
    for image, _, value in rows:
        by_image.setdefault(str(image), []).append(int(value))
    assert (len(rows), len(by_image)) == (45_000, 15_000)
    samples, targets = samples_of([f"train/{image}.dicom" for image in by_image])
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="path", reader="rad_id"))
    said = r"rows [\d,]+ and [\d,]+ are of one image, and differ in Lung Opacity: say what counts with --vote majority"
    with pytest.raises(ArgumentError, match=said):
        joined("vindr", taken, samples, targets, NAME)
    counted: dict[Any, int] = {
        "majority": sum(sum(votes) >= 2 for votes in by_image.values()),
        "any": sum(any(votes) for votes in by_image.values()),
        "all": sum(all(votes) for votes in by_image.values()),
        "first": sum(votes[0] for votes in by_image.values()),
    }
    assert counted["majority"] == 547
    for vote, count in counted.items():
        taken, _ = read(tmp_path / "t.csv", TableOptions(by="path", reader="rad_id", vote=vote))
        made, outcome, _, _ = joined("vindr", taken, samples, targets, NAME)
        assert (made.table.num_rows, outcome.rows["matched"]) == (15_000, 45_000)
        assert pc.sum(made.table["Lung Opacity"]).as_py() == count
        assert made.description.vote == vote


VOTES = [
    ("majority", [1, 1, 0], 1),
    ("majority", [1, 0, -1], None),
    ("majority", [1, None, None], 1),
    ("majority", [1, 0, None], None),
    ("majority", [-1, -1, 1, 1], None),
    ("any", [0, -1, 1], 1),
    ("any", [0, -1, None], -1),
    ("any", [0, None], 0),
    ("any", [None, None], None),
    ("all", [1, 1], 1),
    ("all", [1, -1], -1),
    ("all", [1, 0, -1], 0),
    ("all", [1, None], None),
    ("first", [0, 1], 0),
    ("first", [None, 1], None),
    (None, [1, 1, 1], 1),
    (None, [None, None], None),
]


@pytest.mark.parametrize(("vote", "votes", "decided"), VOTES)
def test_votes_decide_as_they_say(tmp_path: Path, vote: Any, votes: list[int | None], decided: int | None) -> None:
    lines = "".join(f"b,{'' if v is None else v},x\n" for v in votes)
    (tmp_path / "t.csv").write_text(f"image,E,view\na,1,x\n{lines}c,0,x\n")
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="name", vote=vote))
    made, _, _, _ = joined("x", taken, *samples_of(["a", "b", "c"]), NAME)
    assert made.table["E"].to_pylist() == [1, decided, 0]


def test_a_vote_of_binary_labels_is_refused_for_others(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("image,score\na,5\na,6\n")
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="name", vote="any"))
    with pytest.raises(ArgumentError, match=r"rows 2 and 3 .* differ in score: --vote any is for binary labels"):
        joined("x", taken, *samples_of(["a"]), NAME)


PATHS: list[tuple[str, list[str], str]] = [
    ("train/p1/s1/view1.jpg", ["train/p1/s1/view1.jpg", "train/p2/s1/view1.jpg"], "matched"),
    ("CheXpert-v1.0/train/p1/s1/view1.jpg", ["train/p1/s1/view1.jpg", "train/p2/s1/view1.jpg"], "matched"),
    ("p1/s1/view1.jpg", ["train/p1/s1/view1.jpg", "train/p2/s1/view1.jpg"], "matched"),
    ("view1.jpg", ["train/p1/s1/view1.jpg", "train/p2/s1/view1.jpg"], "ambiguous"),
    ("test/1.png", ["train/1.png"], "unmatched"),  # another folder is another file
    ("s1/view1", ["train/p1/s1/view1.jpg"], "matched"),
    ("1.2.3.4", ["a/1.2.3.4.dcm"], "matched"),
    ("x.dcm", ["a/x"], "matched"),
    ("x.png", ["a/x.dcm"], "unmatched"),
    ("x", ["a/x", "b/x.dcm"], "ambiguous"),
    ("a/x", ["a/x", "b/x.dcm"], "matched"),
    ("exports/inner/x.dcm", ["exports/a.zip/inner/x.dcm"], "matched"),
    ("exports/a.zip/inner/x.dcm", ["exports/a.zip/inner/x.dcm"], "matched"),
    ("x.dcm", ["exports/a.tar.gz/inner/x.dcm", "exports/y.dcm"], "matched"),
    ("v_flair.nii.gz", ["a/v_flair.nii.gz#000", "a/v_flair.nii.gz#001"], "matched"),
    ("v_flair", ["a/v_flair.nii.gz#000", "a/v_flair.nii.gz#001"], "matched"),
    ("v_flair.nii.gz#001", ["a/v_flair.nii.gz#001", "b/w_flair.nii.gz#001"], "matched"),
    ("v.nii.gz", ["a/v.nii.gz#000", "b/v.nii.gz#000"], "ambiguous"),
]


@pytest.mark.parametrize(("reference", "paths", "fate"), PATHS)
def test_a_path_fits_where_one_is_the_other_s_end(tmp_path: Path, reference: str, paths: list[str], fate: str) -> None:
    (tmp_path / "t.csv").write_text(f"path,E\n{reference},1\n")
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="path"))
    made, outcome, _, _ = joined("x", taken, *samples_of(paths), NAME)
    assert outcome.rows[fate] == 1
    assert bool(made.table.num_rows) == (fate == "matched")


def test_a_slice_of_a_volume_has_its_own_row_and_the_volume_s_goes_to_all(tmp_path: Path) -> None:
    paths = ["v.nii.gz#000", "v.nii.gz#001", "v.nii.gz#002"]
    (tmp_path / "t.csv").write_text("path,E\nv.nii.gz,1\n")
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="path"))
    made, _, _, _ = joined("x", taken, *samples_of(paths), NAME)
    assert made.table["E"].to_pylist() == [1, 1, 1]
    (tmp_path / "t.csv").write_text("path,E\nv.nii.gz#001,0\n")
    taken, _ = read(tmp_path / "t.csv", TableOptions(by="path"))
    made, _, _, _ = joined("x", taken, *samples_of(paths), NAME)
    assert made.table["E"].to_pylist() == [0]
