"""BraTS 2020: four MRI volumes a subject as NIfTI, whose slices become images; grade and survival by subject."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree, part

_IMAGES = r"(^|/)(BraTS20_(Training|Validation)_\d{3})_(flair|t1|t1ce|t2)\.nii(\.gz)?$"
NAMES = Published(
    name="name_mapping.csv",
    pattern=r"name_mapping\.csv",
    about="grade of each training subject",
    lost="grades",
    needed=False,
    filled=("BraTS_2020_subject_ID",),
    columns=("Grade",),
)
SURVIVAL = Published(
    name="survival_info.csv",
    pattern=r"survival_info\.csv",
    about="age, survival in days, resection",
    lost="ages, survival and resections",
    needed=False,
    filled=("Brats20ID",),
    columns=("Age", "Survival_days", "Extent_of_Resection"),
)


def _facts(tree: Tree) -> Columns:
    found, ages = part(_IMAGES, tree.images(_IMAGES)), _cells(tree, SURVIVAL, "Age")
    return {
        "path": [match.string for match in found],
        "patient": [match[2] for match in found],
        "study": [match[2] for match in found],
        "series": [f"{match[2]} {match[4]}" for match in found],
        "age": [ages.get(match[2]) for match in found],
    }


def _cells(tree: Tree, published: Published, column: str) -> dict[str, str | None]:
    """Return what a column says of each subject."""
    table, key = tree.table(published), published.filled[0]
    if table is None:
        return {}
    return dict(zip(table[key].to_pylist(), table[column].to_pylist(), strict=True))


def _labels(tree: Tree) -> dict[str, LabelRows]:
    parts = {match[2]: match[3] for match in part(_IMAGES, tree.images(_IMAGES))}
    subjects = sorted(parts)
    grade = _cells(tree, NAMES, "Grade")
    days = _cells(tree, SURVIVAL, "Survival_days")
    extent = _cells(tree, SURVIVAL, "Extent_of_Resection")
    values = pa.table(
        {
            "grade": pa.array([grade.get(one) for one in subjects], pa.string()),
            "survival_days": pa.array([_days(days.get(one)) for one in subjects], pa.float64()),
            "resection": pa.array(
                [None if extent.get(one) == "NA" else extent.get(one) for one in subjects], pa.string()
            ),
        }
    )
    split: list[str | None] = ["train" if parts[one] == "Training" else "val" for one in subjects]
    return {"brats20": tree.rows(subjects, values, by="patient", level="patient", split=split)}


def _days(text: str | None) -> float | None:
    """Return a number of days; None for who was alive at the end."""
    return float(text) if text and text.replace(".", "", 1).isdigit() else None


COLLECTION = Collection(
    name="brats20",
    title="BraTS 2020",
    layout=("BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz",),
    images=_IMAGES,
    tables=(NAMES, SURVIVAL),
    facts=_facts,
    labels=_labels,
    always={"body_part": "HEAD", "modality": "MR"},
    modalities=("MR",),
    expected={"images": 1_976, "subjects of train": 369, "subjects of val": 125},
    traps=(
        "an image is a slice: 155 a volume, chosen by --slices; empty ones are dropped",
        "_seg volumes are masks, and the mask of subject 355 is called W39_1998.09.19_Segm.nii: left out",
        "skulls were removed, and grey levels of MRI have no unit",
        "who was alive at the end of the study has no survival in days",
    ),
    terms="CBICA's research use agreement",
    citation="Menze et al., IEEE TMI 2015; Bakas et al., Scientific Data 2017",
)
