"""CheXpert: JPEG files by patient, study and view; labels 1, 0, -1 (uncertain) and blank (not mentioned)."""

import re

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import binary

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
TABLES = {
    split: Published(
        name=name,
        pattern=pattern,
        about=about,
        also=also,
        lost="" if split == "train" else f"labels of the {split} part",
        needed=split == "train",
        filled=("Path",),
        columns=FINDINGS,
        others=True,
    )
    for split, name, pattern, about, also in (
        ("train", "train.csv", r"train\.csv", "labels and views of the training part", ()),
        ("val", "valid.csv", r"val(id)?\.csv", "the same of 234 images", ("val.csv",)),
        ("test", "test.csv", r"test(_labels)?\.csv", "labels of 668 images", ("test_labels.csv",)),
    )
}
_PLACE = re.compile(r"((patient\d+)/study\d+)/view\d+_(frontal|lateral)\.jpg$")


def _tables(tree: Tree) -> dict[str, pa.Table]:
    return {split: table for split, published in TABLES.items() if (table := tree.table(published)) is not None}


def _facts(tree: Tree) -> Columns:
    found: dict[str, list[str | None]] = {name: [] for name in ("path", "patient", "study", "view", "sex", "age")}
    for table in _tables(tree).values():
        nothing = [None] * table.num_rows
        cells = {name: table[name].to_pylist() for name in table.column_names}
        for row, place in enumerate(map(_PLACE.search, cells["Path"])):
            if place is None:
                continue
            stated = cells.get("AP/PA", nothing)[row]
            found["path"].append(place[0])
            found["study"].append(place[1])
            found["patient"].append(place[2])
            found["view"].append(stated or ("LATERAL" if place[3] == "lateral" else None))
            found["sex"].append(cells.get("Sex", nothing)[row])
            found["age"].append(None if (age := cells.get("Age", nothing)[row]) == "0" else age)
    return found


def _labels(tree: Tree) -> dict[str, LabelRows]:
    images: list[str] = []
    split: list[str | None] = []
    values = []
    for name, table in _tables(tree).items():
        values.append(binary(table, FINDINGS, TABLES[name].name))
        images += [(place[0] if (place := _PLACE.search(path)) else path) for path in table["Path"].to_pylist()]
        split += [name] * table.num_rows
    return {"chexpert": tree.rows(images, pa.concat_tables(values), split=split, level="study")}


COLLECTION = Collection(
    name="chexpert",
    title="CheXpert v1.0, and its small version",
    layout=("CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg", "train/patient00001/study1/..."),
    images=r"(^|/)patient\d+/study\d+/view\d+_(frontal|lateral)\.jpg$",
    tables=tuple(TABLES.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    expected={"images": 224_316, "train": 223_414, "val": 234, "test": 668, "patients of train": 64_540},
    traps=(
        "blank is not mentioned, which most studies train as negative: kept blank, a recipe decides",
        "-1 is uncertain: kept, a recipe decides",
        "No Finding is 1 or blank only",
        "three ages are 0: left blank",
        "test.csv has no views: a lateral image is known by its name, a frontal one stays without",
        "images are of 8 bits, those of the small version of about 390 x 320 pixels",
    ),
    terms="Stanford University's research use agreement; not to be passed on",
    citation="Irvin et al., CheXpert, AAAI 2019",
)
