"""Signs of a collapse are numbers with known values, and a run that shows them says so, in its log and on its page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from shardkit.terminal.output import Terminal
from tests.trainer.objectives.views_made import objective, steps_of, trained
from trainer import metrics
from trainer.objectives import collapse
from trainer.report import run_page
from trainer.runs.log import Log, Step

EVERY = torch.ones(512)


def finished(found: metrics.Metrics) -> metrics.Sums:
    return {**metrics.named(found), **metrics.finished(metrics.for_later(found))}


def _measured(features: Tensor, weight: Tensor) -> dict[str, float | None]:
    return metrics.means(finished(collapse.of_features(features, weight)))


def test_features_of_one_direction_have_no_deviation_and_those_at_random_have_one() -> None:
    torch.manual_seed(0)
    same, random = torch.randn(1, 64).expand(512, 64), torch.randn(512, 64)
    lengths = torch.rand(512, 1) + 0.5  # which do not count
    assert _measured(same * lengths, EVERY)["feature_deviation"] == pytest.approx(0, abs=1e-5)
    assert _measured(random * lengths, EVERY)["feature_deviation"] == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("directions", [1, 3, 7])
def test_the_effective_rank_is_the_number_of_directions_that_differ_alike(directions: int) -> None:
    torch.manual_seed(0)
    base = torch.linalg.qr(torch.randn(64, 64)).Q[:directions]
    signs = torch.cat([torch.eye(directions), -torch.eye(directions)]).double()
    rows = signs @ base.double()
    assert float(collapse.effective_rank(rows @ rows.T)) == pytest.approx(directions)


@pytest.mark.parametrize("images", [2, 3, 4, 5])
def test_few_images_that_differ_as_much_as_they_can_are_no_collapse(images: int) -> None:
    found = _measured(torch.eye(8)[:images], torch.ones(images))
    assert collapse.alarm(found) == ""
    assert (found["effective_rank"] is None) == (images < 4)


def test_places_without_an_image_are_in_no_sign() -> None:
    torch.manual_seed(0)
    features, weight = torch.randn(8, 16), torch.tensor([1.0, 1, 1, 1, 1, 0, 0, 0])
    other = torch.where(weight[:, None] > 0, features, 1e6)
    assert _measured(features, weight) == _measured(other, weight)
    none = _measured(features, torch.zeros(8))
    assert none == {"feature_deviation": None, "effective_rank": None}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_features_that_are_not_finite_have_no_signs_and_end_nothing(value: float) -> None:
    features = torch.randn(4, 8)
    features[1, 2] = value
    assert _measured(features, torch.ones(4)) == {"feature_deviation": None, "effective_rank": None}
    assert _measured(features, torch.tensor([1.0, 0, 1, 1]))["feature_deviation"] is not None


@pytest.mark.parametrize("method", ["dino", "moco"])
def test_a_step_whose_images_are_not_finite_is_skipped_and_leaves_nothing(method: str, tmp_path: Path) -> None:
    batches = steps_of(0, 1, 2, 32, micros=1)
    batches[1].views[0][:, 0] = math.nan
    found = [trained(objective(method, "vit"), batches, steps, tmp_path) for steps in (1, 2)]
    assert math.isnan(found[1]["losses"][1])
    for part in ("weights", "kept"):
        for name, value in ((n, v) for n, v in found[0][part].items() if n != "temperature"):  # of the epoch
            torch.testing.assert_close(found[1][part][name], value, rtol=0, atol=0)


def test_entropy_is_a_share_of_that_of_equal_probabilities() -> None:
    rows = torch.stack([torch.full((16,), 1 / 16), torch.eye(16)[3], torch.full((16,), math.nan)])
    total, count = collapse.entropy(rows[:2], torch.ones(2)).tolist()
    assert (total / count, count) == (pytest.approx(0.5), 2)
    assert collapse.entropy(rows, torch.tensor([1.0, 1, 0])).tolist() == pytest.approx([1, 2])


def _step(number: int, deviation: float) -> Step:
    one = torch.ones((), dtype=torch.float64)
    sums = dict.fromkeys(("loss", "weight", "images", "tokens", "padded_tokens", "flops", "padded_flops", "norm"), one)
    found = {"feature_deviation": torch.tensor([deviation, 1.0]), "effective_rank": torch.tensor([9.0, 1.0])}
    by_bin = {"loss_by_bin": torch.ones(2, 1, dtype=torch.float64)}
    return Step(number, 0, 1e-3, 0.0, {**sums, **by_bin, **metrics.named(found)})


def test_a_run_says_once_that_it_collapses_and_not_in_its_first_steps(tmp_path: Path) -> None:
    said = Terminal(record=True, width=200, file=(tmp_path / "said").open("w"))
    log = Log(tmp_path, ["a"], 100, None, 1, said, False)
    log.begin(0, 0)
    for number, deviation in ((5, 0.001), (10, 0.5), (20, 0.001), (30, 0.001), (40, 0.5), (50, 0.001)):
        log.add(_step(number, deviation))
        log.line()
    lines = [line for line in said.export_text().splitlines() if "become nearly one" in line]
    assert [line.split(":")[0] for line in lines] == ["step 20", "step 50"], lines
    assert "feature deviation 0.001, below 0.05" in lines[0]


@pytest.mark.parametrize(("deviation", "told"), [(0.001, True), (0.5, False)])
def test_the_page_of_a_run_says_that_it_has_collapsed(tmp_path: Path, deviation: float, told: bool) -> None:
    log = Log(tmp_path, ["a"], 100, None, 1, Terminal(quiet=True), False)
    log.begin(0, 0)
    log.add(_step(100, deviation))
    log.line()
    facts: dict[str, Any] = {
        "recipe": "r",
        "config": {},
        "init": None,
        "baseline": None,
        "data": "d",
        "digest": "0",
        "parameters": 1,
    }
    (tmp_path / "run.json").write_text(json.dumps({**facts, "device": "CPU", "world_size": 1}))
    assert ("have become nearly one" in run_page.write(tmp_path).read_text()) == told
