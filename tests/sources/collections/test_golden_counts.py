"""Counts of the published tables, which lie in torchxrayvision's wheel: none of them is copied here."""

import shutil
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections import COLLECTIONS, Tree
from shardkit.sources.collections.padchest import listed
from shardkit.sources.facts_table import made, read_facts
from shardkit.sources.files import FileTree

Published = Callable[..., Tree]


def _tables() -> Path:
    spec = find_spec("torchxrayvision")  # not imported: that loads torch and models
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations))) / "data"


@pytest.fixture
def published(tmp_path: Path) -> Published:
    """Make a tree of some of the wheel's tables: `published(**{name there: name in the tree})`."""

    def make(**names: str) -> Tree:
        for there, here in names.items():
            shutil.copyfile(next(_tables().glob(f"{there}*.gz")), tmp_path / here)
        files = FileTree(str(tmp_path))
        return Tree(files, files.list())

    return make


def _facts(name: str, tree: Tree) -> pa.Table:
    columns = {
        key: pa.array(cells) if isinstance(cells, list) else cells
        for key, cells in COLLECTIONS[name].facts(tree).items()
    }
    return made(name, columns).table


def _positive(rows: LabelRows, label: str) -> int:
    return int(pc.sum(pc.equal(rows.values[label], 1)).as_py())


def _majority(rows: LabelRows, label: str) -> int:
    """Return how many images most of their readers call positive."""
    of = rows.reference.dictionary_encode().indices.to_numpy()
    readers = np.bincount(of)
    return int((2 * np.bincount(of, rows.values[label].to_numpy()) > readers).sum())


def test_nih_has_its_published_images_patients_findings_and_boxes(published: Published) -> None:
    tree = published(Data_Entry_2017_v2020="Data_Entry_2017_v2020.csv.gz", BBox_List_2017="BBox_List_2017.csv.gz")
    facts, rows = _facts("nih14", tree), COLLECTIONS["nih14"].labels(tree)["nih14"]
    assert (facts.num_rows, len(facts["patient"].unique())) == (112_120, 30_805)
    assert _positive(rows, "No Finding") == 60_361
    assert _positive(rows, "Hernia") == 227
    assert facts["age"].null_count == 0
    assert rows.boxes is not None
    assert (rows.boxes.num_rows, len(rows.boxes["reference"].unique())) == (984, 880)
    assert len(rows.boxes["label"].unique()) == 8
    assert set(rows.boxes["label"].unique().to_pylist()) <= set(rows.values.column_names)


@pytest.mark.deep
def test_chexpert_keeps_uncertain_and_blank_apart_so_that_a_recipe_can_decide(published: Published) -> None:
    tree = published(chexpert_train="train.csv")
    facts, rows = _facts("chexpert", tree), COLLECTIONS["chexpert"].labels(tree)["chexpert"]
    frontal = np.array(["frontal" in path for path in rows.reference.to_pylist()])
    assert (facts.num_rows, len(facts["patient"].unique()), int(frontal.sum())) == (223_414, 64_540, 191_027)
    assert Counter(facts["view"].to_pylist()) == {"AP": 161_590, "PA": 29_420, "LATERAL": 32_387, "LL": 16, "RL": 1}
    assert facts["age"].null_count == 3
    expected = {"Edema": 61_493, "Atelectasis": 59_583, "Cardiomegaly": 23_385, "Consolidation": 12_983}
    expected["Pleural Effusion"] = 76_899
    for label, count in expected.items():
        values = rows.values[label].filter(pa.array(frontal))
        ones = pc.equal(values, 1)
        if label in ("Edema", "Atelectasis"):  # U-ones, as Medical MAE has it
            ones = pc.or_(ones, pc.equal(values, -1))
        assert pc.sum(ones).as_py() == count, label
    assert set(rows.values["No Finding"].unique().to_pylist()) == {1, None}


@pytest.mark.deep
def test_images_of_a_chexpert_study_have_equal_labels(published: Published) -> None:
    rows = COLLECTIONS["chexpert"].labels(published(chexpert_train="train.csv"))["chexpert"]
    table = rows.values.append_column("study", [[path.rpartition("/")[0] for path in rows.reference.to_pylist()]])
    assert len(table.group_by(table.column_names).aggregate([])) == len(table["study"].unique())


@pytest.mark.deep
def test_padchest_labels_are_compared_whole_and_blank_ones_stay_blank(published: Published) -> None:
    tree = published(PADCHEST="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv")
    facts, rows = _facts("padchest", tree), COLLECTIONS["padchest"].labels(tree)["padchest"]
    assert (facts.num_rows, len(facts["patient"].unique())) == (160_861, 67_625)
    assert Counter(facts["bits"].to_pylist()) == {12: 144_051, 10: 16_810}
    findings = [name for name in rows.values.column_names if rows.values[name].type == pa.int8()]
    assert len(findings) == 193  # 194 with the empty string, which is none
    assert rows.values["nodule"].null_count == 103
    assert Counter(rows.values["MethodLabel"].to_pylist()) == {"RNN_model": 121_808, "Physician": 39_053}
    assert (_positive(rows, "nodule"), _positive(rows, "pseudonodule")) == (3_748, 2_241)  # which 2,249 times is said
    _check_krones(rows)


def _check_krones(rows: LabelRows) -> None:
    """Krones' subset: frontal, projection by manual review, folder 0; labels of its percentages."""
    table = rows.values.append_column("folder", [[path.partition("/")[0] for path in rows.reference.to_pylist()]])
    chosen = table.filter(
        (pc.field("folder") == "0")
        & pc.field("Projection").isin(["PA", "AP"])
        & (pc.field("MethodProjection") == "Manual review of DICOM fields")
    )
    findings = [name for name in rows.values.column_names if rows.values[name].type == pa.int8()]
    groups = [["cardiomegaly"], ["consolidation"], ["pulmonary edema"]]
    groups += [[name for name in findings if finding in name] for finding in ("atelectasis", "pleural effusion")]
    percent = []
    for names in groups:
        present = np.any([pc.equal(chosen[name], 1).fill_null(fill_value=False) for name in names], axis=0)
        percent.append(round(100 * present.sum() / chosen.num_rows, 2))
    assert chosen.num_rows == 1_861
    assert percent == [8.70, 0.70, 0, 5.59, 2.85]


def test_lists_as_text_have_leading_spaces_and_empty_strings() -> None:
    assert listed("['pacemaker', ' pleural effusion', '']") == ["pacemaker", "pleural effusion"]
    assert listed("[]") == []
    assert listed("nan") is None


@pytest.mark.deep
def test_majority_of_three_readers_is_vindrs_547_lung_opacities(published: Published) -> None:
    rows = COLLECTIONS["vindr-cxr"].labels(published(vinbigdata="train.csv"))["vindr-cxr"]
    assert (len(rows.reference), len(set(rows.reference.to_pylist())), rows.vote) == (45_000, 15_000, "majority")
    assert _majority(rows, "Lung Opacity") == 547
    assert rows.boxes is not None
    assert not set(rows.boxes["label"].unique().to_pylist()) & {"No finding"}


def test_a_published_table_of_another_shape_is_read_by_a_map_of_its_columns() -> None:
    place = next(_tables().glob("kaggle_stage_2_train_images_dicom_headers*.gz"))
    columns = {"path": "Filename", "patient": "PatientID", "view": "ViewPosition", "sex": "PatientSex"}
    columns |= {"age": "PatientAge", "modality": "Modality", "body_part": "BodyPartExamined"}
    found = read_facts(place, columns)
    assert found.table.num_rows == 26_684
    assert Counter(found.table["view"].to_pylist()) == {"PA": 14_511, "AP": 12_173}
    assert found.table["age"].null_count == 5  # 148 to 155 years
    unused, ages = found.remarks
    assert "columns that are not used: " in unused
    assert "column PatientAge: cells without a known meaning" in ages
