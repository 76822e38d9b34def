"""Chosen bins: the optimiser against brute force and on published sizes, grids, and what a user may name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardkit.dataset import patch_grids
from shardkit.dataset.bin_choice import optimise, parse, separable
from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.dataset.rounding import ceil_div
from shardkit.errors import ArgumentError
from shardkit.synthetic.radiographs import synth_sizes

Sizes = tuple[npt.NDArray[Any], npt.NDArray[Any]]
SIDE, PATCH = 3072, 48
# Printed by `token_overhead.py --quick`: padded / used of its 36 free bins, and of the thesis's grid.
PROBE_36, THESIS_OVERHEAD = 1.126, 1.196

seeds = st.integers(0, 2**32 - 1)
relaxed = settings(max_examples=15, deadline=None)


def clustered_sizes(seed: int, n: int, side: int = SIDE) -> npt.NDArray[np.int64]:
    """Sizes around a few centres, some exactly on them, with a sprinkle of uniform ones."""
    rng = np.random.default_rng(seed)
    centres = rng.integers(1, side + 1, (int(rng.integers(1, 30)), 2))
    spread = rng.integers(0, side // 8 + 1)
    sizes = centres[rng.integers(0, len(centres), n)] + rng.integers(-spread, spread + 1, (n, 2))
    uniform = rng.random(n) < 0.1
    sizes[uniform] = rng.integers(1, side + 1, (int(uniform.sum()), 2))
    found: npt.NDArray[np.int64] = np.clip(sizes, 1, side).T
    return found


@pytest.fixture(scope="module")
def published() -> Sizes:
    heights, widths, _ = synth_sizes(639_877, np.random.default_rng(0))
    return heights, widths


def test_chunks_do_not_change_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    heights, widths = clustered_sizes(3, 1000)
    bins = Bins(THESIS, PATCH)
    index, account = bins.assign(heights, widths), bins.account(heights, widths)
    chosen = optimise(heights, widths, 5, PATCH, SIDE)
    monkeypatch.setattr(patch_grids, "_CHUNK", 77)
    assert (bins.assign(heights, widths) == index).all()
    assert bins.account(heights, widths) == account
    assert optimise(heights, widths, 5, PATCH, SIDE) == chosen


def test_the_published_sizes_need_no_more_tokens_than_the_probe_found(published: Sizes) -> None:
    bins = optimise(*published, 36, PATCH, SIDE)
    overhead = bins.account(*published).overhead
    assert len(bins.bins) <= 36
    assert overhead <= PROBE_36 + 0.005
    assert overhead <= THESIS_OVERHEAD - 0.06


def test_the_thesis_grid_costs_on_synthetic_sizes_what_was_published(published: Sizes) -> None:
    assert Bins(THESIS, PATCH).account(*published).overhead == pytest.approx(THESIS_OVERHEAD, abs=0.005)


def test_bins_fitted_to_a_part_of_the_published_sizes_serve_the_whole(published: Sizes) -> None:
    heights, widths = published
    bins = optimise(heights[:50_000], widths[:50_000], 36, PATCH, SIDE)
    assert bins.account(heights, widths).overhead <= PROBE_36 + 0.01


def test_more_bins_never_cost_more_on_the_published_sizes(published: Sizes) -> None:
    costs = [optimise(*published, k, PATCH, SIDE).account(*published).padded for k in (1, 2, 4, 9, 16, 36)]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == len(published[0]) * 64 * 64


def test_small_patches_are_affordable_and_nearly_as_good(published: Sizes) -> None:
    assert optimise(*published, 36, 16, SIDE).account(*published).overhead < 1.155
    assert optimise(*published, 8, 1, SIDE).account(*published).overhead < 1.36


@given(seeds, st.integers(1, 25), st.integers(0, 1500))
@relaxed
def test_every_admissible_size_has_a_bin_and_the_number_of_bins_is_bounded(seed: int, k: int, n: int) -> None:
    heights, widths = clustered_sizes(seed, n, side=1000)
    bins = optimise(heights, widths, k, PATCH, 1000)
    assert len(bins.bins) <= max(1, min(k, n // 8))
    assert bins.bins[-1] == Bin(1008, 1008)
    assert all(bins.account(heights, widths).counts[:-1])
    assert max(max(b.height, b.width) for b in bins.bins) == 1008
    sides = np.unique(np.append(np.arange(1, 1001, 13), 1000))
    bins.assign(np.repeat(sides, len(sides)), np.tile(sides, len(sides)))


@given(seeds)
@relaxed
def test_the_order_of_the_images_does_not_matter(seed: int) -> None:
    heights, widths = clustered_sizes(seed, 400)
    order = np.random.default_rng(seed).permutation(400)
    bins = optimise(heights, widths, 5, PATCH, SIDE)
    assert optimise(heights[order], widths[order], 5, PATCH, SIDE) == bins


@pytest.mark.deep
@given(seeds, st.integers(288, 1200))
@settings(max_examples=6, deadline=None)
def test_free_bins_are_never_worse_than_the_thesis_grid(seed: int, n: int) -> None:
    heights, widths = clustered_sizes(seed, n)
    ours = optimise(heights, widths, 36, PATCH, SIDE).account(heights, widths)
    assert ours.padded <= Bins(THESIS, PATCH).account(heights, widths).padded


def naive_greedy(heights: Any, widths: Any, k: int, patch: int, side: int) -> int:
    """Adds to the catch-all, k - 1 times, the rectangle that lowers the padded tokens most; padded tokens."""
    n = ceil_div(side, patch)
    rows, cols = ceil_div(heights, patch), ceil_div(widths, patch)
    corners = [(h, w) for h in range(1, n + 1) for w in range(1, n + 1)]
    cost = np.full(len(rows), n * n)
    for _ in range(k - 1):
        cost = min(
            (np.where((rows <= h) & (cols <= w), np.minimum(cost, h * w), cost) for h, w in corners),
            key=lambda c: int(c.sum()),
        )
    return int(cost.sum())


@given(seeds, st.integers(1, 6))
@relaxed
def test_the_search_is_never_worse_than_its_greedy_start(seed: int, k: int) -> None:
    heights, widths = clustered_sizes(seed, 100, side=96)
    ours = optimise(heights, widths, k, 8, 96).account(heights, widths).padded
    assert ours <= naive_greedy(heights, widths, k, 8, 96)


def brute_force(rows: Any, cols: Any, k: int, n: int) -> int:
    """Least padded tokens of the n x n catch-all and any k - 1 rectangles of an n x n grid."""
    costs = np.stack(
        [np.where((rows <= h) & (cols <= w), h * w, n * n) for h in range(1, n + 1) for w in range(1, n + 1)]
    )
    return min(int(costs[list(c)].min(0).sum()) for c in itertools.combinations(range(len(costs)), k - 1))


def test_two_bins_are_optimal_and_three_nearly_always() -> None:
    ratios = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        cells = rng.choice(25, 120, p=rng.dirichlet(np.full(25, 0.3)))
        rows, cols = cells // 5 + 1, cells % 5 + 1
        two, three = (optimise(rows * 8, cols * 8, k, 8, 40).account(rows * 8, cols * 8).padded for k in (2, 3))
        assert two == brute_force(rows, cols, 2, 5)
        ratios.append(three / brute_force(rows, cols, 3, 5))
    assert min(ratios) >= 1
    assert sum(r == 1 for r in ratios) >= 36
    assert max(ratios) < 1.1


def test_sizes_no_more_numerous_than_bins_are_stored_without_padding() -> None:
    heights, widths = np.repeat([[960, 480, 1200], [480, 960, 1200]], 20, axis=1)
    bins = optimise(heights, widths, 36, PATCH, SIDE)
    assert bins.bins == (Bin(480, 960), Bin(960, 480), Bin(1200, 1200), Bin(SIDE, SIDE))
    assert bins.account(heights, widths).overhead == 1.0


@pytest.mark.parametrize(("n", "most"), [(0, 1), (7, 1), (15, 1), (16, 2), (80, 10)])
def test_few_images_get_few_bins(n: int, most: int) -> None:
    heights, widths = clustered_sizes(5, n)
    assert len(optimise(heights, widths, 36, PATCH, SIDE).bins) <= most


def test_an_image_above_the_largest_side_is_named() -> None:
    with pytest.raises(ArgumentError, match="image 1 has the width 3073, above the largest side admitted, 3072"):
        optimise([5, 5], [5, 3073], 4, PATCH, SIDE)


@pytest.mark.parametrize(("k", "patch", "side"), [(0, 48, 100), (3, 0, 100), (3, 48, 0)])
def test_counts_below_one_are_refused(k: int, patch: int, side: int) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        optimise([5], [5], k, patch, side)


def test_the_best_grid_beats_the_thesis_grid_and_loses_to_free_bins(published: Sizes) -> None:
    grid = separable(*published, 6, 6, PATCH)
    cost = grid.account(*published).overhead
    assert len(grid.bins) == 36
    assert optimise(*published, 36, PATCH, SIDE).account(*published).overhead < cost < THESIS_OVERHEAD


@given(st.lists(st.integers(1, 80), min_size=1, max_size=30), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_cutoffs_along_one_axis_are_optimal(heights: Any, k: int) -> None:
    rows = ceil_div(np.array(heights), 8)
    lines = np.unique(rows).tolist()
    best = min(
        int(np.array([min(c for c in (*cut, lines[-1]) if c >= r) for r in rows]).sum())
        for cut in itertools.combinations(lines[:-1], min(k, len(lines)) - 1)
    )
    grid = separable(heights, [8] * len(heights), k, 1, 8)
    assert len(grid.bins) <= k
    assert grid.account(heights, [8] * len(heights)).padded == best


@given(seeds, st.integers(1, 5), st.integers(1, 5))
@relaxed
def test_a_separable_grid_covers_its_images_with_all_pairs(seed: int, rows: int, cols: int) -> None:
    heights, widths = clustered_sizes(seed, 60)
    grid = separable(heights, widths, rows, cols, PATCH)
    down, across = {b.height for b in grid.bins}, {b.width for b in grid.bins}
    assert len(grid.bins) == len(down) * len(across)
    assert len(down) <= rows
    assert len(across) <= cols
    assert max(down) == ceil_div(int(heights.max()), PATCH) * PATCH
    assert max(across) == ceil_div(int(widths.max()), PATCH) * PATCH
    grid.assign(heights, widths)


@pytest.mark.parametrize(
    ("heights", "widths", "best"),
    [
        ([7, 5, 5, 7, 5, 6, 6, 2, 1, 3, 2, 7], [7, 1, 4, 6, 1, 6, 1, 4, 6, 3, 3, 2], 335),  # from the heights
        ([1, 3, 6, 4, 7, 7, 2, 7, 1, 1, 4, 1], [3, 4, 3, 7, 2, 6, 5, 7, 5, 6, 7, 2], 332),  # from the widths
    ],
)
def test_the_search_for_a_grid_starts_from_either_axis_and_keeps_the_better(
    heights: Any, widths: Any, best: int
) -> None:
    height, width = 8 * np.array(heights), 8 * np.array(widths)
    assert separable(height, width, 2, 2, 8).account(height, width).padded == best
    assert separable(width, height, 2, 2, 8).account(width, height).padded == best


@pytest.mark.parametrize("counts", [(0, 2, 8), (2, 0, 8), (2, 2, 0)])
def test_a_separable_grid_of_less_than_one_is_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(ArgumentError, match="at least 1"):
        separable([5], [5], *counts)


def test_a_separable_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="got none"):
        separable([], [], 6, 6, PATCH)


def test_auto_is_auto_36_and_optimises_for_the_sizes() -> None:
    heights, widths = clustered_sizes(1, 600)
    assert parse("auto", heights, widths, PATCH, SIDE) == parse("auto:36", heights, widths, PATCH, SIDE)
    assert parse("auto:3", heights, widths, PATCH, SIDE) == optimise(heights, widths, 3, PATCH, SIDE)


def test_thesis_is_the_published_grid() -> None:
    assert len(THESIS) == 36
    assert parse("thesis", [], [], PATCH, SIDE) == Bins(THESIS, PATCH)
    assert parse("thesis", [], [], 16, 2000).bins == THESIS


def test_a_file_of_bins_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bins.json"
    path.write_text("[[96, 96], [48, 96]]", encoding="utf-8")
    assert parse(str(path), [], [], PATCH, 90).bins == (Bin(48, 96), Bin(96, 96))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("automatic", "use auto, auto:K, thesis or the path of a .json file"),
        ("", "are unknown"),
        ("auto:", "no number of bins above 0"),
        ("auto:0", "no number of bins above 0"),
        ("auto:-3", "no number of bins above 0"),
        ("auto:many", "no number of bins above 0"),
        ("nowhere/bins.json", "cannot be read .*No such file"),
    ],
)
def test_an_argument_that_names_no_bins_is_refused(text: str, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        parse(text, [5], [5], PATCH, SIDE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[3072, 3072]", "not JSON"),
        ("{}", "list of one or more"),
        ("[]", "list of one or more"),
        ('"3072"', "list of one or more"),
        ("[[3072, 3072], [48]]", r"entry 1 of the bins is \[48\]"),
        ("[[3072, 3072], 48]", "entry 1 of the bins is 48"),
        ("[[3072, true]]", "entry 0"),
        ("[[3072, 48.0]]", "entry 0"),
        ("[[3072, 0]]", "entry 0"),
        ("[[3072, 3072], [1000, 480]]", "bin 1000x0480 is not a multiple of patch 48: use 1008x0480"),
        ("[[3072, 3024], [3024, 3072]]", "no bin for an image of 3072 x 3072 pixels: add 3072 x 3072"),
    ],
)
def test_an_unusable_file_of_bins_is_refused_with_its_name(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bins.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ArgumentError, match=message) as caught:
        parse(str(path), [5], [5], PATCH, SIDE)
    assert "bins.json" in str(caught.value)


def test_the_thesis_grid_is_refused_where_it_does_not_fit() -> None:
    with pytest.raises(ArgumentError, match="'thesis' cannot be used: bin 1152x1152 is not a multiple of patch 14"):
        parse("thesis", [5], [5], 14, SIDE)
    with pytest.raises(ArgumentError, match="no bin for an image of 4000 x 4000 pixels: add 4032 x 4032"):
        parse("thesis", [5], [5], PATCH, 4000)
