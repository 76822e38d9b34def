"""MURA v1.1: PNG files by region, patient and study; a study is normal or abnormal."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree, part
from shardkit.sources.collections.values import binary

_IMAGES = r"(^|/)((train|valid)/XR_([A-Z]+)/(patient\d+)/study\d+_(positive|negative))/image\d+\.png$"
STUDIES = {
    split: Published(
        name=f"{name}_labeled_studies.csv",
        pattern=rf"{name}_labeled_studies\.csv",
        about="studies and their labels",
        filled=("study", "abnormal"),
        header=("study", "abnormal"),
    )
    for split, name in (("train", "train"), ("val", "valid"))
}


def _facts(tree: Tree) -> Columns:
    found = part(_IMAGES, tree.images(_IMAGES))
    return {
        "path": [match.string for match in found],
        "patient": [match[5] for match in found],
        "study": [match[2] for match in found],
        "body_part": [match[4] for match in found],
    }


def _labels(tree: Tree) -> dict[str, LabelRows]:
    studies: list[str] = []
    split: list[str | None] = []
    values = []
    for name, published in STUDIES.items():
        table = tree.needed(published)
        values.append(binary(table, ["abnormal"], published.name))
        studies += ["/".join(path.strip("/").split("/")[-4:]) for path in table["study"].to_pylist()]
        split += [name] * table.num_rows
    return {"mura": tree.rows(studies, pa.concat_tables(values), by="study", level="study", split=split)}


COLLECTION = Collection(
    name="mura",
    title="MURA v1.1",
    layout=("MURA-v1.1/train/XR_WRIST/patient00001/study1_positive/image1.png",),
    images=_IMAGES,
    tables=tuple(STUDIES.values()),
    facts=_facts,
    labels=_labels,
    expected={"images": 40_005, "train": 36_808, "val": 3_197},
    traps=(
        "a label is of a study: each of its images gets it",
        "its tables have no header, and paths there begin with MURA-v1.1/",
        "names of folders tell the label: no path is kept in a dataset",
        "images are of 8 bits and at most 512 pixels; what macOS left beside them is left out",
        "the test part was never published; v1.0 is withdrawn",
    ),
    terms="Stanford University's research use agreement; not to be passed on",
    citation="Rajpurkar et al., MURA, MIDL 2018",
)
