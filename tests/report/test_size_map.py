"""The map of sizes says where images lie and which bin takes them."""

import re
from collections.abc import Callable
from itertools import combinations
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa

from shardkit.dataset.bins import THESIS, Bin, Bins
from shardkit.report import svg
from shardkit.report.size_map import SizeMap

SMALL = Bins((Bin(480, 960), Bin(720, 720), Bin(960, 480), Bin(1440, 528), Bin(1440, 1440)), 48)


def _map(bins: Bins, heights: Any, widths: Any) -> SizeMap:
    counts = np.bincount(bins.assign(heights, widths), minlength=len(bins.bins))
    listed = [(b.height, b.width, int(count)) for b, count in zip(bins.bins, counts, strict=True)]
    return SizeMap(heights, widths, listed, bins.patch)


def test_the_map_parts_sizes_as_the_bins_assign_them() -> None:
    heights, widths = np.random.default_rng(0).integers(1, 1441, (2, 2000))
    rows, cols, owners = _map(SMALL, heights, widths).owners()
    found = owners[np.searchsorted(rows, heights), np.searchsorted(cols, widths)]
    assert np.array_equal(found, SMALL.assign(heights, widths))


def test_every_image_lies_in_one_cell_and_one_step_of_the_scale() -> None:
    heights, widths = np.random.default_rng(0).integers(1, 1441, (2, 2000))
    heights[:2], widths[:2] = 1440, (1440, 48)  # at the very edges, which belong to the cell below
    drawing = _map(SMALL, heights, widths)
    seen, total = set(), 0
    for _, least, most, cells in drawing.density():
        for row, col in cells.tolist():
            assert (row, col) not in seen
            seen.add((row, col))
            inside = ((heights - 1) // drawing.cell == row) & ((widths - 1) // drawing.cell == col)
            assert least <= inside.sum() <= most
            total += int(inside.sum())
    assert total == 2000


def test_counts_of_bins_are_beside_their_corners_and_none_hides_another(
    many: Callable[[int], pa.Table],
) -> None:
    samples = many(20_000)
    drawing = _map(Bins(THESIS, 48), *(samples[name].to_numpy().astype(np.int64) for name in ("height", "width")))
    root = ElementTree.fromstring(svg(drawing.plot()))
    labels = [group[0] for group in root.iter("g") if "count" in group.get("class", "").split()]
    boxes = []
    for label in labels:
        x, y = float(label.attrib["x"]), float(label.attrib["y"])
        boxes.append((x - 6 * len(label.text or ""), y - 10, x, y))
    assert len(boxes) >= 30
    for a, b in combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    counts = {f"{count:,}" for _, _, count in drawing.bins}
    assert {label.text for label in labels} <= counts


def test_what_is_drawn_is_said_in_numbers_too() -> None:
    heights, widths = np.array([300, 1400, 1400]), np.array([400, 500, 520])
    about = _map(SMALL, heights, widths).about()
    assert "3 images" in about
    assert "300 to 1,400 pixels high and 400 to 520 wide" in about
    assert re.search(r"5 bins .* 1,440 × 528 \(height × width\), holds 2\.", about)
    assert SizeMap(heights[:0], widths[:0], [(48, 48, 0)], 48).about() == "No image; bins: 1."
