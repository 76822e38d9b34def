"""Curves over steps: scales, ticks and means."""

from xml.etree import ElementTree

import numpy as np
import pytest

from trainer.report.curves import Line, chart, smoothed


def _thick(svg: ElementTree.Element) -> list[str]:
    """The paths of the lines in front."""
    kinds = [(group.get("class", "").split(), group) for group in svg.iter("g")]
    return [group[0].attrib["d"] for kind, group in kinds if "thick" in kind and "above" not in kind]


def _labels(svg: ElementTree.Element, anchor: str) -> dict[str, ElementTree.Element]:
    """Text of an axis by its words. anchor: end of the y axis, middle of the x axis."""
    return {text.text or "": text for text in svg.iter("text") if f"text-anchor:{anchor}" in text.get("style", "")}


def test_an_axis_is_logarithmic_only_where_values_span_more_than_ten() -> None:
    def heights(values: list[float]) -> list[float]:
        (path,) = _thick(ElementTree.fromstring(chart([Line("", list(enumerate(values)))], title="")))
        return [float(point.split()[1]) for point in path.removeprefix("M").split("L")]

    top, middle, bottom = heights([10.0, 1.0, 0.1])
    assert middle - top == pytest.approx(bottom - middle, abs=0.2)
    top, middle, bottom = heights([1.0, 0.6, 0.2])
    assert middle - top == pytest.approx(bottom - middle, abs=0.2)
    top, middle, bottom = heights([10.0, 5.0, 0.0])
    assert middle - top == pytest.approx(bottom - middle, abs=0.2)


def test_ticks_stand_where_their_numbers_are() -> None:
    svg = ElementTree.fromstring(chart([Line("", [(0, 0.001), (100, 1.0)])], title=""))
    (path,) = _thick(svg)
    low, high = (float(point.split()[1]) for point in path.removeprefix("M").split("L"))
    found = {float(text): float(label.attrib["y"]) for text, label in _labels(svg, "end").items()}
    assert {0.01, 0.1} <= found.keys()
    (offset,) = {round(y - (low + (high - low) * (np.log10(value) + 3) / 3)) for value, y in found.items()}
    assert 2 <= offset <= 5, "all as far below their value as half a letter is high"


def test_smoothing_keeps_a_constant_and_calms_noise() -> None:
    noise = np.random.default_rng(0).normal(1, 0.1, 400)
    points = [(float(at), float(y)) for at, y in enumerate(noise)]
    found = np.array([y for _, y in smoothed(points)])
    assert found.std() < 0.5 * noise.std()
    assert found.mean() == pytest.approx(noise.mean(), abs=0.01)
    assert [y for _, y in smoothed([(x, 3.0) for x, _ in points])] == pytest.approx([3.0] * 400)


def test_smoothing_follows_a_steep_start() -> None:
    points = [(float(at), 0.5**at) for at in range(200)]
    assert smoothed(points)[0] == points[0]
    assert smoothed(points)[1][1] == pytest.approx((1 + 0.5 + 0.25) / 3)
