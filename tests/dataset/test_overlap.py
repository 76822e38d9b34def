"""Samples of one dataset inside another: equal, nearly equal, and negative; by split, by patient, and in no time."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pydicom
import pytest

from shardkit import cli, labels
from shardkit.dataset import contents, near
from shardkit.dataset.overlap import KINDS, Overlap, leaks, overlaps
from shardkit.errors import ArgumentError
from shardkit.storage import Store
from shardkit.synthetic.defects import file_bytes
from shardkit.synthetic.records import ImageSpec

FORMATS: dict[str, dict[str, Any]] = {"webdataset": {}, "zarr": {"format": "zarr", "codec": "blosc", "levels": 2}}
REGIONS = ("hand", "chest", "knee", "skull", "foot", "elbow", "wrist", "shoulder")
Change = Callable[[npt.NDArray[np.uint16]], npt.NDArray[np.uint16]]


def noisy(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    noise = np.random.default_rng(1).integers(-2, 3, pixels.shape)
    return np.clip(pixels.astype(int) + noise, 0, 4095).astype(np.uint16)


def negative(pixels: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return (4095 - pixels).astype(np.uint16)


@dataclass(frozen=True)
class Two:
    """Two datasets: the other has images 0 to 2 of the first, a noisy copy of 3, the negative of 4, and two more."""

    first: str
    other: str

    def keys(self, which: str) -> dict[int, str]:
        """Number of an image, which its width tells -> key."""
        rows = contents.samples(Store(which)).to_pylist()
        return {(row["width"] - 200) // 8: row["key"] for row in rows}


def write(folder: Path, spec: ImageSpec, number: int, other: bool, change: Change | None = None) -> None:
    study = replace(spec.study, patient=replace(spec.study.patient, number=f"PID{other}{number}"), uid=f"1.2.{number}")
    spec = replace(
        spec, study=study, seed=(number, 7), region=REGIONS[number % 8], height=300, width=200 + 8 * number,
        sop_uid=f"1.2.826.0.1.{number + 100 * other}",
    )  # fmt: skip
    data = pydicom.dcmread(io.BytesIO(file_bytes(spec)))
    if change is not None:
        data.PixelData = change(data.pixel_array).tobytes()
    folder.mkdir(exist_ok=True)
    data.save_as(folder / f"{number}.dcm")


@pytest.fixture(scope="module")
def other(image_spec: Any, make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The other dataset, in tars and under a key of its own."""
    place = tmp_path_factory.mktemp("other")
    for number, change in ((0, None), (1, None), (2, None), (3, noisy), (4, negative), (8, None), (9, None)):
        write(place / "export", image_spec(), number, True, change)
    (place / "set.private").mkdir(0o700)
    (place / "set.private" / "pseudonym.key").touch(0o600)
    (place / "set.private" / "pseudonym.key").write_bytes(b"k" * 32)
    return make_dataset(place / "export", place / "set", bins="auto:2")


@pytest.fixture(scope="module")
def two(
    form: str, other: Path, image_spec: Any, make_dataset: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Two:
    """Both; the first in the form of the test."""
    place = tmp_path_factory.mktemp("first")
    for number in range(8):
        write(place / "export", image_spec(), number, False)
    first = make_dataset(place / "export", place / "set", bins="auto:2", **FORMATS[form])
    return Two(str(first), str(other))


def mark(place: str, splits: dict[str, str | None], name: str = "own") -> None:
    """Give a dataset labels with an official split by key."""
    described = labels.LabelsDescription(
        name=name, level="image", kinds={"x": "binary"}, rows={"matched": 1, "ambiguous": 0, "unmatched": 0}
    )
    table = pa.table({"key": list(splits), "x": pa.array([1] * len(splits), pa.int8()), "split": list(splits.values())})
    labels.write(Store(place), labels.LabelTable(described, table))


@pytest.mark.formats
def test_equal_near_and_negative_samples_are_found_and_no_others(two: Two) -> None:
    (found,) = overlaps([two.first, two.other])
    here, there = two.keys(two.first), two.keys(two.other)
    pairs = {(row["key"], row["other_key"]): row["kind"] for row in found.pairs.to_pylist()}
    equal = {(here[i], there[i]): "equal" for i in range(3)}
    assert pairs == equal | {(here[3], there[3]): "near", (here[4], there[4]): "negative"}
    assert found.kinds() == dict(zip(KINDS, (3, 1, 1), strict=True))
    assert found.shared == (5, 5)
    assert (found.samples, found.other_samples) == (8, 7)
    (back,) = overlaps([two.other, two.first])
    assert {(row["other_key"], row["key"]): row["kind"] for row in back.pairs.to_pylist()} == pairs


def test_close_hashes_alone_are_not_enough(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    (sure,) = overlaps([two.first, two.other])
    every = np.stack(np.meshgrid(np.arange(8), np.arange(7)), -1).reshape(-1, 2)
    monkeypatch.setattr(near, "near_pairs", lambda hashes, others: every)
    monkeypatch.setattr(near, "inverted_pairs", lambda hashes, others: every)
    (found,) = overlaps([two.first, two.other])
    assert found.pairs.equals(sure.pairs)


def test_pairs_are_counted_by_the_splits_that_they_lie_in(two: Two) -> None:
    (found,) = overlaps([two.first, two.other])
    split = {
        row["key"]: row["split"] for place in (two.first, two.other)
        for row in contents.samples(Store(place)).to_pylist()
    }  # fmt: skip
    told = [(split[row["key"]], split[row["other_key"]]) for row in found.pairs.to_pylist()]
    assert found.counts() == {pair: told.count(pair) for pair in told}
    assert found.leaks == sum((a == "train") != (b == "train") for a, b in told)


def test_official_splits_and_the_patients_whom_samples_link(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = two.keys(two.first), two.keys(two.other)
    mark(two.first, dict.fromkeys(here.values(), "train"))
    mark(two.other, {there[0]: "train", there[1]: "test", there[2]: None, there[3]: "train", there[4]: "train"})
    (found,) = overlaps([two.first, two.other], "own")
    assert found.counts() == {("train", "train"): 3, ("train", "test"): 1, ("train", ""): 1}
    assert (found.leaks, found.patients) == (1, 1)
    assert cli.run(["overlap", two.first, two.other, "--split", "own"]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "5 of 8 samples lie in the other, 5 of its 7" in said
    assert "equal pixels 3, near-duplicates 1, negatives 1" in said
    assert f"splits: rows of {two.first}, columns of {two.other}" in said
    assert "leak: 1 pair in the train split of one" in said
    assert "leak: 1 patient with samples in the train split of one" in said
    mark(two.other, dict.fromkeys(there.values(), "train"))
    assert cli.run(["overlap", two.first, two.other, "--split", "own"]) == 0
    assert "no pair and no patient lies in the train split of one" in " ".join(capsys.readouterr().out.split())
    for place in (two.first, two.other):
        labels.remove(Store(place), "own")
    with pytest.raises(ArgumentError, match="none of the datasets has labels named own"):
        overlaps([two.first, two.other], "own")


def test_what_leaks() -> None:
    assert leaks("train", "test")
    assert leaks("val", "train")
    assert not leaks("train", "train")
    assert not leaks("val", "test")
    assert not leaks("train", "")


def test_every_pair_is_printed_by_key_and_nothing_private(
    two: Two, make_dataset: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["overlap", two.first, two.other, "--csv"])
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    (found,) = overlaps([two.first, two.other])
    assert [(row["key"], row["other_key"], row["kind"]) for row in rows] == [
        (row["key"], row["other_key"], row["kind"]) for row in found.pairs.to_pylist()
    ]
    assert "5 of 8 samples" in err
    assert not {"PID", ".dcm"} & {word for word in ("PID", ".dcm") if word in out + err}


def test_three_datasets_are_compared_two_by_two(two: Two, dataset_folder: Path) -> None:
    found = overlaps([two.first, two.other, str(dataset_folder)])
    assert [(one.first, one.other) for one in found] == [
        (two.first, two.other), (two.first, str(dataset_folder)), (two.other, str(dataset_folder)),
    ]  # fmt: skip
    assert [isinstance(one, Overlap) and one.pairs.num_rows for one in found] == [5, 0, 0]


def test_one_dataset_or_one_named_twice_is_refused(two: Two, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ArgumentError, match="name at least two"):
        overlaps([two.first])
    with pytest.raises(ArgumentError, match="is named twice"):
        overlaps([two.first, f"{two.first}/"])
    assert cli.run(["overlap", two.first]) == 1
    assert "name at least two" in capsys.readouterr().err


def test_a_hundred_thousand_hashes_meet_as_many_in_seconds() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << near.HASH_BITS, 100_000).astype(np.uint64)
    others = rng.integers(0, 1 << near.HASH_BITS, 100_000).astype(np.uint64)
    copies = rng.choice(100_000, 30_000, replace=False)
    others[copies] = hashes[copies] ^ (np.uint64(1) << rng.integers(0, near.HASH_BITS, 30_000).astype(np.uint64))
    before = time.process_time()
    pairs = near.near_pairs(hashes, others)
    assert time.process_time() - before < 20
    assert {(int(i), int(i)) for i in copies} <= {(int(i), int(j)) for i, j in pairs}
