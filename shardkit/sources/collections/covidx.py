"""COVIDx CXR: images of several sources in train/ and test/, and lists of patient, file, class and source."""

import pyarrow as pa

from shardkit.errors import ArgumentError
from shardkit.labels.rows import LabelRows
from shardkit.sources.collections.base import Collection, Columns, Published, Tree

LISTS = {
    split: Published(
        name=f"{split}_COVIDx9A.txt",
        pattern=rf"{split}(_covidx_?\w+|_split_v\d)?\.txt",
        about=f"patient, file, class and source of the {split} part",
        also=(f"{split}_COVIDx8B.txt", f"{split}_split_v3.txt", f"{split}.txt"),
        needed=split != "val",
    )
    for split in ("train", "val", "test")
}
_SOURCES = {"rnsa": "rsna"}


def _rows(tree: Tree) -> list[tuple[str, str, str, str, str]]:
    """Return split, patient, file, class and source of each line; a file's name, and a patient's, may hold spaces."""
    here = {path.rpartition("/")[2] for path in tree.images(COLLECTION.images)}
    rows = []
    for split, published in LISTS.items():
        for number, line in enumerate(tree.lines(published), 1):
            words = line.split(" ")
            if len(words) < 4:
                raise ArgumentError(
                    f"{published.name}, row {number:,} is not patient, file, class and source: fetch the list again"
                )
            names = [" ".join(words[at:-2]) for at in range(1, len(words) - 2)]
            at = next((at for at, name in enumerate(names) if name in here), 0)
            source = _SOURCES.get(words[-1].lower(), words[-1].lower())
            rows.append((split, " ".join(words[: at + 1]), names[at], words[-2], source))
    return rows


def _facts(tree: Tree) -> Columns:
    rows = _rows(tree)
    return {
        "path": [f"{split}/{file}" for split, _, file, _, _ in rows],
        "patient": [f"{source} {patient}" for _, patient, _, _, source in rows],
    }


def _labels(tree: Tree) -> dict[str, LabelRows]:
    rows = _rows(tree)
    values = pa.table({"class": [row[3] for row in rows], "source": [row[4] for row in rows]})
    return {"covidx": tree.rows([f"{row[0]}/{row[2]}" for row in rows], values, split=[row[0] for row in rows])}


COLLECTION = Collection(
    name="covidx",
    title="COVIDx CXR (8A to 9B)",
    layout=("train/1-s2.0-S1684118220300608-main.pdf-001.jpg", "test/..."),
    images=r"(^|/)(train|val|test)/[^/]+\.(png|jpe?g|JPE?G)$",
    tables=tuple(LISTS.values()),
    facts=_facts,
    labels=_labels,
    always={"body_part": "CHEST"},
    expected={"images": 30_530, "train": 30_130, "test": 400},
    traps=(
        "the source tells the label in the test part: source is a column of the labels, to hold results against",
        "lists of 9A have three classes, those of 9B two: leave the lists of one",
        "file names of 8A hold spaces, and one source is spelt rnsa: both are read",
        "it holds images of RSNA, which are images of NIH ChestX-ray14",
    ),
    terms="of its sources, among them RSNA, COVID-19 Radiography, Fleischner and BIMCV",
    citation="Wang, Lin, Wong, COVID-Net, Scientific Reports 2020",
)
