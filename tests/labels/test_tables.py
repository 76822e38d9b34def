"""Tables as people have them: what is guessed is said, what is wrong is one sentence with row, column and remedy."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.errors import ArgumentError
from shardkit.labels import LabelRows
from shardkit.labels.reading.cells import Column, Meaning, listed
from shardkit.labels.reading.tables import TableOptions, read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


def taken(path: Path, **options: Any) -> tuple[LabelRows, list[str]]:
    return read(path, TableOptions(**{"by": "name", **options}))


def values(rows: LabelRows) -> dict[str, list[Any]]:
    return dict(rows.values.to_pydict())


def test_kinds_are_guessed_and_said(folder: Path) -> None:
    table = written(
        folder,
        "image,Edema,Effusion,score,view,PatientID,StudyDate,note\n"
        "a.png,1,1.0,50,AP,P1,20200101,x\nb.png,-1,,60.5,AP,P2,20200102,y\nc.png,,0.0,,,P3,20200103,z\n",
    )
    rows, said = taken(table)
    assert rows.reference.to_pylist() == ["a.png", "b.png", "c.png"]
    assert values(rows) == {
        "Edema": [1, -1, None],
        "Effusion": [1, None, 0],
        "score": [50, 60.5, None],
        "view": ["AP", "AP", None],
    }
    assert rows.kinds == {
        "Edema": "binary",
        "Effusion": "binary",
        "score": "number",
        "view": "category",
    }
    assert said == [
        f"{table}: references are in column image",
        "left out, as they may tell who or when: PatientID, StudyDate, note (take them with --labels)",
        "taken as binary: Edema, Effusion",
        "taken as number: score",
        "taken as category: view (1 values)",
    ]
    assert len(rows.sources) == 1


def test_free_text_and_numbers_of_people_are_left_out_unless_named(folder: Path) -> None:
    lines = "".join(f"{i}.png,{i % 2},{100000 + i},finding number {i}\n" for i in range(80))
    table = written(folder, f"image,Edema,who,what\n{lines}")
    rows, said = taken(table)
    assert list(values(rows)) == ["Edema"]
    assert "who, what" in said[1]
    assert list(values(taken(table, labels=("Edema", "who"))[0])) == ["Edema", "who"]


@pytest.mark.parametrize("cell", ["1.2.840.1.2", "b.png"])
def test_what_tells_who_or_which_is_never_a_label(folder: Path, cell: str) -> None:
    table = written(folder, f"image,Edema\na.png,{cell}\nb.png,normal\nc.png,normal\n")
    with pytest.raises(
        ArgumentError, match=r"column Edema holds (UIDs|texts that its references hold), and what tells"
    ):
        taken(table, labels=("Edema",), kinds={"Edema": "category"})


NIH = "Image Index,Edema,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,Original[Width,Height]"


@pytest.mark.parametrize(
    "column",
    [
        "Patient Age", "PatientAge", "age", "Age_Years", "sex", "Patient Gender", "male", "PatientBirth", "DOB",
        "Alter", "Geschlecht", "Geburtsjahr", "PLZ", "zip_code", "Postcode", "ethnicity", "Race",
    ],
)  # fmt: skip
def test_what_tells_of_a_person_is_taken_only_where_it_is_named(folder: Path, column: str) -> None:
    table = written(folder, f"image,Edema,{column}\na,1,1\nb,0,0\nc,0,1\n")
    rows, said = taken(table)
    assert list(values(rows)) == ["Edema"]
    assert f"left out, as they may tell who or when: {column} (take them with --labels)" in said
    assert values(taken(table, labels=("Edema", column))[0])[column] == [1, 0, 1]
    assert values(taken(table, kinds={column: "number"})[0])[column] == [1, 0, 1]


@pytest.mark.parametrize("column", ["boneage", "Bone Age", "Stage", "Trace", "Massage", "Middle lobe", "Drainage"])
def test_names_that_only_hold_such_a_word_are_labels(folder: Path, column: str) -> None:
    assert list(values(taken(written(folder, f"image,{column}\na,1\nb,0\nc,0\n"))[0])) == [column]


def test_counters_and_parts_of_a_name_with_a_comma_are_left_out(folder: Path) -> None:
    """The header of NIH's table, of which a comma makes two columns."""
    lines = "".join(f"{i}.png,{i % 2},{i % 3},{i},050Y,M,PA,2682,2749\n" for i in range(8))
    rows, said = taken(written(folder, f"{NIH}\n{lines}"), column="Image Index")
    assert list(values(rows)) == ["Edema", "View Position"]
    assert "left out, as parts of one name: Original[Width,Height]" in said
    left = "Follow-up #, Patient ID, Patient Age, Patient Gender"
    assert f"left out, as they may tell who or when: {left} (take them with --labels)" in said


@pytest.mark.parametrize(("slips", "cells"), [(["2"], 12), (["2", "3"], 40), (["7"] * 9, 1000)])
def test_a_slip_among_ones_and_zeros_makes_no_numbers(folder: Path, slips: list[str], cells: int) -> None:
    known = [str(i % 2) for i in range(cells)] + ["", "-1"]
    text = "image,covid\n" + "".join(f"{i}.png,{cell}\n" for i, cell in enumerate([*known, *slips]))
    table, of = written(folder, text), f"{cells + 2:,} of {cells + 2 + len(slips):,}"
    said = (
        f"column covid: {of} cells are 0, 1, -1 or blank; row {cells + 4:,} holds '{slips[0]}': mend it, or say --kind"
    )
    with pytest.raises(ArgumentError, match=said):
        taken(table)
    with pytest.raises(ArgumentError, match=said):
        taken(table, labels=("covid",))
    assert taken(table, kinds={"covid": "number"})[0].kinds == {"covid": "number"}


@pytest.mark.parametrize(
    "cells", [[*range(101)], [0, 1, 2, 0, 1, 1], [0, 1] * 20 + [2, 3] * 20, [0, 1] * 60 + [2] * 6, [0.5, 1] * 20]
)
def test_numbers_stay_numbers(folder: Path, cells: list[float]) -> None:
    lines = "".join(f"{i}.png,{cell}\n" for i, cell in enumerate(cells * 2))
    assert taken(written(folder, f"image,score\n{lines}"))[0].kinds == {"score": "number"}


def test_decimal_commas_are_told(folder: Path) -> None:
    text = "image;Edema;score\n" + "".join(f"{i}.png;{i % 2};{i},5\n" for i in range(9))
    said = "score looks like numbers with decimal commas: write 2.5, not 2,5"
    assert f"left out: {said}" in taken(written(folder, text))[1]
    assert said in taken(written(folder, text), labels=("score",))[1]
    with pytest.raises(ArgumentError, match="row 3, column score looks like a number with a decimal comma, among"):
        taken(written(folder, "image;score\na;2\nb;2,5\nc;3\nd;4\n"))


def test_words_mean_what_the_command_says(folder: Path) -> None:
    table = written(folder, "image,Edema\na,Yes\nb,no\nc,maybe\nd,\n")
    meaning = Meaning.of(["yes"], ["no"], ["maybe"])
    assert values(taken(table, meaning=meaning)[0]) == {"Edema": [1, 0, -1, None]}
    with pytest.raises(ArgumentError, match="'yes' is among two of"):
        Meaning.of(["yes"], ["Yes"])


@pytest.mark.parametrize(
    ("text", "separator", "how"),
    [
        ("image,L\na,Edema|Effusion\nb,Edema\nc,\nd,No Finding\n", None, "separated by '|'"),
        ("image,L\na,Edema; Effusion\nb,Edema\nc,\nd,No Finding\n", None, "separated by ';'"),
        ("image,L\na,Edema/Effusion\nb,Edema\nc,\nd,No Finding\n", "/", "separated by '/'"),
        ("image,L\na,\"['Edema', ' Effusion']\"\nb,\"[' Edema']\"\nc,['']\nd,['No Finding']\n", None, "Python lists"),
    ],
)
def test_lists_in_cells_become_a_label_for_each_item(folder: Path, text: str, separator: str | None, how: str) -> None:
    rows, said = taken(written(folder, text), list_column="L", separator=separator)
    assert values(rows) == {
        "Edema": [1, 1, None, 0],
        "Effusion": [1, 0, None, 0],
        "No Finding": [0, 0, None, 1],
    }
    assert said[1] == f"L: lists, {how}, of 3 findings"
    rows, _ = taken(written(folder, text), list_column="L", separator=separator, labels=("Effusion",))
    assert values(rows) == {"Effusion": [1, 0, None, 0]}


def test_lists_come_with_columns_that_are_named_beside_them(folder: Path) -> None:
    table = written(folder, "image,L,age,sex\na,Edema,5,M\nb,Edema,6,F\n")
    rows, _ = taken(table, list_column="L", kinds={"age": "number"})
    assert values(rows) == {"Edema": [1, 1], "age": [5, 6]}


def test_splits_have_the_usual_names(folder: Path) -> None:
    table = written(folder, "image,Edema,Split\na,1,Training\nb,1,validate\nc,0,TEST\nd,0,\ne,0,fold3\n")
    split = taken(table, split_column="Split")[0].split
    assert split is not None
    assert split.to_pylist() == ["train", "val", "test", None, "fold3"]


@pytest.mark.parametrize("kind", ["tsv", "csv.gz", "parquet", "semicolon", "bom"])
def test_tables_of_other_forms_say_the_same(folder: Path, kind: str) -> None:
    text = "image,Edema,score\na,1,5\nb,-1,\nc,,7.5\n"
    path = folder / f"t.{kind}"
    if kind == "tsv":
        path.write_text(text.replace(",", "\t"))
    elif kind == "csv.gz":
        path.write_bytes(gzip.compress(text.encode()))
    elif kind == "semicolon":
        path.write_text(text.replace(",", ";"))
    elif kind == "bom":
        path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    else:
        table = pa.table({"image": ["a", "b", "c"], "Edema": [1.0, -1.0, float("nan")], "score": [5.0, None, 7.5]})
        pq.write_table(table, path)
    rows, _ = taken(path)
    assert values(rows) == {"Edema": [1, -1, None], "score": [5, None, 7.5]}
    assert rows.reference.to_pylist() == ["a", "b", "c"]


DEFECTS: list[tuple[str, dict[str, Any], str]] = [
    ("image,E\na,yes\n", {"kinds": {"E": "binary"}}, "row 2, column E holds 'yes', and a binary label is 1, 0, -1"),
    ("image,E\na,1\nb,2\n", {"kinds": {"E": "binary"}}, "row 3, column E holds '2', and .* --kind 'E=number'"),
    (
        "image,E\na,1\nb,0\nc,Meyer\n",
        {},
        "row 4, column E holds another text or number among numbers: mend the cell, say what",
    ),
    ("image,E\na,1\nb,0\nc,yes\n", {}, "row 4, column E holds 'yes' among numbers"),
    ("image,E\na,5\nb,x\n", {"kinds": {"E": "number"}}, "row 3, column E holds 'x', which is no number"),
    ("image,E\na,1\nb,inf\n", {"kinds": {"E": "number"}}, "row 3, column E holds another text or number, which is no"),
    ("image,E,E\na,1,1\n", {}, "names two columns E"),
    ("image,Edema\na,1\n", {"labels": ("edema",)}, "has no column edema .--labels.: did you mean Edema"),
    ("image,Edema\na,1\n", {"column": "Images"}, "has no column Images .--column.: did you mean image"),
    ("image,Edema\na,1\n", {"by": "study"}, "usual name for --by study: name it with --column; there are image, Edema"),
    ("image,Edema\na,1\n", {"reader": "rad_id"}, "has no column rad_id .--reader.: there are image, Edema"),
    ("image,Edema\na,1\n", {"split_column": "split"}, "has no column split .--split-column."),
    ("image,L\na,A|B\n", {"list_column": "L", "labels": ("a",)}, "column L never lists 'a': did you mean A"),
    ("image,L\na,A|B\n", {"list_column": "L", "labels": ("xyz",)}, "never lists 'xyz': look at what it lists .2 diff"),
    ("image,L\na,b|c\nb,1\n", {"list_column": "L"}, "the lists name images, studies or people, which must not lie"),
    ("image,E\na,61\nb,1\n", {"kinds": {"E": "binary"}}, "row 2, column E holds another text or number, and a binary"),
    ("image,L\na,\"['A'\"\nb,['A']\n", {"list_column": "L"}, "row 2, column L is no Python list as other cells are"),
    ("image\na\n", {}, "has no column of labels beside its references"),
    ("image,Edema\n", {}, "has no rows below its header"),
    ("image,Edema\na,1\n", {"by": "patient", "column": "image", "level": "image"}, "--level image cannot be with --by"),
]


@pytest.mark.parametrize(("text", "options", "said"), DEFECTS)
def test_a_defect_is_one_sentence_with_row_column_and_remedy(
    folder: Path, text: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ArgumentError, match=said) as raised:
        taken(written(folder, text), **options)
    assert "Meyer" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_latin_1_is_refused_with_what_mends_it(folder: Path) -> None:
    (folder / "t.csv").write_bytes("image,Befund\na,Ödem\n".encode("latin-1"))
    with pytest.raises(ArgumentError, match=r"UTF-8: save it as UTF-8, e\.g\. with `iconv"):
        taken(folder / "t.csv")


def test_words_for_nothing_are_blank(folder: Path) -> None:
    table = written(folder, "image,E,view\na,1,AP\nb,NaN,nan\nc,None,NULL\n")
    rows, _ = taken(table, labels=("E", "view"))
    assert values(rows) == {"E": [1, None, None], "view": ["AP", None, None]}


@pytest.mark.parametrize(
    "header",
    ["Image Index,Finding Label,Bbox [x,y,w,h],,,", "image_id,class_name,x_min,y_min,x_max,y_max"],
)
def test_boxes_come_by_corner_and_size_or_by_two_corners(folder: Path, header: str) -> None:
    table = written(folder, "image,Mass\na.png,1\nb.png,0\n")
    corner = "a.png,Mass,10,20,30,40" if "Bbox" in header else "a.png,Mass,10,20,40,60"
    boxes = written(folder, f"{header}\n{corner}\nb.png,No finding,,,,\n", "boxes.csv")
    rows, _ = taken(table, boxes=str(boxes))
    assert rows.boxes is not None
    assert rows.boxes.to_pylist() == [
        {"reference": "a.png", "label": "Mass", "top": 20, "left": 10, "height": 40, "width": 30}
    ]
    assert len(rows.sources) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,label,x,y,w\na,M,1,2,3\n", r"has no column height \(or bottom\): boxes have columns label, left, top"),
        ("image,x,y,w,h\na,1,2,3,4\n", "has no column label"),
        ("image,label,x,y,w,h\na,M,1,2,x,4\n", "row 2, column w is no number"),
        ("image,label,x,y,w,h\na,M,1,2,,4\n", "row 2 has only part of a box"),
        ("image,label,x,y,w,h\na,M,1,2,3,4\na,M,1,2,0,4\n", "row 3 has a box without area"),
    ],
)
def test_a_defect_of_boxes_is_one_sentence(folder: Path, text: str, said: str) -> None:
    table = written(folder, "image,Mass\na,1\n")
    with pytest.raises(ArgumentError, match=said):
        taken(table, boxes=str(written(folder, text, "boxes.csv")))


@pytest.mark.deep
def test_padchest_s_lists_are_compared_whole(published: Path) -> None:
    """Counted from the published table; "nodule" as a part of texts hits 2,249 "pseudonodule"."""
    from shardkit.sources import tables

    place = published / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"
    table = tables.read(place.read_bytes(), "PadChest", wanted=["Labels"])
    found, how = listed(Column.of("Labels", "PadChest", table["Labels"]), None, None)
    assert how == "Python lists"
    assert found.num_rows == 160_861
    assert not [name for name in found.column_names if name != name.strip() or not name]
    text = table["Labels"].fill_null("").to_pylist()
    by_hand = {name: sum(repr(name) in _stripped(cell) for cell in text) for name in ("nodule", "pseudonodule")}
    assert _ones(found, ["nodule", "pseudonodule"]) == [by_hand["nodule"], by_hand["pseudonodule"]]


def _stripped(cell: str) -> str:
    return cell.replace("' ", "'").replace(" '", "'").replace(" ]", "]")


def _ones(table: pa.Table, names: Sequence[str]) -> list[int]:
    return [sum(value == 1 for value in table[name].to_pylist()) for name in names]
