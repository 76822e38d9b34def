"""A run on a mixture that normalises a member in its own way sees that member's images so ever after."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shardkit import Dataset
from shardkit.cli import run as shardkit
from tests.trainer.tasks.conftest import by_patient, put_labels
from trainer.assess.weights import of_recipe, of_run
from trainer.commands.cli import run as command
from trainer.evaluate.predictions import read
from trainer.recipes.registry import RECIPES

SMALL = """
--labels sizes --objective.columns high wide --model.width 16 --model.depth 1 --model.heads 2
--loader.batching packed:level=2,patch=8,per_step=2,tokens=1024 --run.steps 2 --val.every 0 --select.metric=
--save.every 2 --log.pictures 0 --log.baseline 0 --log.no-tensorboard --loader.normalise percentile
"""


@pytest.fixture(scope="module")
def place(synthetic: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a dataset, `data`; a run on a mixture of it by z-scores; and what the run is to be held against.

    `plain` is the run as one of `--loader.normalise zscore`, `old` as one of the version that did not know its members'
    ways.
    """
    folder = tmp_path_factory.mktemp("members")
    shutil.copytree(synthetic("webdataset"), folder / "data")
    put_labels(folder / "data", "sizes", by_patient)
    mixed = str(folder / "mixed.json")
    assert shardkit(["mix", mixed, f"one={folder / 'data'}", "--normalise", "one=zscore"]) == 0
    assert command(["finetune", "--data", mixed, "--out", str(folder / "run"), *SMALL.split()]) == 0
    for name, general in (("plain", "zscore"), ("old", "percentile")):
        shutil.copytree(folder / "run", folder / name)
        facts = json.loads((folder / name / "run.json").read_text())
        facts["config"]["loader.normalise"] = general
        for one in facts["trained"]:
            one.pop("normalise", None)
        (folder / name / "run.json").write_text(json.dumps(facts))
    return folder


def test_it_is_evaluated_so_on_that_member_and_anew_where_it_was_not(place: Path, tmp_path: Path) -> None:
    def scores(run: str, out: str) -> Any:
        words = ["evaluate", str(place / run), "--data", str(place / "data"), "--split", "all", "--bootstrap", "100"]
        assert command([*words, "--no-pictures", "--out", str(tmp_path / out)]) == 0
        return read(tmp_path / out / run / "data" / "predictions.parquet").scores

    found, wanted, general = (scores(run, run) for run in ("run", "plain", "old"))
    assert np.array_equal(found, wanted)
    assert not np.allclose(found, general)
    assert np.array_equal(scores("old", "old"), general)
    kept = json.loads((place / "old" / "run.json").read_text())
    try:  # as if it had gone on with this version, without a better checkpoint
        (place / "old" / "run.json").write_text((place / "run" / "run.json").read_text())
        assert np.array_equal(scores("old", "old"), wanted)
    finally:
        (place / "old" / "run.json").write_text(json.dumps(kept))


def test_it_is_explained_so_on_that_member_and_the_page_says_it(place: Path, tmp_path: Path) -> None:
    key, maps = Dataset(str(place / "data")).filter(split="train").keys[0], {}
    for run, how in (("run", "zscore"), ("plain", "zscore"), ("old", "percentile")):
        words = ["explain", str(place / run), "--data", str(place / "data"), "--keys", key, "--save-maps"]
        assert command([*words, "--class", "high", "--out", str(tmp_path / run)]) == 0
        assert json.loads((tmp_path / run / "boxes.json").read_text())["about"]["normalise"] == how
        with np.load(tmp_path / run / "maps" / f"{key}.npz") as file:
            maps[run] = file["tokens"]
    assert np.array_equal(maps["run"], maps["plain"])
    assert not np.allclose(maps["run"], maps["old"])


def test_it_is_assessed_so_on_that_member_and_as_ever_elsewhere(
    place: Path, large_and_small: Path, tmp_path: Path
) -> None:
    def ways(run: str) -> list[str]:
        weights = of_run(place / run)
        of = (str(place / "data"), str(large_and_small), str(place / "mixed.json"))
        return [weights.loader_at(each).normalise for each in of]

    assert ways("run") == ["zscore", "percentile", "percentile"], "the mixture says it by itself"
    assert ways("old") == ["percentile"] * 3


def test_on_a_recipe_s_network_the_weights_of_a_run_get_the_run_s_grey_levels_and_it_is_said(
    place: Path, large_and_small: Path
) -> None:
    weights = of_recipe("tiny", str(place / "plain"))
    ways = [weights.loader_at(str(each)).normalise for each in (large_and_small, place / "mixed.json")]
    assert ways == ["zscore", "zscore"]
    own = RECIPES["tiny"].config.loader.normalise
    assert weights.note == f"; images are normalised as for that run, by zscore, not as in the recipe tiny, by {own}"
    assert of_recipe("tiny", str(place / "old")).note == ""


@pytest.mark.deep
def test_features_are_those_of_a_run_with_these_grey_levels(place: Path, tmp_path: Path) -> None:
    words = ["--data", str(place / "data"), "--labels", "sizes", "--objective.columns", "high", "--fractions", "1"]
    found = []
    for run in ("run", "plain", "old"):
        out = tmp_path / run
        assert command(["assess", str(place / run), *words, "--replicates", "10", "--out", str(out)]) == 0
        kept = {path.name: np.load(path).tobytes() for path in (out / "features").iterdir()}
        found.append((json.loads((out / "assess.json").read_text())["normalise"], kept))
    assert found[0] == found[1]
    assert found[0][0] == "zscore"
    assert not found[0][1].keys() & found[2][1].keys()
