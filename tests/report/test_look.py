"""What holds for every page: of a dataset, of a run, and of the benchmarks."""

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import report
from trainer.objectives.pictures import save
from trainer.report import run_page

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
Attributes = dict[str, str | None]


class _Elements(HTMLParser):
    """(tag, attributes, tags around it) of every element."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, Attributes, tuple[str, ...]]] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), tuple(self._open)))
        if tag not in ("meta", "img", "br"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def of(self, *tags: str) -> list[Attributes]:
        return [attributes for tag, attributes, _ in self.found if tag in tags]


def _run(folder: Path) -> Path:
    bins = {"0480x0480": 0.3, "1536x1056": 0.2, "0768x0768": 0.1}
    lines = [
        {
            "step": 5 * at, "steps": 200, "epoch": 0, "loss": 0.9**at, "lr": 1e-3, "images_per_s": 50.0,
            "tokens_per_s": 1e4, "padding": 0.1, "data_wait": 0.04, "tflops": 0.5, "mfu": None, "hfu": None,
            "grad_norm": 1.0, "images": 100.0 * at, "skipped": 1, "seconds": 2.0 * at, "loss_by_bin": bins,
        }
        for at in range(1, 41)
    ]  # fmt: skip
    about = {
        "recipe": "tiny", "config": {"model.patch": 8}, "init": None, "baseline": {"mean_image": 0.08}, "data": "set",
        "digest": "c05c", "parameters": 1000, "device": "CPU", "world_size": 1,
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(about))
    for name in ("metrics", "validation"):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("step_00000100", "step_00000200", "val_00000200"):
        save(np.zeros((4, 4), np.uint8), folder / "pictures" / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def pages(html: str, labelled_html: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    found = {}
    for name, module in report.questions().items():
        result = report.load(RESULTS, name)
        assert result is not None
        found[name] = (module, result)
    run = run_page.write(_run(tmp_path_factory.mktemp("run")))
    return {
        "dataset": html,
        "labels": labelled_html,
        "run": run.read_text("utf-8"),
        "benchmarks": report.page(found).decode(),
    }


@pytest.fixture(params=["dataset", "labels", "run", "benchmarks"])
def page(request: pytest.FixtureRequest, pages: dict[str, str]) -> str:
    return pages[request.param]


def test_a_page_is_one_file_without_requests_and_scripts(page: str, tags: Callable[[str], set[str]]) -> None:
    assert not tags(page) & {"script", "link", "iframe", "object", "base", "use"}
    assert not re.search(r"https?://|@import|url\(|\bon\w+=", page)
    for attributes in _Elements(page).of("a", "img", "use"):
        link = attributes.get("href") or attributes.get("src") or ""
        assert link.startswith(("#", "data:image/png;base64,", "data:image/jpeg;base64,"))


def test_the_contents_name_the_sections_in_order(page: str) -> None:
    elements = _Elements(page)
    links = [attributes["href"] for tag, attributes, around in elements.found if tag == "a" and "nav" in around]
    assert links == [f"#{attributes['id']}" for attributes in elements.of("section")]
    assert len({*links}) == len(links) > 3
    ids = [attributes["id"] for _, attributes, _ in elements.found if "id" in attributes]
    assert len({*ids}) == len(ids)


def test_what_is_drawn_is_told_with_numbers(page: str) -> None:
    elements = _Elements(page)
    drawings = elements.of("svg")
    assert drawings
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert re.search(r"\d", attributes["aria-label"] or ""), attributes["aria-label"]
    labels = [attributes["aria-label"] for attributes in drawings]
    assert len({*labels}) == len(labels)
    for attributes in elements.of("img"):
        assert len(attributes["alt"] or "") > 15


def test_every_header_of_a_table_says_what_it_heads(page: str) -> None:
    elements = _Elements(page)
    for tag, attributes, around in elements.found:
        if tag == "th":
            assert attributes["scope"] == ("col" if "thead" in around else "row")
    for row in re.findall(r"<tbody>(.*?)</tbody>", page, re.S):
        assert all(re.match(r'\s*<th scope="row"', line) for line in re.split(r"<tr[^>]*>", row)[1:])


def test_a_total_is_printed_once_and_every_page_of_a_table_has_its_head(page: str) -> None:
    printed = re.search(r"@media print\{(.*?)\n\}", page, re.S)
    assert printed is not None
    assert "tfoot{display:table-row-group}" in printed[1]
    assert "thead{display:table-header-group}" in printed[1]


def test_pages_follow_a_dark_screen_but_not_onto_paper(page: str) -> None:
    assert "@media screen and (prefers-color-scheme:dark)" in page
    assert page.count("--ink:") == 2
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.S))
    assert "var(--" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn)


def test_all_pages_have_one_look(pages: dict[str, str]) -> None:
    sheets = [re.search(r"<style>(.*?)</style>", page, re.S) for page in pages.values()]
    shared = [sheet[1][: sheet[1].index("@media print")] for sheet in sheets if sheet]
    assert len(shared) == len(pages)
    assert len({*shared}) == 1
    assert len(shared[0]) > 3000
    heads = [re.findall(r"<(\w+)", page[page.index("<header>") : page.index("<nav")]) for page in pages.values()]
    assert all(head[:3] == ["header", "p", "h1"] for head in heads)


def test_equal_input_gives_equal_bytes(pages: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    once: Any = run_page.write(_run(folder)).read_bytes()
    assert run_page.write(folder).read_bytes() == once
    other = re.sub(r"(?s)<title>.*?</title>|<h1>.*?</h1>", "", pages["run"])
    assert re.sub(r"(?s)<title>.*?</title>|<h1>.*?</h1>", "", once.decode()) == other, "but for the folder's name"
