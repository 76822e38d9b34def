"""Real images of two hospitals, where ../shared/data/labelled is: held against another decoder, and a plain reader."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shardkit import labels
from shardkit.build.run import build
from shardkit.config import BuildConfig
from shardkit.dataset.hashes import pixel_hash
from shardkit.storage import Store

pytestmark = pytest.mark.deep


def _hashes(folder: Path) -> Counter[bytes]:
    """Return hashes of the grey pixels that Pillow reads."""
    return Counter(
        pixel_hash(np.asarray(Image.open(path).convert("L")).astype(np.uint16), 8) for path in folder.glob("*.png")
    )


@pytest.fixture(scope="module")
def nih(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images of NIH ChestX-ray14, as a user builds them."""
    place = tmp_path_factory.mktemp("nih")
    build(BuildConfig.of(str(labelled / "nih"), str(place / "out"), place / "private", collection="nih14"))
    return place / "out"


def test_nih_samples_have_the_pixels_patients_and_views_that_were_published(labelled: Path, nih: Path) -> None:
    samples = pq.read_table(nih / "manifest.parquet").to_pylist()
    assert Counter(row["pixel_hash"] for row in samples) == _hashes(labelled / "nih" / "images")
    assert (len(samples), len({row["patient"] for row in samples})) == (120, 106)
    assert Counter(row["view"] for row in samples) == {"AP": 76, "PA": 44}
    assert sum("equal_channels" in row["flags"] for row in samples) == 3
    assert {row["bits"] for row in samples} == {8}


def test_nih_labels_are_the_tables_and_boxes_lie_on_test_images(labelled: Path, nih: Path) -> None:
    with (labelled / "nih" / "Data_Entry_2017_v2020.csv").open(newline="") as file:
        cells = [row["Finding Labels"].split("|") for row in csv.DictReader(file)]
    counts = Counter(finding for cell in cells for finding in cell)
    found = labels.read(Store(str(nih)), "nih14")
    rows = found.table.to_pylist()
    assert {name: sum(row[name] for row in rows) for name in counts} == counts
    assert Counter(row["split"] for row in rows) == {"train": 82, "test": 38}
    assert found.boxes is not None
    boxes = found.boxes.to_pylist()
    official = {row["key"]: row["split"] for row in rows}
    assert (len(boxes), {official[box["key"]] for box in boxes}) == (31, {"test"})
    assert all(box["top"] >= 0 and box["top"] + box["height"] <= 1024 for box in boxes)


def test_hannover_is_built_by_a_table_of_its_own(labelled: Path, tmp_path: Path) -> None:
    columns = {"path": "image_id", "patient": "patient_id", "view": "projection"}
    source = labelled / "hannover"
    config = BuildConfig.of(
        str(source / "png"),
        str(tmp_path / "out"),
        tmp_path / "private",
        facts=source / "data.csv",
        facts_columns=columns,
    )
    outcome = build(config)
    samples = pq.read_table(tmp_path / "out" / "manifest.parquet").to_pylist()
    with (source / "data.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    here = {path.stem for path in (source / "png").glob("*.png")}
    known = [row for row in rows if row["image_id"] in here]
    assert outcome.samples == len(samples) == len(known) == 243
    assert len({row["patient"] for row in samples}) == len({row["patient_id"] for row in known})
    assert Counter(row["view"] for row in samples) == {"AP": 194, "PA": 49}
    assert Counter(row["modality"] for row in samples) == Counter(row["modality"] for row in known)
    assert Counter(row["pixel_hash"] for row in samples) == _hashes(source / "png")
