"""COVID-19 Radiography Database: a folder a class, masks beside the images."""

import pyarrow as pa

from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Tree, part

_IMAGES = r"(^|/)(COVID|Normal|Lung_Opacity|Viral Pneumonia|COVID-19|NORMAL)/(images/)?[^/]+\.png$"
_CLASSES = {"COVID-19": "COVID", "NORMAL": "Normal"}


def _facts(tree: Tree) -> Columns:
    return {"path": [*tree.images(_IMAGES)]}


def _labels(tree: Tree) -> dict[str, LabelRows]:
    found = part(_IMAGES, tree.images(_IMAGES))
    classes = pa.array([_CLASSES.get(match[2], match[2]) for match in found], pa.string())
    return {"covid19-radiography": tree.rows([match.string for match in found], pa.table({"class": classes}))}


COLLECTION = Collection(
    name="covid19-radiography",
    title="COVID-19 Radiography Database",
    layout=("COVID/images/COVID-1.png", "Viral Pneumonia/images/Viral Pneumonia-1.png"),
    images=_IMAGES,
    tables=(),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    expected={"images": 21_165, "COVID": 3_616, "Normal": 10_192, "Lung_Opacity": 6_012, "Viral Pneumonia": 1_345},
    traps=(
        "masks lie beside the images, with the same names: left out",
        "no patient is known: images of one may part across splits",
        "2,473 images are of COVID-19 sources with PadChest, 8,851 of RSNA, which are of NIH ChestX-ray14",
        "classes come from different hospitals: a model may learn those",
    ),
    terms="of its sources; cite both papers",
    citation="Chowdhury et al., IEEE Access 2020; Rahman et al., Computers in Biology and Medicine 2021",
)
