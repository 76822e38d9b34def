"""Facts by path: what cells mean, and which row is about which file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardkit.errors import ArgumentError
from shardkit.sources.facts_join import Match, as_numbers, match
from shardkit.sources.facts_table import column_map, made, read_facts


@pytest.mark.parametrize(
    ("fact", "cells"),
    [
        (
            "age",
            {
                "058Y": "058Y",
                "58": "058Y",
                "58.0": "058Y",
                "058M": "058M",
                "0.5": "006M",
                "90+": "090Y",
                "7 weeks": "007W",
            },
        ),
        ("age", {"NaN": None, "411Y": None, "-3": None, "old": None, "1200D": "171W"}),
        ("sex", {"Male": "M", "f": "F", "FEMALE": "F", "O": "O", "1": None, "unknown": None}),
        ("view", {"AP": "AP", "antero-posterior": "AP", "Posteroanterior": "PA", "L": "LATERAL", "left lateral": "LL"}),
        ("view", {"AP_horizontal": "AP", "frontal": None, "lat": "LAT"}),
        ("body_part", {"Chest": "CHEST", "XR_WRIST": None, "wrist": "WRIST"}),
        ("laterality", {"left": "L", "R": "R", "bilateral": "B", "x": None}),
        ("modality", {"dx": "DX", "photo": None}),
        ("bits", {"12": 12, "12.0": 12, "0": None, "17": None, "many": None}),
        ("spacing_row", {"0.143": 0.143, "0": None, "inf": None, "a": None}),
        (
            "split",
            {"Training": "train", "valid": "val", "validation": "val", "TEST": "test", "fold3": "fold3", "Mr X": None},
        ),
        ("patient", {" 61": "61", "NA": None, "p 7": "p 7"}),
    ],
)
def test_cells_become_the_words_of_dicom_or_blank(fact: str, cells: dict[str, object], tmp_path: Path) -> None:
    place = tmp_path / "facts.csv"
    place.write_text(f"path,{fact.upper()}\n" + "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells)))
    found = read_facts(place)
    assert found.table[fact].to_pylist() == list(cells.values())


def test_what_is_not_understood_is_counted_and_not_shown() -> None:
    found = made("t.csv", {"path": pa.array(["a", "b", "c"]), "sex": pa.array(["M", "SECRET", "?"])})
    assert found.remarks == (
        "t.csv, column sex: cells without a known meaning count as blank: 1 (first in row 3); known are M, F or O",
    )


def test_a_row_without_a_path_and_a_table_without_one_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "facts.csv"
    place.write_text("Radiograph,sex\na.png,M\n,F\n")
    with pytest.raises(
        ArgumentError, match=r"facts\.csv has no column path: .*--facts-columns path=COLUMN; there are Radiograph, sex$"
    ):
        read_facts(place)
    place.write_text("Image,sex\na.png,M\n,F\n")
    with pytest.raises(ArgumentError, match=r"facts\.csv, row 3, column Image is empty"):
        read_facts(place, {"path": "Image"})
    with pytest.raises(ArgumentError, match="no column Who, which --facts-columns names for patient"):
        read_facts(place, {"path": "Image", "patient": "Who"})


@pytest.mark.parametrize("column", ["Path", "file", "FileName", "image", "image_id", "Image Index"])
def test_paths_may_be_in_a_column_of_another_usual_name_which_is_said(column: str, tmp_path: Path) -> None:
    place = tmp_path / "facts.csv"
    place.write_text(f"sex,{column}\nM,a.png\n")
    found = read_facts(place)
    assert found.table["path"].to_pylist() == ["a.png"]
    said = () if column == "Path" else (f"{place}: paths are in column {column}",)
    assert found.remarks == said
    assert read_facts(place, {"path": column}).remarks == ()


def test_columns_that_are_not_used_are_named_with_what_each_may_be(tmp_path: Path) -> None:
    place = tmp_path / "facts.csv"
    place.write_text("path,patiant,StudyID,foo,sex\na.png,1,2,3,M\n")
    said = f"{place}: columns that are not used: patiant (patient?), StudyID (study?), foo"
    assert read_facts(place).remarks == (said,)
    used = read_facts(place, {"patient": "patiant"}).remarks
    assert used == (f"{place}: columns that are not used: StudyID (study?), foo",)


@pytest.mark.parametrize("text", ["path", "path=", "who=Name", "path=a,path=b"])
def test_a_map_of_columns_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="--facts-columns"):
        column_map(text)
    assert column_map(" path = Image Index,patient=Patient ID") == {"path": "Image Index", "patient": "Patient ID"}


def _match(rows: list[str], files: list[str], facts: list[int] | None = None, root: str = "") -> Match:
    numbers = np.array(facts if facts is not None else range(len(rows)), np.int64)
    return match(pa.array(rows, pa.string()), numbers, pa.array([f.encode() for f in files], pa.binary()), root)


@pytest.mark.parametrize(
    ("row", "files", "root"),
    [
        ("a/1.png", ["a/1.png", "b/1.png"], ""),
        ("./a/1.png", ["a/1.png", "b/1.png"], ""),
        ("a\\1.png", ["a/1.png", "b/1.png"], ""),
        ("/data/x/a/1.png", ["a/1.png", "b/1.png"], "/data/x"),
        ("/mnt/other/a/1.png", ["a/1.png", "b/1.png"], ""),
        ("1.png", ["deep/down/1.png", "1.png.txt"], ""),
        ("elsewhere/1.png", ["a/1.png", "a/2.png"], ""),
        ("a/1", ["a/1.png", "b/1.png"], ""),
        ("1.dicom", ["a/1.png", "a/1.json"], ""),
        ("1.2.840.1", ["a/1.2.840.1.dcm", "a/1.2.840.dcm"], ""),
        ("x", ["a/x.nii.gz", "a/x_seg.nii.gz"], ""),
    ],
)
def test_a_row_is_about_the_file_of_its_path_or_else_of_its_unique_name(row: str, files: list[str], root: str) -> None:
    found = _match([row], files, root=root)
    assert found.row.tolist() == [0, -1]
    assert not found.ambiguous.any()


def test_a_name_that_is_not_unique_names_no_file_of_another_folder() -> None:
    """Rows of images that were not downloaded, beside others of the same names."""
    rows = [f"CheXpert/train/{patient}/view1.jpg" for patient in ("p1", "p2", "p3")]
    found = _match(rows, ["train/p1/view1.jpg", "valid/p9/view1.jpg", "valid/p8/view1.jpg"])
    assert found.row.tolist() == [0, -1, -1]
    assert found.rows == {"matched": 1, "ambiguous": 0, "unmatched": 2}
    assert not found.ambiguous.any()


def test_rows_of_one_file_are_one_if_they_agree_and_ambiguous_if_not() -> None:
    assert _match(["a/1.png", "1.png"], ["a/1.png"], [5, 5]).rows["matched"] == 1  # the whole path was met first
    agreed = _match(["1.png", "1.png"], ["a/1.png"], [5, 5])
    assert (agreed.row.tolist(), agreed.rows["matched"]) == ([0], 2)
    differing = _match(["1.png", "1.png"], ["a/1.png"], [5, 6])
    assert (differing.row.tolist(), differing.ambiguous.tolist()) == ([-1], [True])
    assert differing.rows == {"matched": 0, "ambiguous": 2, "unmatched": 0}


def test_a_row_that_names_several_files_is_ambiguous_with_all_of_them() -> None:
    found = _match(["1.png", "2.png"], ["a/1.png", "b/1.png", "a/2.png"])
    assert (found.ambiguous.tolist(), found.row.tolist()) == ([True, True, False], [-1, -1, 1])
    assert (found.rows["ambiguous"], found.files["ambiguous"]) == (1, 2)


_NAMES = st.lists(st.sampled_from(["a", "b", "c", "a.png", "b.png", "a.dcm", "b.jpg"]), min_size=1, max_size=3)
_PATHS = st.lists(_NAMES.map("/".join), max_size=8)


@given(rows=_PATHS, files=_PATHS.map(lambda paths: list(dict.fromkeys(paths))), data=st.data())
def test_every_row_and_every_file_ends_in_one_of_three_and_a_match_is_always_an_end_of_a_path(
    rows: list[str], files: list[str], data: st.DataObject
) -> None:
    facts = data.draw(st.lists(st.integers(0, 2), min_size=len(rows), max_size=len(rows)))
    found = _match(rows, files, facts)
    assert sum(found.rows.values()) == len(rows)
    assert sum(found.files.values()) == len(files)
    assert (found.row >= 0).sum() == found.files["matched"]
    for file, row in zip(files, found.row.tolist(), strict=True):
        if row >= 0:
            stems = [path.rpartition("/")[2].partition(".")[0] for path in (file, rows[row])]
            assert stems[0] == stems[1]
        if file in rows:  # its own path is there: nothing else decides
            said = {facts[i] for i, path in enumerate(rows) if path == file}
            assert row == (rows.index(file) if len(said) == 1 else -1)


def test_rows_are_numbered_by_what_they_say() -> None:
    table = pa.table({"a": ["x", "x", None, "x"], "b": [1, 1, 1, None]})
    numbers = as_numbers(table).tolist()
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3
    assert as_numbers(pa.table({"a": ["x"]}).select([])).tolist() == [0]
