"""What `run.json` says of a run's data: each member's digest, and samples that a dataset is known by."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit import Dataset, Loader
from shardkit.cli import run as shardkit
from trainer.runs.training_data import normalise_at, renormalised, told, trained_at, unlike, with_former


def _told(data: str | Path, **options: Any) -> list[dict[str, Any]]:
    with_batching = {"batching": "packed:patch=16,level=1,tokens=1024", "device": "cpu", **options}
    return told(Loader(data, **with_batching))


def test_the_smallest_keys_of_the_training_split_are_named(dataset_folder: Path) -> None:
    samples = pq.read_table(dataset_folder / "manifest.parquet", columns=["key", "split"]).to_pylist()
    for split in ("train", "val"):
        [one] = _told(dataset_folder, split=split)
        assert one["keys"] == sorted(row["key"] for row in samples if row["split"] == split)[:64]
        assert one["digest"] == Dataset(str(dataset_folder)).description.digest
        assert one["normalise"] == "percentile"


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


def test_a_member_without_an_image_in_the_training_split_is_known_by_its_other_ones() -> None:
    keys = pa.table({"key": pa.array(["0c", "0a", "0e", "0b", "0d"])})
    loader: Any = SimpleNamespace(
        plan=SimpleNamespace(samples=_Samples([0, 1])),
        columns=lambda name: keys,
        members={"one": range(2), "two": range(2, 5)},
        digests={"one": "1", "two": "2"},
        normalised={"one": "percentile", "two": "zscore"},
    )
    one, two = told(loader)
    assert one == {"name": "one", "digest": "1", "keys": ["0a", "0c"], "normalise": "percentile"}
    assert two == {"name": "two", "digest": "2", "keys": [], "normalise": "zscore", "held": ["0b", "0d", "0e"]}
    facts = _facts(one, two)
    assert normalise_at(facts, _site("2")) == "zscore", "its val split is seen so in the training"
    assert normalise_at(facts, _site("grown", "0d", "0f")) == "zscore"


class _Samples(list[int]):
    """Rows of a split."""

    def row(self, at: Any) -> Any:
        return np.array(self)[at]


MEMBERS = [
    {"name": "one", "digest": "1", "keys": ["0a"], "normalise": "zscore"},
    {"name": "two", "digest": "2", "keys": ["0b", "0c"], "normalise": "0.5,0.25"},
]


def _facts(*trained: dict[str, Any]) -> dict[str, Any]:
    return {"digest": "of the mixture", "config": {"loader.normalise": "percentile"}, "trained": list(trained)}


def _site(digest: str, *keys: str) -> Any:
    table = pa.table({"key": pa.array(keys, pa.string())})
    return SimpleNamespace(description=SimpleNamespace(digest=digest), table=lambda columns: table.select(columns))


def _loader(**normalised: Any) -> Any:
    return SimpleNamespace(normalised=normalised, digests=dict.fromkeys(normalised, "1"))


@pytest.mark.parametrize(
    ("site", "way"),
    [
        (_site("1"), "zscore"),
        (_site("2", "0a"), "0.5,0.25"),
        (_site("grown", "0a", "0d"), "zscore"),
        (_site("of both", "0a", "0b", "0c"), "0.5,0.25"),
        (_site("elsewhere", "0d"), "percentile"),
    ],
)
def test_a_member_s_own_grey_levels_are_those_of_a_dataset_that_it_is_or_is_a_part_of(site: Any, way: str) -> None:
    assert normalise_at(_facts(*MEMBERS), site) == way
    bare = [{name: value for name, value in one.items() if name != "normalise"} for one in MEMBERS]
    assert normalise_at(_facts(*bare), site) == "percentile", "older runs do not know it"


def test_the_latest_way_to_normalise_counts_and_a_record_of_before_is_filled_in() -> None:
    one, two = MEMBERS
    bare = {name: value for name, value in one.items() if name != "normalise"}
    assert with_former([bare, two], [one]) == [two, one]
    assert with_former([one], [one, two]) == [one, two]
    grown = {**one, "digest": "grown"}
    assert with_former([one], [grown]) == [one, grown]
    assert normalise_at(_facts(one, {**one, "normalise": "minmax"}), _site("1")) == "minmax"


def test_a_member_that_would_be_normalised_in_another_way_is_found_by_its_digest_or_name() -> None:
    facts = _facts(*MEMBERS)
    assert renormalised(facts, _loader(another="zscore")) is None
    assert renormalised(facts, _loader(another="minmax")) == ("another", "zscore", "minmax")
    assert renormalised(facts, _loader(one="zscore", two=(0.5, 0.25))) is None
    assert renormalised(_facts({"name": "one", "digest": "1", "keys": []}), _loader(one="minmax")) is None
    grown: Any = SimpleNamespace(normalised={"two": "minmax"}, digests={"two": "grown"})
    assert renormalised(facts, grown) == ("two", "0.5,0.25", "minmax")


def test_weights_that_have_seen_other_grey_levels_are_told_of_with_the_option_that_gives_them_these() -> None:
    alone = {"config": {"loader.normalise": "minmax"}}
    said = "the weights of run were trained on images normalised by minmax, and here images are by 0.5,0.25"
    remedy = "; --loader.normalise minmax gives them what they know"
    for facts in (alone, _facts({**MEMBERS[0], "normalise": "minmax"})):
        assert unlike(facts, "run", _loader(a=(0.5, 0.25)), "0.5,0.25") == [said + remedy]
        assert unlike(facts, "run", _loader(a=(0.5, 0.25)), "zscore") == [said], "the mixture says it, not the option"
        assert unlike(facts, "run", _loader(a="minmax"), "minmax") == []
    assert unlike(_facts(*MEMBERS), "run", _loader(a="zscore"), "zscore") == [], "it has seen such images, too"
    assert unlike({}, "run", _loader(a="zscore"), "zscore") == []
