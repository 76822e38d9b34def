"""The page with labels: counts by hand, by split and view, what goes together, pictures with boxes; else no change."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from shardkit import labels
from shardkit.dataset.bins import THESIS, Bins
from shardkit.dataset.description import DatasetDescription
from shardkit.report import labels_section
from shardkit.report.gallery import Album
from shardkit.storage import Store

Made = tuple[pa.Table, DatasetDescription]
Page = Callable[[Path, pa.Table, DatasetDescription], str]


def section(html: str, name: str = "own") -> str:
    found = re.search(rf'<section id="labels-{name}">(.*?)</section>', html, re.DOTALL)
    assert found is not None
    return found[1]


def rows(html: str, title: str) -> dict[str, list[str]]:
    """Header -> cells of the rows of the table below a title."""
    table = html.partition(f"<h3>{title}</h3>")[2].partition("</table>")[0]
    body = re.search(r"<tbody>(.*?)</tbody>", table, re.DOTALL)
    assert body is not None
    lines = [
        re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in body[1].split("</tr>") if "<th" in line
    ]
    return {unescape(line[0]): [re.sub("<[^>]*>", "", cell) for cell in line[1:]] for line in lines}


def test_values_are_counted_with_the_uncertain_and_the_blank(labelled_html: str) -> None:
    found = rows(section(labelled_html), "Values")
    assert found == {"Effusion": ["", "4", "2", "2", "2", "50.0 %"], "Mass": ["", "1", "9", "0", "0", "10.0 %"]}


def test_classes_are_counted_by_split_and_view(labelled_html: str, made: Made) -> None:
    html = section(labelled_html)
    heads = re.findall(r'<th scope="col">(.*?)</th>', html.partition("<h3>By split and view</h3>")[2])
    assert heads[:7] == ["Class", "All", "Split train", "Split test", "Official train", "Official test", "View PA"]
    found = rows(html, "By split and view")
    split = made[0]["split"].to_pylist()[:10]
    has = [i for i in range(10) if i % 5 < 2]
    train = [i for i in has if split[i] == "train"]
    assert found["Effusion"][0] == "4"
    assert found["Effusion"][1].startswith(f"{len(train)} · ")
    assert found["Effusion"][3] == "3 · 60.0 %", "0, 1 and 5 of 0 to 5, of which 4 is blank"
    assert list(found) == ["Effusion", "Mass", "projection: ap", "projection: pa"]
    assert found["projection: ap"][0] == "4"


def test_what_goes_together_is_counted_and_shaded(labelled_html: str) -> None:
    found = rows(section(labelled_html), "What goes together")
    assert found == {"Effusion": ["4", "1"], "Mass": ["1", "1"]}
    heat = section(labelled_html).partition("<h3>What goes together</h3>")[2].partition("</table>")[0]
    assert re.findall(r"var\(--(\w+)\)", heat) == ["tone1", "tone2"], "a quarter, and all"


def test_categories_and_numbers_are_drawn(labelled_html: str) -> None:
    html = section(labelled_html)
    assert "2 blank" in html or "3 blank" in html
    assert "9 values from 30 to 38; quartiles 32, 34 and 36. 1 blank." in html
    assert 'aria-label="Histogram of own, age: 9 values' in html


def test_pictures_by_class_have_their_boxes(labelled_html: str) -> None:
    html = section(labelled_html)
    assert re.findall(r"<h3>([\w: ]+) <span", html) == ["Effusion", "Mass", "projection: ap", "projection: pa"]
    mass = html.partition("<h3>Mass <span")[2].partition("<h3>")[0]
    assert mass.count("<img") == 1
    place = "left:10.00%;top:10.00%;width:25.00%;height:20.00%;"
    assert mass.count(f'<i class="mark own" style="{place}"><b>Mass</b></i>') == html.count('"mark own"') == 1
    assert html.count('<i class="mark other" ') == len(re.findall(r"<br>also: [^<]*Mass<", html)) > 1, (
        "in the sections of other classes"
    )
    assert "<br>also: Effusion<" in mass
    assert ", marked: Mass" in mass
    assert "<br>marked: Mass" in mass
    assert html.count("<figure") == 1 + 3 * labels_section.A_CLASS


def test_the_contents_name_labels_behind_what_the_samples_are(labelled_html: str) -> None:
    links = re.findall(r'<a href="#([\w-]+)">', labelled_html)
    assert links[links.index("samples") + 1] == "labels-own"


def test_a_page_without_labels_is_what_it_was(
    html: str, made: Made, page: Page, make: Callable[..., Made], label_table: Any, tmp_path: Path
) -> None:
    samples, description = make(tmp_path)
    store = Store(str(tmp_path))
    labels.write(store, label_table(samples["key"].to_pylist()))
    assert page(tmp_path, samples, description) != html
    labels.remove(store, "own")
    assert page(tmp_path, samples, description) == html
    assert "labels-" not in html
    assert ".mark" not in html


def test_labels_that_cannot_be_read_do_not_cost_the_page(
    page: Page, make: Callable[..., Made], label_table: Any, tmp_path: Path
) -> None:
    samples, description = make(tmp_path)
    for name in ("own", "other"):
        labels.write(Store(str(tmp_path)), label_table(samples["key"].to_pylist(), name))
    (tmp_path / "labels" / "other.parquet").write_bytes(b"damaged")
    html = page(tmp_path, samples, description)
    assert "run shardkit label again" in section(html, "other")
    assert rows(section(html), "Values")["Mass"][1] == "1"
    assert str(tmp_path) not in html


def test_a_table_with_a_split_and_no_label_has_its_section(
    page: Page, make: Callable[..., Made], tmp_path: Path
) -> None:
    samples, description = make(tmp_path)
    keys = samples["key"].to_pylist()
    described = labels.LabelsDescription(
        name="lists", level="image", kinds={}, rows={"matched": 12, "ambiguous": 0, "unmatched": 0}
    )
    table = pa.table({"key": keys, "split": ["train"] * 8 + ["test"] * 4})
    labels.write(Store(str(tmp_path)), labels.LabelTable(described, table))
    assert "Official split: train 8, test 4." in section(page(tmp_path, samples, description), "lists")


def test_hostile_labels_are_shown_and_never_obeyed(
    page: Page, make: Callable[..., Made], label_table: Any, tmp_path: Path, tags: Callable[[str], set[str]]
) -> None:
    samples, description = make(tmp_path)
    evil = "\"><script>alert('x')</script>"
    columns = {evil: pa.array([1] * 10, pa.int8()), evil + "2": pa.array([evil] * 10), evil + "3": pa.array([1.5] * 10)}
    labels.write(Store(str(tmp_path)), label_table(samples["key"].to_pylist(), **columns))
    html = page(tmp_path, samples, description)
    assert "script" not in tags(html)
    assert "&lt;script" in html


def test_many_labels_and_samples_make_no_larger_page(
    many: Callable[[int], pa.Table], describe: Callable[..., DatasetDescription], tmp_path: Path
) -> None:
    samples = many(20_000)
    keys, rng = samples["key"].to_pylist(), np.random.default_rng(0)
    columns = {f"label {i:03d}": pa.array(rng.integers(-1, 2, len(keys)), pa.int8()) for i in range(200)}
    described = labels.LabelsDescription(
        name="many", level="image", kinds=dict.fromkeys(columns, "binary"),
        rows={"matched": len(keys), "ambiguous": 0, "unmatched": 0},
    )  # fmt: skip
    split = pa.array([None] * len(keys), pa.string())
    labels.write(Store(str(tmp_path)), labels.LabelTable(described, pa.table({"key": keys, **columns, "split": split})))
    (found,) = labels_section.sections(Album(Store(str(tmp_path)), samples, describe(samples, Bins(THESIS, 48))))
    assert len(found.values) == len(found.groups) == 40
    assert len(found.heat) == 20
    assert sum(len(group.pictures) for group in found.pictures) == labels_section.CLASSES * labels_section.A_CLASS
    assert any("160 rarest" in what for what in found.left)


@pytest.mark.parametrize("scheme", [0, 1])
def test_numbers_are_legible_on_the_shades(scheme: int) -> None:
    from shardkit.report.theme import PALETTE

    def luminance(name: str) -> float:
        parts = [int(PALETTE[name][scheme][at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for _, tone in labels_section.TONES:
        least, most = sorted((luminance("ink"), luminance(tone)))
        assert (most + 0.05) / (least + 0.05) >= 4.5
