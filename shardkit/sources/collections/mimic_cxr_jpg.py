"""MIMIC-CXR-JPG: JPEG files by patient and study; labels a study, the split an image."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.chexpert import FINDINGS
from shardkit.sources.collections.values import binary

_NAME = r"mimic-cxr-\d\.\d\.\d-"
METADATA = Published(
    name="mimic-cxr-2.0.0-metadata.csv.gz",
    pattern=_NAME + r"metadata\.csv",
    about="patient, study and view of each image",
    filled=("dicom_id",),
    columns=("subject_id", "study_id", "ViewPosition"),
)
SPLIT = Published(
    name="mimic-cxr-2.0.0-split.csv.gz",
    pattern=_NAME + r"split\.csv",
    about="the official split",
    lost="official split",
    needed=False,
    filled=("study_id", "split"),
)
LABELS = {
    name: Published(
        name=f"mimic-cxr-2.0.0-{maker}.csv.gz",
        pattern=_NAME + rf"{maker}\.csv",
        about=f"labels of studies, by {maker}",
        lost="" if maker == "chexpert" else f"labels by {maker}",
        needed=maker == "chexpert",
        filled=("study_id",),
        columns=FINDINGS,
    )
    for name, maker in (("mimic-cxr-jpg", "chexpert"), ("mimic-cxr-jpg-negbio", "negbio"))
}


def _facts(tree: Tree) -> Columns:
    table = tree.needed(METADATA)
    return {
        "path": [f"{image}.jpg" for image in table["dicom_id"].to_pylist()],
        "patient": table["subject_id"],
        "study": table["study_id"],
        "view": table["ViewPosition"],
    }


def _labels(tree: Tree) -> dict[str, LabelRows]:
    found, images = {}, tree.table(SPLIT)
    split: dict[str, str] = {}
    if images is not None:  # of an image; all images of a patient are in one
        split = dict(zip(images["study_id"].to_pylist(), map(_split, images["split"].to_pylist()), strict=True))
    for name, published in LABELS.items():
        if (table := tree.table(published)) is not None:
            values = binary(table, FINDINGS, published.name)
            at = {study: row for row, study in enumerate(table["study_id"].to_pylist())}
            studies = [*at, *(study for study in split if study not in at)]  # some reports have no labels
            values = values.take(pa.array([at.get(study) for study in studies], pa.int64()))
            of = [split.get(study) for study in studies]
            found[name] = tree.rows(studies, values, by="study", level="study", split=of)
    return found


def _split(name: str) -> str:
    return "val" if name == "validate" else name


COLLECTION = Collection(
    name="mimic-cxr-jpg",
    title="MIMIC-CXR-JPG 2.0 and 2.1",
    layout=("files/p10/p10000032/s50414267/02aa804e-bde0afdd-112c0b34-7bc16630-4e384014.jpg",),
    images=r"(^|/)p\d{8}/s\d{8}/[0-9a-f-]+\.jpg$",
    tables=(METADATA, SPLIT, *LABELS.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    expected={"images": 377_110, "studies": 227_827, "val": 2_991, "test": 5_159},
    traps=(
        "labels are of studies: each image of a study gets them",
        "the 14 labels stand in another order than CheXpert's: columns go by name",
        "about 15,800 images have no view",
        "some reports have no labels: their rows are blank, and there for the split",
        "JPEGs were equalised in their histograms, so grey levels compare with no other collection's",
        "the labels of the 2.1.0 test set are not read",
    ),
    terms="PhysioNet credentialed access: training, and a signed agreement; not to be passed on",
    citation="Johnson et al., MIMIC-CXR-JPG, PhysioNet 2019",
)
