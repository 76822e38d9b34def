"""PadChest: 16-bit PNG files of 12 or 10 bits in 54 folders; labels as lists, by physicians or by a network."""

import ast
import functools
import re

import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import mapped, several
from shardkit.sources.tables import FIRST_ROW

TABLE = Published(
    name="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv",
    pattern=r"(padchest_)?chest_x_ray_images_labels_160k[^/]*\.csv",
    about="labels, patient, study, projection and bits of each image",
    also=("chest_x_ray_images_labels_160K.csv",),
    filled=("ImageID", "ImageDir"),
    columns=(
        "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection", "Modality_DICOM",
        "BitsStored_DICOM", "Labels", "MethodLabel", "MethodProjection",
    ),
)  # fmt: skip
_PROJECTIONS = {"L": "LATERAL", "AP_horizontal": "AP", "COSTAL": "", "EXCLUDE": "", "UNK": ""}


def _paths(table: pa.Table) -> list[str]:
    rows = zip(table["ImageDir"].to_pylist(), table["ImageID"].to_pylist(), strict=True)
    return [f"{folder}/{image}" for folder, image in rows]


def _facts(tree: Tree) -> Columns:
    table = tree.needed(TABLE)
    years = zip(table["StudyDate_DICOM"].to_pylist(), table["PatientBirth"].to_pylist(), strict=True)
    return {
        "path": _paths(table),
        "patient": table["PatientID"],
        "study": table["StudyID"],
        "view": [view or None for view in mapped(table["Projection"], _PROJECTIONS)],
        "sex": table["PatientSex_DICOM"],
        "age": [_age(taken, born) for taken, born in years],
        "modality": table["Modality_DICOM"],
        "bits": table["BitsStored_DICOM"],
    }


def _age(taken: str | None, born: str | None) -> str | None:
    """Return years between two dates of which one is a year only."""
    years = re.fullmatch(r"(\d{4})\d{4} (\d{4})(\.0)?", f"{taken} {born}")
    return str(age) if years and (age := int(years[1]) - int(years[2])) >= 0 else None


def listed(text: str | None, row: int = 0) -> list[str] | None:
    """Return the labels in a cell, a Python list as text; None for a blank one.

    Raises
    ------
    ArgumentError
        For what is no such list.
    """
    if text is None or text == "nan":
        return None
    try:
        return _parsed(text)
    except (ValueError, SyntaxError, TypeError):
        raise ArgumentError(
            f"{TABLE.name}, row {row + FIRST_ROW:,}, column Labels is no list: is it the table that was published?"
        ) from None


@functools.cache
def _parsed(text: str) -> list[str]:
    return [name for label in ast.literal_eval(text) if (name := str(label).strip())]


def _labels(tree: Tree) -> dict[str, LabelRows]:
    table = tree.needed(TABLE)
    cells = [listed(text, row) for row, text in enumerate(table["Labels"].to_pylist())]
    names = sorted({label for cell in cells for label in cell or ()})
    values = several(cells, names, TABLE.name, "Labels")
    columns = {name: values[name] for name in names}
    columns |= {how: table[how] for how in ("MethodLabel", "MethodProjection", "Projection")}
    return {"padchest": tree.rows(_paths(table), pa.table(columns))}


COLLECTION = Collection(
    name="padchest",
    title="PadChest (BIMCV)",
    layout=("0/20536686640136348236148679891455886468_k6ga29.png", "0.zip"),
    images=r"(^|/)\d+[-_][^/]*\.png$",
    tables=(TABLE,),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    modalities=("CR", "DX"),
    expected={"images": 160_861, "patients": 67_625, "labels": 193, "by physicians": 39_053, "of 12 bits": 144_051},
    traps=(
        "values of 12 or 10 bits lie in 16-bit PNG: bits come from the table",
        "labels have leading spaces, 3,041 empty strings and 103 blank cells: trimmed, left out, left blank",
        "labels are compared whole: nodule is no part of pseudonodule",
        "121,808 images were labelled by a network: MethodLabel is a column of the labels",
        "there is no official split",
        "21 PNG files are missing or broken: the ledger names them",
        "age is the study's year less the year of birth",
    ),
    terms="BIMCV's research use agreement",
    citation="Bustos et al., PadChest, Medical Image Analysis 2020",
)
