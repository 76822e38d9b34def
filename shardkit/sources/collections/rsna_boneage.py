"""RSNA Pediatric Bone Age challenge: PNG files of hands; age in months and sex by the number in a file's name."""

import pyarrow as pa
import pyarrow.compute as pc

from shardkit.errors import ArgumentError
from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import numbers

_COLUMNS = {
    "image": ("id", "image id", "case id"),
    "months": ("boneage", "bone age (months)", "ground truth bone age (months)"),
    "sex": ("male", "sex"),
}
TABLES = {
    split: Published(
        name=name,
        pattern=pattern,
        about=about,
        also=(also,) if also else (),
        lost="" if split == "train" else f"labels of the {split} part",
        needed=split == "train",
        others=True,
    )
    for split, name, also, pattern, about in (
        ("train", "boneage-training-dataset.csv", "", r"boneage-training-dataset\.csv", "bone age and sex"),
        (
            "val",
            "Validation Dataset.csv",
            "boneage-validation-dataset.csv",
            r"(boneage-)?validation[ -]dataset\.csv",
            "the same of 1,425 images",
        ),
        (
            "test",
            "boneage-test-dataset.csv",
            "Bone age ground truth.csv",
            r"(boneage-test-dataset|bone age ground truth)\.csv",
            "sex of 200 images",
        ),
    )
}
_SEXES = {"true": "M", "1": "M", "m": "M", "false": "F", "0": "F", "f": "F"}


def _table(tree: Tree) -> pa.Table:
    """Return image, months, male and split of all rows, whatever a table calls its columns."""
    parts = []
    for split, published in TABLES.items():
        table = tree.table(published)
        if table is None:
            continue
        called = {column.lower(): column for column in table.column_names}
        named = {name: next((called[one] for one in words if one in called), None) for name, words in _COLUMNS.items()}
        nothing = pa.nulls(table.num_rows, pa.string())
        image, months, sex = (table[column] if column else nothing for column in named.values())
        if image.null_count:
            raise ArgumentError(f"{published.name} lacks numbers of images (id or Case ID): is it the published table?")
        columns = {
            "image": pa.array([f"{number}.png" for number in image.to_pylist()], pa.string()),
            "months": numbers(months, published.name, "boneage"),
            "sex": pa.array([cell and _SEXES.get(cell.lower()) for cell in sex.to_pylist()], pa.string()),
            "split": pa.array([split] * table.num_rows, pa.string()),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def _facts(tree: Tree) -> Columns:
    table = _table(tree)
    return {"path": table["image"], "sex": table["sex"]}


def _labels(tree: Tree) -> dict[str, LabelRows]:
    table = _table(tree)
    values = pa.table({"boneage": table["months"], "male": pc.equal(table["sex"], "M").cast(pa.int8())})
    return {"rsna-boneage": tree.rows(table["image"].to_pylist(), values, split=table["split"].to_pylist())}


COLLECTION = Collection(
    name="rsna-boneage",
    title="RSNA Pediatric Bone Age 2017",
    layout=("boneage-training-dataset/1377.png",),
    images=r"(^|/)\d+\.png$",
    tables=tuple(TABLES.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "HAND"},
    expected={"images": 14_236, "train": 12_611, "val": 1_425, "test": 200},
    traps=(
        "bone age is in months, and no age of the patient: age stays blank",
        "the test table calls its columns otherwise (Case ID), and has no bone age in some releases",
        "a patient has one image: no patient is named",
    ),
    terms="RSNA's terms of the challenge",
    citation="Halabi et al., The RSNA Pediatric Bone Age Machine Learning Challenge, Radiology 2019",
)
