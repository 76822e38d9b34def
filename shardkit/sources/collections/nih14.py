"""NIH ChestX-ray14: PNG files beside one table, an official split by patient, boxes for some of its test images."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import boxes, numbers, several

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia", "No Finding",
)  # fmt: skip
TABLE = Published(
    name="Data_Entry_2017_v2020.csv",
    pattern=r"(data_entry_2017[^/]*|sample_labels)\.csv",
    about="findings, patient, age, sex and view of each image",
    also=("Data_Entry_2017.csv", "sample_labels.csv"),
    filled=("Image Index",),
    columns=("Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
)
BOXES = Published(
    name="BBox_List_2017.csv",
    pattern=r"bbox_list_2017[^/]*\.csv",
    about="984 boxes of 880 images",
    lost="boxes",
    needed=False,
    filled=("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]"),
)
TRAIN, TEST = (
    Published(
        name=f"{name}_list.txt",
        pattern=rf"{name}_list[^/]*\.txt",
        about=f"the official {part} part",
        also=(f"{name}_list_NIH.txt",),
        lost="official split",
        needed=False,
    )
    for name, part in (("train_val", "training"), ("test", "test"))
)


def _facts(tree: Tree) -> Columns:
    table = tree.needed(TABLE)
    names = {"path": "Image Index", "patient": "Patient ID", "age": "Patient Age", "sex": "Patient Gender"}
    return {fact: table[column] for fact, column in names.items()} | {"view": table["View Position"]}


def _labels(tree: Tree) -> dict[str, LabelRows]:
    table = tree.needed(TABLE)
    images = table["Image Index"].to_pylist()
    cells = [None if cell is None else cell.split("|") for cell in table["Finding Labels"].to_pylist()]
    split = dict.fromkeys(tree.lines(TRAIN), "train") | dict.fromkeys(tree.lines(TEST), "test")
    return {
        "nih14": tree.rows(
            images,
            several(cells, FINDINGS, TABLE.name, "Finding Labels"),
            split=[split.get(image) for image in images],
            boxes=_boxes(tree),
        )
    }


def _boxes(tree: Tree) -> pa.Table | None:
    table = tree.table(BOXES)
    if table is None:
        return None
    sides = {"left": "Bbox [x", "top": "y", "width": "w", "height": "h]"}
    found = {side: numbers(table[name], BOXES.name, name).to_pylist() for side, name in sides.items()}
    labels = ["Infiltration" if label == "Infiltrate" else label for label in table["Finding Label"].to_pylist()]
    return boxes(table["Image Index"].to_pylist(), labels, found)


COLLECTION = Collection(
    name="nih14",
    title="NIH ChestX-ray14",
    layout=("images_001/images/00000001_000.png", "images/00000001_000.png", "images_001.tar.gz"),
    images=r"(^|/)\d{8}_\d{3}\.png$",
    tables=(TABLE, TRAIN, TEST, BOXES),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    expected={"images": 112_120, "patients": 30_805, "No Finding": 60_361, "train": 86_524, "test": 25_596},
    traps=(
        "pixel spacing in the table is of the original, not of the 1024 x 1024 image: left out",
        "4 in 1,000 files are RGBA with equal channels: read as grey, flagged",
        "the official split has train (with validation images) and test only; all boxes are of test images",
        'the boxes\' "Infiltrate" is the labels\' "Infiltration": renamed',
        "the first release writes ages as 058Y; some are above 400 there: left blank",
        "labels were mined from reports; about one in ten is wrong",
    ),
    terms="free to use; name the NIH Clinical Center and cite the paper",
    citation="Wang et al., ChestX-ray8, CVPR 2017",
)
