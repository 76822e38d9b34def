"""FracAtlas: JPEG files of limbs, with and without fractures; boxes as COCO."""

import json

import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree
from shardkit.sources.collections.values import binary, boxes, numbers

_PARTS = {"hand": "HAND", "leg": "LEG", "hip": "HIP", "shoulder": "SHOULDER"}
_VIEWS = {"lateral": "LATERAL", "oblique": "OBLIQUE"}
_BINARY = ("fractured", *_PARTS, "mixed", "hardware", "multiscan", "frontal", *_VIEWS)
TABLE = Published(
    name="dataset.csv",
    pattern=r"dataset\.csv",
    about="body part, view and fracture of each image",
    filled=("image_id",),
    columns=(*_BINARY, "fracture_count"),
)
BOXES = Published(
    name="COCO_fracture_masks.json",
    pattern=r"coco_fracture_masks\.json",
    about="922 boxes, as COCO",
    lost="boxes",
    needed=False,
)
SPLITS = {
    split: Published(
        name=f"{name}.csv",
        pattern=rf"fracture split/{name}\.csv",
        about="fractured images of one part",
        lost="official split",
        needed=False,
        filled=("image_id",),
    )
    for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))
}


def _facts(tree: Tree) -> Columns:
    table = tree.needed(TABLE)
    return {
        "path": table["image_id"],
        "body_part": _one(table, _PARTS, ("mixed",)),
        "view": _one(table, _VIEWS, ("frontal",)),
    }


def _one(table: pa.Table, words: dict[str, str], others: tuple[str, ...]) -> list[str | None]:
    """Return the word of the one column of several that is 1; None where others are, too."""
    columns = [table[name].to_pylist() for name in (*words, *others)]
    names: list[str | None] = [*words.values(), *(None for _ in others)]
    found = [[name for name, cell in zip(names, row, strict=True) if cell == "1"] for row in zip(*columns, strict=True)]
    return [one[0] if len(one) == 1 else None for one in found]


def _labels(tree: Tree) -> dict[str, LabelRows]:
    table = tree.needed(TABLE)
    images = table["image_id"].to_pylist()
    values = binary(table, _BINARY, TABLE.name)
    values = values.append_column("fracture_count", numbers(table["fracture_count"], TABLE.name, "fracture_count"))
    split: dict[str, str] = {}
    for name, published in SPLITS.items():
        if (part := tree.table(published)) is not None:
            split |= dict.fromkeys(part["image_id"].to_pylist(), name)
    rows = tree.rows(images, values, split=[split.get(image) for image in images], boxes=_boxes(tree))
    return {"fracatlas": rows}


def _boxes(tree: Tree) -> pa.Table | None:
    if (data := tree.data(BOXES)) is None:
        return None
    try:
        found = json.loads(data)
        names = {image["id"]: image["file_name"] for image in found["images"]}
        rows = [(names[one["image_id"]], *map(float, one["bbox"])) for one in found["annotations"]]
        images, left, top, width, height = zip(*rows, strict=True) if rows else ((),) * 5
    except (ValueError, KeyError, TypeError) as error:
        raise ArgumentError(f"{BOXES.name} is no COCO file ({type(error).__name__}): fetch it again") from None
    sides = {"top": top, "left": left, "height": height, "width": width}
    return boxes(images, ["fracture"] * len(images), sides)


COLLECTION = Collection(
    name="fracatlas",
    title="FracAtlas",
    layout=("images/Fractured/IMG0000019.jpg", "images/Non_fractured/IMG0000000.jpg"),
    images=r"(^|/)images/(Fractured|Non_fractured)/[^/]+\.jpe?g$",
    tables=(TABLE, BOXES, *SPLITS.values()),
    facts=_facts,
    labels=_labels,
    expected={"images": 4_083, "fractured": 717, "boxes": 922},
    traps=(
        "no patient is known: images of one may part across splits",
        "some JPEG files are truncated: quarantined",
        "its split is of fractured images only",
        "a body part or view is taken where the table says one",
    ),
    terms="CC BY 4.0",
    citation="Abedeen et al., FracAtlas, Scientific Data 2023",
)
