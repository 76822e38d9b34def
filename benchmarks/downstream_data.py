"""Two sites of real labelled radiographs as datasets: NIH ChestX-ray14 at 256 pixels, Hannover Medical School at 320.

Both are averaged to about one size, so that one level of resolution is about one scale of anatomy. A folder holds
`nih256/`, `nih/` (the collection's table, lists and boxes, and images at 1,024 pixels) and `hannover/` (`png/`,
`data.csv`). What comes of it is built and labelled by the commands that a user would type.
"""

from __future__ import annotations

import csv
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shardkit.build.workspace import KEY
from shardkit.privacy import KEY_BYTES

NIH_SIDE, HANNOVER_STEP = 256, 2
"""Pixels of an NIH image's side, to which larger ones are averaged; of Hannover, how many pixels become one."""
TASKS = ("view", "sex")
"""Names of tables of labels that both sites have, each with one column of that name: AP and PA, M and F."""
_VIEWS = {"ap": "AP", "pa": "PA"}
_BUILD = ("--demographics", "--bins", "auto:4", "--accept-outcome", "--shard-size", "64")


def datasets(data: Path, out: Path) -> dict[str, Path]:
    """Build both sites' datasets below `out`, with their labels; one that is there stays.

    Parameters
    ----------
    data
        The folder of labelled radiographs.
    out
        Where datasets are made: `nih`, with labels `nih14`, `view` and `sex`; `hannover`, with `view` and `sex`.

    Returns
    -------
    dict of str to Path
        By site.
    """
    out.mkdir(parents=True, exist_ok=True)
    for site, make in (("nih", _nih), ("hannover", _hannover)):
        if not (out / site / "labels" / f"{TASKS[-1]}.parquet").exists():
            for left in (out / site, out / f"{site}.private", out / f"{site}.sources"):
                shutil.rmtree(left, ignore_errors=True)
            (out / f"{site}.private").mkdir()
            (out / f"{site}.private" / KEY).write_bytes(_key(site))
            make(data, out / f"{site}.sources", out / site)
    return {site: out / site for site in ("nih", "hannover")}


def _nih(data: Path, sources: Path, out: Path) -> None:
    """Build the images of both sizes as one copy of the collection, all at one size, boxes too."""
    images = sources / "images"
    images.mkdir(parents=True)
    for picture in sorted((data / "nih256" / "images").iterdir()):
        shutil.copyfile(picture, images / picture.name)
    scale: dict[str, float] = {}
    for picture in sorted((data / "nih" / "images").iterdir()):
        pixels = _pixels(picture)
        step = len(pixels) // NIH_SIDE
        scale[picture.name] = 1 / step
        if not (images / picture.name).exists():
            _save(_averaged(pixels, step), images / picture.name)
    small, large = (_rows(data / name / "Data_Entry_2017_v2020.csv") for name in ("nih256", "nih"))
    rows = {row[0]: row for row in (*large[1:], *small[1:])}
    _write(sources / "Data_Entry_2017_v2020.csv", [small[0], *(rows[name] for name in sorted(rows))])
    boxes = _rows(data / "nih" / "BBox_List_2017.csv")
    scaled = [
        [name, label, *(str(float(side) * scale[name]) for side in sides[:4])] for name, label, *sides in boxes[1:]
    ]
    _write(sources / "BBox_List_2017.csv", [boxes[0][:6], *scaled])
    lists = {name: _names(data, f"{name}_list.txt") for name in ("train_val", "test")}
    for name, found in lists.items():
        (sources / f"{name}_list.txt").write_text("\n".join(sorted(found)) + "\n")
    _shardkit("build", "--source", sources, "--collection", "nih14", "--out", out, *_BUILD)
    labels = [["image", *TASKS, "split"]]
    for name, row in sorted(rows.items()):
        labels.append([name, row[6], row[5], "test" if name in lists["test"] else "train"])
    _label(out, sources / "labels.csv", labels, "--split-column", "split")


def _hannover(data: Path, sources: Path, out: Path) -> None:
    """Build the PNG files, averaged, with the published table as facts."""
    images = sources / "png"
    images.mkdir(parents=True)
    for picture in sorted((data / "hannover" / "png").iterdir()):
        _save(_averaged(_pixels(picture), HANNOVER_STEP), images / picture.name)
    with (data / "hannover" / "data.csv").open(newline="") as file:
        published = list(csv.DictReader(file))
    facts, labels = [["path", "patient", "view", "sex", "modality"]], [["image", *TASKS]]
    for row in published:
        image, view, sex = f"{row['image_id']}.png", _VIEWS.get(row["projection"], ""), row["sex"].upper()
        facts.append([image, row["patient_id"], view, sex, row["modality"]])
        labels.append([image, view, sex])
    _write(sources / "facts.csv", facts)
    command = ("--source", images, "--facts", sources / "facts.csv", "--out", out)
    _shardkit("build", *command, *_BUILD)
    _label(out, sources / "labels.csv", labels)


def _label(out: Path, table: Path, rows: list[list[str]], *more: str) -> None:
    """Give a dataset a table of labels a task."""
    _write(table, rows)
    for task in TASKS:
        words = ("--name", task, "--table", table, "--by", "name", "--labels", task, "--kind", f"{task}=category")
        _shardkit("label", out, *words, *more)


def _key(site: str) -> bytes:
    """Make a pseudonym key of the site's name: these patients are public, and each machine gets the same splits."""
    return hashlib.shake_256(f"shardkit downstream {site}".encode()).digest(KEY_BYTES)


def _pixels(picture: Path) -> NDArray[np.float64]:
    with Image.open(picture) as opened:
        return np.asarray(opened.convert("L"), np.float64)


def _averaged(pixels: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Return the means of squares of `step` pixels; what is left at the right and at the bottom goes."""
    rows, columns = (side // step for side in pixels.shape)
    whole = pixels[: rows * step, : columns * step]
    return np.asarray(whole.reshape(rows, step, columns, step).mean((1, 3)), np.float64)


def _save(pixels: NDArray[np.float64], to: Path) -> None:
    Image.fromarray(np.round(pixels).astype(np.uint8)).save(to)


def _names(data: Path, file: str) -> set[str]:
    return {name for folder in ("nih256", "nih") for name in (data / folder / file).read_text().split()}


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _write(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def _shardkit(*words: object) -> None:
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"shardkit {words[0]} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
