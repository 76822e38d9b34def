"""Pictures of samples: windowed, with boxes and words; a file outside of notebooks."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from shardkit import Dataset
from shardkit.errors import ArgumentError
from shardkit.looking import pictures
from shardkit.looking.pictures import LabelBox

pytestmark = pytest.mark.formats


def opened(data: bytes) -> Any:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def test_grey_levels_are_stretched_between_the_ends_of_the_window() -> None:
    pixels = np.array([[0, 100, 150, 200, 65535]], np.uint16)
    assert pictures.window(pixels, 100, 200).tolist() == [[0, 0, 127, 255, 255]]
    assert pictures.window(pixels, 7, 7).tolist() == [[0, 255, 255, 255, 255]], "a window without a span"


def test_a_thumbnail_keeps_the_shape_and_reads_a_small_level(labelled: Path) -> None:
    for sample in Dataset(str(labelled))[:5]:
        grey = sample.thumbnail(40)
        assert grey.dtype == np.uint8
        assert max(grey.shape) == 40
        assert abs(grey.shape[0] / grey.shape[1] - sample.shape[0] / sample.shape[1]) < 0.1
    assert np.asarray(sample.thumbnail(40, window=(0, 1))).max() == 255


def test_a_box_is_drawn_where_it_lies() -> None:
    picture = Image.fromarray(np.zeros((100, 50), np.uint8))
    drawn = np.asarray(pictures.with_boxes(picture, [LabelBox("t", "Mass", 40, 20, 80, 60)], 200, 100)).astype(int)
    marked = np.argwhere(drawn.max(2) > 0)
    assert marked.min(0).tolist() == [20, 10]
    assert marked.max(0).tolist() == [60, 40]
    assert pictures.with_boxes(picture, [], 200, 100) is picture


def test_a_sample_shows_itself_with_its_boxes_and_words(labelled: Path) -> None:
    marked, plain = Dataset(str(labelled))[0], Dataset(str(labelled))[-1]
    coloured = [np.ptp(opened(one._repr_png_()), axis=2).max() for one in (marked, plain)]
    assert coloured[0] > 100, "the box has a colour"
    html = marked._repr_html_()
    for word in (marked.key, "Effusion, Mass", "projection ap", "official split train", "levels ", 'alt="radiograph: '):
        assert word in html
    assert html.count("<img") == 1


def test_outside_a_notebook_pictures_are_saved(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ds = Dataset(str(labelled))
    one, many = ds.show(ds.keys[3]), ds.filter(split="train").show(most=5)
    assert one == Path(f"{ds.keys[3][:12]}.png")
    assert many == Path("samples.png")
    assert ds.show(lambda row: row["height"] > row["width"], most=2, out="tall.png") == Path("tall.png")
    for name in (one, many, Path("tall.png")):
        assert Image.open(name).format == "PNG"
    with pytest.raises(ArgumentError, match="there is nothing to show"):
        ds.filter(view=[]).show()
    with pytest.raises(ArgumentError, match=r"the folder .* does not exist"):
        ds.show(0, out=tmp_path / "nowhere" / "x.png")


def test_the_samples_shown_are_the_same_each_time_and_spread(labelled: Path) -> None:
    ds = Dataset(str(labelled))
    shown = [sample.key for sample in ds.spread(5)]
    assert shown == [sample.key for sample in Dataset(str(labelled)).spread(5)]
    assert shown == sorted(shown)
    assert {shown[0], shown[-1]} == {min(ds.keys), max(ds.keys)}


def test_a_window_changes_what_is_seen(labelled: Path, tmp_path: Path) -> None:
    ds = Dataset(str(labelled))
    pictures_ = [opened(Path(str(ds.show(0, window=w, boxes=False, side=64, out=tmp_path / "x.png"))).read_bytes())
                 for w in (None, (0, 65535))]  # fmt: skip
    assert pictures_[0].max() == 255
    assert not np.array_equal(*pictures_)


def test_in_a_notebook_pictures_are_displayed(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython
    import IPython.display

    shown: list[Any] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: type("Shell", (), {"kernel": object()})())
    monkeypatch.setattr(IPython.display, "display", shown.append)
    monkeypatch.chdir(tmp_path)
    assert Dataset(str(labelled)).show(most=3) is None
    (sheet,) = shown
    assert sheet._repr_html_().count("<figure") == 3
    assert not list(tmp_path.iterdir())
