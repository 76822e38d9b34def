"""The published sizes have their golden numbers, and figures of token-overhead follow from raw ones and the plan."""

from __future__ import annotations

import contextlib
import io
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cyclopts import App

from benchmarks import published, token_overhead, token_strategies
from benchmarks.token_strategies import DBB, GOAL, LARGEST
from shardkit.dataset.rounding import ceil_div

ROOT = Path(__file__).resolve().parents[2]
Rows = dict[str, dict[str, Any]]


def command(out: Path, *words: object) -> tuple[dict[str, Any], str]:
    """The figures of a run from the command line, and what it printed."""
    app, printed = App(), io.StringIO()
    app.command(token_overhead.run, name="token-overhead")
    with contextlib.redirect_stdout(printed):
        app(["token-overhead", *map(str, words), "--out", str(out)], result_action="return_value")
    assert out.with_suffix(".png").stat().st_size > 10_000
    return dict(json.loads(out.read_text())), printed.getvalue()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    return command(tmp_path_factory.mktemp("published") / "figures.json", "--images", 6000, "--repeats", 1)


@pytest.fixture(scope="module")
def result(run: tuple[dict[str, Any], str]) -> dict[str, Any]:
    return run[0]


@pytest.fixture(scope="module")
def rows(result: dict[str, Any]) -> Rows:
    (repeat,) = result["repeats"]
    return {row["name"]: row for row in repeat["rows"]}


@pytest.fixture(scope="module")
def small(dataset_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of ninety images of at most 246 pixels."""
    out = tmp_path_factory.mktemp("dataset") / "figures.json"
    return command(out, "--data", dataset_folder, "--patch", 16, "--repeats", 2)[0]


# ----------------------------------------------------------------------------------------- the published sizes


def test_the_printed_counts_give_the_published_tokens_of_dbb() -> None:
    assert published.BIN_COUNTS.sum() == 516_402
    assert published.dbb_tokens() == pytest.approx(1720.5, abs=0.05)
    assert published.dbb_tokens() * published.IMAGES == pytest.approx(1.1009e9, abs=5e4)
    assert 100 * published.dbb_tokens() * published.IMAGES / published.TOKENS == pytest.approx(119.4, abs=0.05)


def test_drawn_sizes_have_the_published_mean_quartiles_and_bins() -> None:
    height, width = published.sizes(100_000, 0)
    tokens = ceil_div(height, 48) * ceil_div(width, 48)
    assert tokens.mean() == pytest.approx(published.TOKENS / published.IMAGES, rel=0.005)
    assert np.percentile(height, [25, 50, 75]) == pytest.approx([1543, 2002, 2438], abs=15)
    assert np.percentile(width, [25, 50, 75]) == pytest.approx([1117, 1417, 1852], abs=15)
    assert 0 < height.min() < height.max() <= published.SIDE
    assert width.max() <= published.SIDE
    assert 409_600 / tokens.mean() == pytest.approx(285, abs=1.5)


def test_sizes_depend_on_the_seed_alone() -> None:
    assert np.array_equal(published.sizes(50, 3), published.sizes(50, 3))
    assert not np.array_equal(published.sizes(50, 3), published.sizes(50, 4))


def test_content_boxes_lie_in_their_images_and_have_the_published_share() -> None:
    full_height, full_width = published.sizes(5000, 1)
    top, left, height, width = published.content_boxes(full_height, full_width, 1).T
    assert min(top.min(), left.min()) >= 0
    assert (top + height <= full_height).all()
    assert (left + width <= full_width).all()
    assert height * width / (full_height * full_width) == pytest.approx(published.CONTENT, abs=0.01)


# --------------------------------------------------------------------------------------------------- the figures


@pytest.mark.deep
def test_the_golden_numbers_come_out(rows: Rows) -> None:
    assert rows["fixed, 3072 x 3072"]["tokens_pct"] == pytest.approx(285, abs=4)
    assert rows["fixed, 3072 x 3072"]["flops_pct"] == pytest.approx(371, abs=8)
    assert rows[DBB]["tokens_pct"] == pytest.approx(119.6, abs=0.7)
    assert rows[DBB]["flops_pct"] == pytest.approx(123.2, abs=1)
    assert rows[DBB]["straggler_8"] > 1.9
    assert rows[GOAL]["tokens_pct"] <= 100.5
    assert rows[GOAL]["shapes"] == 1
    assert rows[GOAL]["straggler_8"] < 1.1
    assert rows[f"{GOAL}, content box"]["tokens_pct"] == pytest.approx(82, abs=1)


@pytest.mark.deep
def test_more_bins_longer_packs_and_more_buckets_cost_less(rows: Rows) -> None:
    for names in (
        [f"{k} free bins" for k in token_strategies.FREE],
        [f"packed, {tokens:,} tokens" for tokens in (8192, 24576)],
        [f"{k} length buckets" for k in token_strategies.BUCKETS],
        [LARGEST, DBB, "optimal separable 6 x 6", "36 free bins", "36 length buckets", GOAL],
    ):
        costs = [rows[name]["flops_pct"] for name in names]
        assert costs == sorted(costs, reverse=True), names


@pytest.mark.deep
def test_each_image_at_its_own_size_is_the_measure(rows: Rows) -> None:
    for name in ("one image at a time", "a bin per patch grid"):
        assert [rows[name][column] for column in ("tokens_pct", "squares_pct", "flops_pct")] == [100, 100, 100]
    assert rows["one image at a time"]["incomplete"] == 0
    assert rows["a bin per patch grid"]["incomplete_pct"] > 50


@pytest.mark.deep
def test_ranks_with_one_bin_at_a_time_do_not_wait_for_each_other(rows: Rows) -> None:
    assert rows[f"{DBB}, one bin a step"]["straggler_8"] == 1
    assert rows[f"{DBB}, one bin a step"]["incomplete"] > rows[DBB]["incomplete"]


@pytest.mark.deep
def test_tokens_are_those_of_the_plans_own_accounts(rows: Rows, small: dict[str, Any]) -> None:
    for row in [*rows.values(), *small["repeats"][0]["rows"]]:
        if row["name"] != LARGEST:
            assert row["tokens"] == row["planned_tokens"], row["name"]


@pytest.mark.deep
def test_every_image_is_counted_once_or_left_in_an_incomplete_batch(rows: Rows, result: dict[str, Any]) -> None:
    assert {row["samples"] + row["incomplete"] for row in rows.values()} == {result["conditions"]["images"]}


def test_percentages_follow_from_raw_figures_and_summaries_from_repeats(small: dict[str, Any]) -> None:
    for row in small["repeats"][0]["rows"]:
        assert row["flops_pct"] == 100 * row["flops"] / row["flops_own"]
        assert row["thesis_compute_pct"] == pytest.approx(100 * (row["tokens"] / row["tokens_own"]) ** 2)
        assert row["incomplete_pct"] == 100 * row["incomplete"] / (row["samples"] + row["incomplete"])
    for row in small["rows"]:
        values = [r["tokens_pct"] for repeat in small["repeats"] for r in repeat["rows"] if r["name"] == row["name"]]
        wanted = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        assert row["tokens_pct"] == wanted


@pytest.mark.deep
def test_goals_follow_from_the_rows(result: dict[str, Any], rows: Rows) -> None:
    counts, tokens, shapes = result["goals"]
    assert counts["met"]
    assert (tokens["wanted"], tokens["got"]) == (100.5, rows[GOAL]["tokens_pct"])
    assert (shapes["wanted"], shapes["got"]) == (1, rows[GOAL]["shapes"])
    missed = {**result["rows"][0], "name": GOAL, "shapes": 2, "tokens_pct": {"median": 100, "min": 100, "max": 101}}
    assert [goal["met"] for goal in token_overhead.goals({**result, "rows": [missed]})] == [True, False, False]


# --------------------------------------------------------------------------------------------- datasets and words


def test_a_dataset_is_measured_by_its_manifest(small: dict[str, Any], dataset_folder: Path) -> None:
    facts, rows = small["conditions"], {row["name"]: row for row in small["rows"]}
    assert facts["images"] == json.loads((dataset_folder / "dataset.json").read_text())["samples"]
    assert facts["patch"] == 16
    assert rows["one image at a time"]["tokens_pct"]["max"] == 100
    # A pack is far larger than this dataset, and there is no step for 32 ranks.
    assert rows["packed, 65,536 tokens"]["tokens_pct"]["min"] > 200
    assert rows["packed, 65,536 tokens"]["straggler_32"] is None


def test_what_does_not_suit_the_images_is_named(small: dict[str, Any]) -> None:
    names = {row["name"] for row in small["rows"]}
    assert not names & set(small["left_out"])
    assert all(small["left_out"].values())


@pytest.mark.deep
def test_no_path_is_in_the_figures(result: dict[str, Any], small: dict[str, Any], dataset_folder: Path) -> None:
    for found in (result, small):
        text = json.dumps(found)
        assert str(ROOT) not in text
        assert str(dataset_folder) not in text
        assert "/tmp" not in text


@pytest.mark.deep
def test_the_command_prints_every_strategy_and_goal(run: tuple[dict[str, Any], str]) -> None:
    result, printed = run
    assert all(row["name"].split()[0] in printed for row in result["rows"])
    assert all(goal["goal"] in printed for goal in result["goals"])


@pytest.mark.deep
def test_the_readme_has_a_line_a_strategy(result: dict[str, Any]) -> None:
    text = token_overhead.readme(result)
    assert text.count("\n| ") == len(result["rows"]) + 2  # titles and a rule
    assert f"| {LARGEST} * |" in text
    assert "119.4 % were published" in text


def test_the_committed_figures_follow_from_their_repeats() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "token-overhead.json").read_text())
    assert token_overhead.summarise(result["repeats"]) == result["rows"]
    assert token_overhead.goals(result) == result["goals"]
    assert all(goal["met"] for goal in result["goals"])
