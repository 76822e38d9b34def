"""What `run.json` says of a run's data: each member's digest, and samples that a dataset is known by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shardkit import Dataset, Loader
from shardkit.cli import run as shardkit
from trainer.runs.training_data import told, trained_at


def _told(data: str | Path, **options: Any) -> list[dict[str, Any]]:
    with_batching = {"batching": "packed:patch=16,level=1,tokens=1024", "device": "cpu", **options}
    return told(Loader(data, **with_batching))


def test_the_smallest_keys_of_the_training_split_are_named(dataset_folder: Path) -> None:
    samples = pq.read_table(dataset_folder / "manifest.parquet", columns=["key", "split"]).to_pylist()
    for split in ("train", "val"):
        [one] = _told(dataset_folder, split=split)
        assert one["keys"] == sorted(row["key"] for row in samples if row["split"] == split)[:64]
        assert one["digest"] == Dataset(str(dataset_folder)).description.digest


@pytest.mark.deep
def test_a_mixture_names_each_member_that_is_trained_on(
    dataset_folder: Path, large_and_small: Path, tmp_path: Path
) -> None:
    path = tmp_path / "mix.json"
    assert shardkit(["mix", str(path), f"one={dataset_folder}:0.5", f"two={large_and_small}"]) == 0
    loader = Loader(path, batching="packed:patch=16,level=1,tokens=65536", split="all", device="cpu")
    found = told(loader)
    sites = [Dataset(str(each)) for each in (dataset_folder, large_and_small)]
    assert [(one["name"], one["digest"]) for one in found] == [
        (name, site.description.digest) for name, site in zip(("one", "two"), sites, strict=True)
    ]
    facts = {"digest": loader.state_dict()["manifest_digest"], "trained": found}
    assert facts["digest"] not in [one["digest"] for one in found]
    assert all(trained_at(facts, site) for site in sites)
    assert not trained_at({**facts, "trained": found[:1]}, sites[1])
    assert not trained_at({"digest": facts["digest"]}, sites[0]), "an older run names no samples"
