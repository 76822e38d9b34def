"""Predictions join those of a folder where they make a page together, and replace none of anything else."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit.errors import ArgumentError
from tests.trainer.evaluate.folders import ABOUT, DRAWS, put
from trainer.evaluate.joining import check
from trainer.evaluate.predictions import PredictionsAbout, read
from trainer.evaluate.results import FILE, evaluation, found

KNOWN: dict[str, Any] = {"images": 12, "patients": 6, "origin": "o1", "checkpoint": "c1"}


def _asked(folder: Path, **about: Any) -> list[tuple[Path, PredictionsAbout]]:
    of = replace(ABOUT, **{"origin": "o1", "checkpoint": "c1", **about})
    seed = "" if of.seed is None else f"seed_{of.seed}"
    return [(folder / of.run / seed / of.site / FILE, of)]


@pytest.mark.parametrize(
    "about",
    [
        {"checkpoint": "c2"},
        {"origin": "moved"},
        {"split_digest": "12ab"},
        {"site": "hannover", "digest": "ef56"},
        {"run": "scratch", "origin": "o2", "checkpoint": "c2", "digest": "ef56", "split": "val"},
        {"run": "scratch", "classes": ABOUT.classes[::-1]},
        {"origin": "", "checkpoint": "c2"},
    ],
)
def test_what_is_of_the_same_or_stands_beside_it_joins(tmp_path: Path, about: dict[str, Any]) -> None:
    put(tmp_path, **KNOWN)
    check(tmp_path, _asked(tmp_path, **about))


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"split": "val"}, "another split, test, not val"),
        ({"digest": "ef56"}, "another dataset"),
        ({"labels": "view"}, "another table of labels"),
        ({"labels_digest": "ef56"}, r"the labels findings as they were \(cd34\), and they have changed since \(ef56\)"),
        ({"origin": "o2", "checkpoint": "c2"}, "another run that is called ft"),
        ({"origin": "o2", "checkpoint": "c2", "site": "hannover"}, "another run that is called ft"),
        ({"seed": 0}, "single run in one of"),
        ({"run": "view", "classes": ("AP", "PA"), "kind": "multiclass"}, "a page is of one task"),
    ],
)
def test_what_would_replace_or_stand_beside_something_else_is_refused_with_the_path(
    tmp_path: Path, about: dict[str, Any], said: str
) -> None:
    put(tmp_path, **KNOWN)
    with pytest.raises(ArgumentError, match=said) as refused:
        check(tmp_path, _asked(tmp_path, **about))
    assert str(tmp_path / "ft" / "nih" / FILE) in str(refused.value)
    assert "another --out" in str(refused.value)


def test_an_official_split_that_has_changed_is_refused_though_its_name_is_the_same(tmp_path: Path) -> None:
    put(tmp_path, **KNOWN, split="tab:test", split_digest="12ab")
    check(tmp_path, _asked(tmp_path, split="tab:test", split_digest="12ab"))
    with pytest.raises(ArgumentError, match=r"labels of the split tab:test as they were \(12ab\)"):
        check(tmp_path, _asked(tmp_path, split="tab:test", split_digest="34cd"))


def test_a_file_that_is_of_no_use_is_replaced(tmp_path: Path) -> None:
    put(tmp_path, **KNOWN)
    (tmp_path / "ft" / "nih" / FILE).write_bytes(b"nothing")
    check(tmp_path, _asked(tmp_path, split="val"))


def test_seeds_of_one_run_are_told_from_those_of_another(tmp_path: Path) -> None:
    for seed in (0, 1):
        put(tmp_path, **KNOWN, seed=seed)
    check(tmp_path, _asked(tmp_path, seed=2, checkpoint="c2"))
    with pytest.raises(ArgumentError, match="another run"):
        check(tmp_path, _asked(tmp_path, seed=2, checkpoint="c2", origin="o2"))


def test_classes_in_another_order_are_put_in_one(tmp_path: Path) -> None:
    made = put(tmp_path, **KNOWN)
    put(tmp_path, **KNOWN, run="turned", classes=ABOUT.classes[::-1])
    one, other = evaluation(found(tmp_path), DRAWS).entries
    assert one.first.classes == other.first.classes == made.classes
    turned = read(tmp_path / "turned" / "nih" / FILE)
    np.testing.assert_array_equal(other.first.scores, turned.scores[:, ::-1])


def test_datasets_of_one_name_are_two_sites(tmp_path: Path) -> None:
    put(tmp_path, **KNOWN, site="shards", digest="ab12cd34")
    put(tmp_path, **KNOWN, run="other", site="shards", digest="ff12cd34")
    of = evaluation(found(tmp_path), DRAWS)
    assert sorted(of.sites) == ["shards-ab12cd", "shards-ff12cd"]
    assert [len(of.at(site)) for site in of.sites] == [1, 1]


def test_a_single_run_and_seeds_of_its_name_make_no_page(tmp_path: Path) -> None:
    put(tmp_path, **KNOWN)
    put(tmp_path, **KNOWN, seed=0)
    with pytest.raises(ArgumentError, match="single run in one of"):
        evaluation(found(tmp_path), DRAWS)


def test_seeds_of_two_splits_or_twice_the_same_make_no_page(tmp_path: Path) -> None:
    put(tmp_path, **KNOWN, seed=0)
    put(tmp_path, **KNOWN, seed=1, split="val")
    with pytest.raises(ArgumentError, match="the same split of all seeds"):
        evaluation(found(tmp_path), DRAWS)
    shutil.rmtree(tmp_path / "ft" / "seed_1")
    shutil.copytree(tmp_path / "ft" / "seed_0", tmp_path / "ft" / "seed_7")
    with pytest.raises(ArgumentError, match="of the same run and dataset"):
        evaluation(found(tmp_path), DRAWS)
