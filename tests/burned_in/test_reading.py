"""The recogniser reads lines in all four quarters and both tones, on one thread. It needs the extra `ocr`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from shardkit.burned_in import reading
from shardkit.burned_in.blanking import blank
from shardkit.burned_in.detection import find
from shardkit.synthetic.planted_text import drawn, plant
from shardkit.synthetic.radiographs import radiograph

Pixels = npt.NDArray[np.uint16]


@pytest.fixture(scope="module")
def picture() -> Pixels:
    return radiograph(700, 620, 12, np.random.default_rng(3), "hand") // 2 + np.uint16(1000)


@pytest.mark.parametrize(("turns", "dark"), [(0, False), (1, True), (2, True), (3, False)])
def test_text_is_text_and_markers_are_markers_in_every_quarter_and_tone(
    picture: Pixels, turns: int, dark: bool
) -> None:
    for text, kind in (("Hansen 1961", "text"), ("PORTABLE", "marker")):
        pixels, truth = plant(
            picture, 12, drawn(text, "sans", 18), text, (250, 200), contrast=0.6, dark=dark, turns=turns
        )
        (found,) = find(pixels, 12, read=True)
        assert found.kind == kind
        assert abs(found.top - truth.top) <= 40
        assert found.confidence > 0.8
        assert find(blank(pixels, [found], kinds=(kind,)), 12, read=True) == []


def test_the_recogniser_has_one_thread() -> None:
    session, characters = reading._recogniser()
    options = session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert len(characters) == session.run(None, {"x": np.zeros((1, 3, 48, 96), np.float32)})[0].shape[-1]
