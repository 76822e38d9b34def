"""VinDr-CXR: DICOM files without patient or modality; three readers of a training image, consensus on a test image."""

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import binary, boxes, numbers, several

_CORNERS = ("x_min", "y_min", "x_max", "y_max")
LABELS = {
    split: Published(
        name=f"image_labels_{split}.csv",
        pattern=rf"image_labels_{split}\.csv",
        about=about,
        lost="" if split == "train" else "labels of the test part",
        needed=False,
        filled=("image_id",),
        others=True,
    )
    for split, about in (("train", "three readers' labels"), ("test", "consensus labels"))
}
BOXES = {
    "train": Published(
        name="annotations_train.csv",
        pattern=r"(annotations_train|train|vinbigdata-train)\.csv",
        about="boxes by reader; in the challenge's train.csv the labels, too",
        also=("train.csv", "vinbigdata-train.csv"),
        filled=("image_id", "rad_id", "class_name"),
        columns=_CORNERS,
    ),
    "test": Published(
        name="annotations_test.csv",
        pattern=r"annotations_test\.csv",
        about="consensus boxes",
        lost="boxes of the test part",
        needed=False,
        filled=("image_id", "class_name"),
        columns=_CORNERS,
    ),
}


def _facts(tree: Tree) -> Columns:
    return {"path": [*tree.images(COLLECTION.images)]}


def _labels(tree: Tree) -> dict[str, LabelRows]:
    drawn = {split: table for split, published in BOXES.items() if (table := tree.table(published)) is not None}
    images: list[str] = []
    split: list[str | None] = []
    values = []
    for name, published in LABELS.items():
        table = tree.table(published)
        if table is not None:
            names = [column for column in table.column_names if column not in ("image_id", "rad_id", "rad_ID")]
            values.append(binary(table, names, published.name))
            read = table["image_id"].to_pylist()
        elif name in drawn:
            read, found = _by_reader(drawn[name])
            values.append(found)
        else:
            continue
        images += read
        split += [name] * len(read)
    rows = tree.rows(
        images,
        pa.concat_tables(values, promote_options="default"),
        split=split,
        vote="majority",
        boxes=pa.concat_tables([_boxes(table, BOXES[name].name) for name, table in drawn.items()]),
    )
    return {"vindr-cxr": rows}


def _by_reader(table: pa.Table) -> tuple[list[str], pa.Table]:
    """Return images, one a reader, and what that reader named, of a table with a row a box."""
    read: dict[tuple[str, str], set[str]] = {}
    cells = (table[column].to_pylist() for column in ("image_id", "rad_id", "class_name"))
    for image, reader, label in zip(*cells, strict=True):
        read.setdefault((image, reader), set()).add(label)
    names = sorted(set(table["class_name"].to_pylist()))
    values = several([sorted(labels) for labels in read.values()], names, BOXES["train"].name, "class_name")
    return [image for image, _ in read], values


def _boxes(table: pa.Table, name: str) -> pa.Table:
    read = {side: numbers(table[side], name, side) for side in _CORNERS}
    drawn = pc.and_(read["x_max"].is_valid(), read["y_max"].is_valid())
    left, top, right, bottom = (read[side].filter(drawn) for side in _CORNERS)
    sides = {"top": top, "left": left, "height": pc.subtract(bottom, top), "width": pc.subtract(right, left)}
    table = table.filter(drawn)
    numbered = {side: values.to_pylist() for side, values in sides.items()}
    return boxes(table["image_id"].to_pylist(), table["class_name"].to_pylist(), numbered)


COLLECTION = Collection(
    name="vindr-cxr",
    title="VinDr-CXR, and the VinBigData challenge",
    layout=("train/000434271f63a053c4128a0ba6352c7f.dicom", "test/..."),
    images=r"(^|/)[0-9a-f]{32}\.(dicom|dcm)$",
    tables=(*LABELS.values(), *BOXES.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    modalities=("NONE",),
    image_files=False,
    expected={"images": 18_000, "train": 15_000, "test": 3_000, "readings of train": 45_000},
    traps=(
        "no patient is known: images of one may part across splits",
        "the header names no modality: NONE is taken",
        "three readers a training image: labels are their majority (547 of Lung Opacity); boxes are all readers'",
        "Edema has no positive in the test part",
        "the challenge's train.csv has 15 of the 28 labels",
    ),
    terms="PhysioNet credentialed access",
    citation="Nguyen et al., VinDr-CXR, Scientific Data 2022",
)
