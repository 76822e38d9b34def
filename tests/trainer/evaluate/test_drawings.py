"""The whole page with its drawings: names are escaped, it asks nobody, and it is the same each time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.trainer.evaluate.folders import page, put
from trainer.evaluate.kinds import Kind
from trainer.evaluate.page.write import SCORES


@pytest.mark.parametrize("kind", ["multilabel", "multiclass", "regression"])
def test_a_page_of_any_names_is_sound_and_the_same_each_time(kind: Kind, tmp_path: Path) -> None:
    names = ("<u>x</u>", "a&b")
    for site in ("<i>site</i>", "other"):
        put(tmp_path, run="<b>run</b>", site=site, kind=kind, classes=names, notes=("<script>",))
    html, scores = page(tmp_path), (tmp_path / SCORES).read_bytes()
    assert not re.search(r"<u>|<script|<b>run|<i>site|a&b", html)
    assert "&lt;u&gt;x&lt;/u&gt;" in html
    assert not re.search(r"https?://(?!www\.w3\.org)|@import|url\(", html)
    labels = re.findall(r'aria-label="([^"]+)"', html)
    assert len(labels) > 3
    assert all(re.search(r"\d\.\d{3}|Contents", label) for label in labels), "drawings are told with their numbers"
    assert page(tmp_path) == html
    assert (tmp_path / SCORES).read_bytes() == scores
