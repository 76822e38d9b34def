"""A tree in the shape of each collection, with its traps, becomes a dataset whose every count is known."""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shardkit import labels
from shardkit.build import isolation
from shardkit.build.outcome import Outcome
from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.errors import ArgumentError
from shardkit.sources.collections import COLLECTIONS, Tree
from shardkit.sources.files import FileTree
from shardkit.storage import Store
from shardkit.synthetic.collections import TREES, make_collection
from shardkit.synthetic.tree_writer import TreeWriter


@dataclass(frozen=True)
class Built:
    """A dataset of a collection, its ledger joined to its samples and labels."""

    outcome: Outcome
    rows: dict[str, dict[str, Any]]
    """Path -> verdict, reason, and what manifest and labels say of its sample."""
    boxes: list[dict[str, Any]]

    def of(self, column: str) -> dict[str, Any]:
        """Name of the file -> what it has, of samples; None also for labels of which a sample has none."""
        return {p.rpartition("/")[2]: row.get(column) for p, row in self.rows.items() if row["verdict"] == "written"}

    def verdicts(self) -> Counter[str]:
        """Return how many files have each verdict or reason."""
        return Counter("written" if row["verdict"] == "written" else row["reason"] for row in self.rows.values())


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """What runs all builds here: the children that it starts stay, and load their libraries once."""
    with ThreadPoolExecutor(1) as threads:
        yield threads
        isolation.close_children()


def _build(name: str, place: Path, executor: Executor | None = None, **options: Any) -> Built:
    """Build what lies in `place/tree`."""
    config = BuildConfig.of(
        str(place / "tree"),
        str(place / "out"),
        place / "private",
        collection=name,
        workers=1,
        demographics=True,
        **options,
    )
    outcome = build(config, executor=executor)
    samples = {row["key"]: row for row in pq.read_table(place / "out" / "manifest.parquet").to_pylist()}
    found = labels.read(Store(str(place / "out")), name)
    official = {row.pop("key"): {"official": row.pop("split"), **row} for row in found.table.to_pylist()}
    rows = {}
    for row in pq.read_table(place / "private" / "ledger.parquet").to_pylist():
        mine = samples.get(row["key"], {}) | official.get(row["key"], {})
        rows[row["path"]] = {**mine, "verdict": row["verdict"], "reason": row["reason"]}
    return Built(outcome, rows, [] if found.boxes is None else found.boxes.to_pylist())


@pytest.fixture
def built(tmp_path: Path, executor: Executor) -> Callable[..., Built]:
    """Make and build the tree of a collection."""

    def make(name: str, **options: Any) -> Built:
        make_collection(name, tmp_path / "tree")
        return _build(name, tmp_path, executor, **options)

    return make


def test_nih14_has_patients_labels_boxes_and_the_official_split(built: Callable[..., Built]) -> None:
    found = built("nih14")
    assert found.verdicts() == {"written": 6, "not_in_collection": 5}
    assert len(set(found.of("patient").values())) == 5  # of four patients, and one image that the table lacks
    assert found.of("age")["00000003_000.png"] == "0-4"  # nine months
    assert found.of("age")["00000002_000.png"] is None  # 411 years
    assert found.of("spacing_row")["00000001_000.png"] is None
    assert found.of("view")["00000002_000.png"] == "AP"
    assert "equal_channels" in found.of("flags")["00000004_000.png"]
    assert found.of("official") == {
        "00000001_000.png": "train",
        "00000001_001.png": "train",
        "00000002_000.png": "train",
        "00000003_000.png": "test",
        "00000004_000.png": "test",
        "00000030_001.png": None,
    }
    both = {name: (row.get("Cardiomegaly"), row.get("Emphysema")) for name, row in found.rows.items()}
    assert both["images_001/images/00000001_001.png"] == (1, 1)
    assert both["images_001/images/00000002_000.png"] == (0, 0)
    assert both["images_002/images/00000030_001.png"] == (None, None)
    boxes = [(box["label"], box["top"], box["left"], box["height"], box["width"]) for box in found.boxes]
    assert sorted(boxes) == [("Infiltration", 20.25, 9.5, 40, 30), ("Mass", 2, 1, 4, 3)]
    said = "nih14: 6 rows by the files that they name: 5 matched, 0 ambiguous, 1 unmatched; files without a row: 1"
    assert said in found.outcome.told
    assert found.outcome.told[-1] == "flags: equal_channels 1, missing_patient_id 1"
    assert found.outcome.told[:2] == ("4 tables of nih14 were read", "6 of the 112,120 images of nih14 are here")


@pytest.mark.deep
def test_chexpert_keeps_uncertain_and_blank_and_knows_laterals_by_their_names(built: Callable[..., Built]) -> None:
    found = built("chexpert")
    assert found.verdicts() == {"written": 6, "not_in_collection": 3}
    first = found.rows["CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg"]
    assert (first["view"], first["Edema"], first["Fracture"], first["Cardiomegaly"]) == ("LATERAL", -1, 0, None)
    unknown = found.rows["CheXpert-v1.0-small/train/patient00002/study1/view1_frontal.jpg"]
    assert (unknown["view"], unknown["sex"], unknown["age"], unknown["official"]) == ("LL", None, None, "train")
    tested = found.rows["CheXpert-v1.0-small/test/patient64741/study1/view1_frontal.jpg"]
    assert (tested["view"], tested["Edema"], tested["official"]) == (None, 1, "test")
    assert len({row["study"] for row in found.rows.values() if "study" in row}) == 5


def test_mimic_gives_labels_of_a_study_to_all_its_images_by_name_not_place(built: Callable[..., Built]) -> None:
    found = built("mimic-cxr-jpg")
    assert found.verdicts() == {"written": 4, "not_in_collection": 3}
    assert found.of("No Finding") == {
        "02aa804e-bde0afdd.jpg": 1,
        "174413ec-4ec4c1f7.jpg": 1,
        "2a2277a9-b0ded155.jpg": None,
        "68b5c4b1-227d0485.jpg": None,
    }
    assert found.of("Atelectasis")["68b5c4b1-227d0485.jpg"] == -1
    assert found.of("official")["2a2277a9-b0ded155.jpg"] == "train"
    assert Counter(found.of("official").values()) == {"train": 3, "val": 1}
    assert found.of("view")["2a2277a9-b0ded155.jpg"] is None


@pytest.mark.deep
def test_padchest_has_its_bits_its_whole_labels_and_a_broken_file(built: Callable[..., Built]) -> None:
    found = built("padchest")
    assert found.verdicts() == {"written": 3, "truncated": 1, "not_in_collection": 1}
    assert found.of("bits") == {"11_aa.png": 12, "12_bb.png": 12, "13_cc.png": 10}
    assert found.of("nodule") == {"11_aa.png": 0, "12_bb.png": 1, "13_cc.png": None}
    assert found.of("view") == {"11_aa.png": "PA", "12_bb.png": "LATERAL", "13_cc.png": "AP"}
    assert found.of("age") == {"11_aa.png": "80-84", "12_bb.png": "80-84", "13_cc.png": None}
    assert found.of("modality")["13_cc.png"] == "DX"
    assert found.of("MethodLabel")["13_cc.png"] == "RNN_model"


def test_vindr_is_taken_without_modality_and_by_the_majority_of_its_readers(built: Callable[..., Built]) -> None:
    found = built("vindr-cxr")
    assert found.verdicts() == {"written": 3, "not_in_collection": 4}
    values = {
        name[31]: row for name, row in ((p.rpartition("/")[2], r) for p, r in found.rows.items()) if row.get("key")
    }
    assert [values[k]["Lung Opacity"] for k in "123"] == [1, 0, 0]
    assert [values[k]["Nodule/Mass"] for k in "123"] == [0, 0, 1]
    assert [values[k]["official"] for k in "123"] == ["train", "train", "test"]
    assert sorted((box["label"], box["height"], box["width"]) for box in found.boxes) == [
        ("Lung Opacity", 40, 30),
        ("Nodule/Mass", 3, 2),
    ]
    assert "samples of unknown patients: 3; images of one may lie in different splits" in found.outcome.told


def test_covidx_reads_names_with_spaces_and_keeps_the_source(built: Callable[..., Built]) -> None:
    found = built("covidx")
    assert found.verdicts() == {"written": 5, "not_in_collection": 2}
    assert {
        name: (row["class"], row["source"], row["official"]) for name, row in found.rows.items() if row.get("key")
    } == {
        "train/1-s2.0-S1684-001.jpg": ("COVID-19", "cohen", "train"),
        "train/COVID (100).png": ("COVID-19", "sirm", "train"),
        "train/2b9a2d9d.png": ("normal", "rsna", "train"),
        "test/4c1f.png": ("pneumonia", "rsna", "test"),
        "test/MIDRC-7 a.png": ("COVID-19", "ricord", "test"),
    }


@pytest.mark.deep
def test_covid19_radiography_leaves_masks_out_though_they_have_the_same_names(built: Callable[..., Built]) -> None:
    found = built("covid19-radiography")
    assert found.verdicts() == {"written": 5, "not_in_collection": 6}
    assert Counter(found.of("class").values()) == {"COVID": 2, "Viral Pneumonia": 2, "Normal": 1}


def test_brats20_slices_have_their_subjects_labels_and_masks_stay_out(built: Callable[..., Built]) -> None:
    found = built("brats20", slices="axis=2,from=0,to=4")
    assert found.verdicts() == {"written": 12, "empty_slice": 4, "not_in_collection": 4}
    assert len(set(found.of("patient").values())) == 3
    assert set(found.of("modality").values()) == {"MR"}
    graded = {path: (row["grade"], row["survival_days"]) for path, row in found.rows.items() if row.get("key")}
    assert graded["BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz#001"] == ("HGG", 289)
    assert graded["BraTS20_Training_355/BraTS20_Training_355_t1ce.nii#003"] == ("LGG", None)
    assert Counter(found.of("official").values()) == {"train": 9, "val": 3}


@pytest.mark.deep
def test_mura_labels_studies_and_leaves_out_what_macos_left(built: Callable[..., Built]) -> None:
    found = built("mura")
    assert found.verdicts() == {"written": 4, "not_in_collection": 5}
    assert {path.split("/")[2]: row["abnormal"] for path, row in found.rows.items() if row.get("key")} == {
        "XR_WRIST": 1,
        "XR_FINGER": 0,
        "XR_HAND": 0,
    }
    assert Counter(row["official"] for row in found.rows.values() if row.get("key")) == {"train": 3, "val": 1}
    assert {row["body_part"] for row in found.rows.values() if row.get("key")} == {"WRIST", "HAND"}


@pytest.mark.deep
def test_fracatlas_takes_a_body_part_where_one_is_named_and_quarantines_what_is_cut(
    built: Callable[..., Built],
) -> None:
    found = built("fracatlas")
    assert found.verdicts() == {"written": 3, "truncated": 1, "not_in_collection": 4}
    assert found.of("body_part") == {"IMG0000000.jpg": "HAND", "IMG0000019.jpg": "LOWERLEG", "IMG0000025.jpg": None}
    assert found.of("fracture_count") == {"IMG0000000.jpg": 0, "IMG0000019.jpg": 1, "IMG0000025.jpg": 2}
    assert found.of("official") == {"IMG0000000.jpg": None, "IMG0000019.jpg": "train", "IMG0000025.jpg": "test"}
    assert [(box["top"], box["left"], box["height"], box["width"]) for box in found.boxes] == [(20, 10.5, 40, 30)]


@pytest.mark.deep
def test_rsna_boneage_has_months_and_its_test_table_says_it_otherwise(built: Callable[..., Built]) -> None:
    found = built("rsna-boneage")
    assert found.verdicts() == {"written": 3, "not_in_collection": 2}
    assert found.of("boneage") == {"1377.png": 180, "1378.png": 12, "4360.png": None}
    assert found.of("male") == {"1377.png": 0, "1378.png": 1, "4360.png": 1}
    assert found.of("official") == {"1377.png": "train", "1378.png": "train", "4360.png": "test"}
    assert found.of("age") == dict.fromkeys(found.of("age"))


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        (
            "nih14",
            ("train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"),
            [
                "1 table of nih14 was read",
                "train_val_list.txt, test_list.txt and BBox_List_2017.csv are not there: no official split, no boxes",
            ],
        ),
        (
            "nih14",
            ("test_list.txt",),
            ["3 tables of nih14 were read", "test_list.txt is not there: only a part of the official split"],
        ),
        ("covid19-radiography", (), []),
    ],
)
def test_a_copy_says_which_tables_it_lacks_and_what_is_lost(
    name: str, gone: tuple[str, ...], said: list[str], tmp_path: Path
) -> None:
    make_collection(name, tmp_path)
    for table in gone:
        (tmp_path / table).rename(tmp_path / f"of_another_name_{table}")
    files = FileTree(str(tmp_path))
    tree, known = Tree(files, files.list()), COLLECTIONS[name]
    known.told(tree)
    known.labels(tree)
    assert known.here(tree)[:-1] == said


def test_the_names_that_are_shown_of_a_table_are_taken(tmp_path: Path) -> None:
    for table in (table for known in COLLECTIONS.values() for table in known.tables):
        for name in (table.name.removesuffix(".gz"), *table.also):
            assert re.fullmatch(rf"(?i)(.*/)?({table.pattern})", f"Fracture Split/{name}"), name


def test_the_sample_of_nih_that_kaggle_has_is_read_as_the_whole(tmp_path: Path) -> None:
    make_collection("nih14", tmp_path)
    (tmp_path / "Data_Entry_2017.csv").rename(tmp_path / "sample_labels.csv")
    files = FileTree(str(tmp_path))
    assert COLLECTIONS["nih14"].told(Tree(files, files.list())).table.num_rows == 6


@pytest.mark.deep
def test_labels_are_written_again_after_an_append(
    built: Callable[..., Built], tmp_path: Path, executor: Executor
) -> None:
    before = built("nih14")
    TreeWriter(tmp_path).png("tree/images_003/00000005_000.png")
    after = _build("nih14", tmp_path, executor)
    assert after.rows["images_003/00000005_000.png"]["No Finding"] == 1
    assert set(before.of("key")) < set(after.of("key"))
    again = labels.read(Store(str(tmp_path / "out")), "nih14").description
    assert again.replaces is not None


@pytest.mark.parametrize("name", [name for name in TREES if any(table.needed for table in COLLECTIONS[name].tables)])
def test_a_tree_that_lacks_a_table_or_its_images_is_refused_in_a_sentence(name: str, tmp_path: Path) -> None:
    known = COLLECTIONS[name]
    (tmp_path / "tree").mkdir()
    with pytest.raises(ArgumentError, match=f"holds no image of {name}"):
        _build(name, tmp_path)
    make_collection(name, tmp_path / "tree")
    for table in tmp_path.rglob("*"):
        if table.suffix in (".csv", ".txt", ".gz") and not table.name.endswith(".nii.gz"):
            table.unlink()
    first = next(table for table in known.tables if table.needed)
    with pytest.raises(ArgumentError, match=f"has no {re.escape(first.name)} .*: put it beside the images") as error:
        _build(name, tmp_path)
    assert all(other in str(error.value) for other in first.also)
    assert not (tmp_path / "out").exists()
