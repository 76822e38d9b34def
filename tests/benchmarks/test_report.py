"""The page has every benchmark's table and plot in it; the README is renewed between its marks and nowhere else."""

import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import report
from benchmarks.drawing import Series, bars
from shardkit.report import svg

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_holds_all_it_shows_and_the_readme_is_brought_up_to_date(tmp_path: Path) -> None:
    results, readme = tmp_path / "results", tmp_path / "README.md"
    results.mkdir()
    for name in ("build", "loader"):
        shutil.copy(ROOT / "benchmarks" / "results" / f"{name}.json", results)
    readme.write_text("before\n<!-- build -->\nold\n<!-- /build -->\nafter, and no loader\n")
    report.run(folder=results, texts=(readme,))
    text, build = readme.read_text(), report.questions()["build"]
    facts = report.load(results, "build")
    assert facts is not None
    assert text == f"before\n<!-- build -->\n{build.readme(facts)}\n<!-- /build -->\nafter, and no loader\n"
    page = (results / "index.html").read_text()
    of = {name: (report.questions()[name], report.load(results, name) or {}) for name in ("build", "loader")}
    assert [(results / f"{name}.png").read_bytes()[:4] for name in of] == [b"\x89PNG"] * 2
    assert page.count('<svg class="plot') == sum(len(module.plots(result)) for module, result in of.values())
    assert page.count("<table") == 4, "the loader has one of several views and one of several epochs, too"
    assert "peer" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)  # one file, all of it
    assert str(tmp_path) not in page


def test_a_readme_that_is_up_to_date_stays_as_it_is() -> None:
    text = "x\n<!-- a -->\none | two\n<!-- /a -->\n"
    assert report.renewed(text, "a", "one | two") == text
    assert report.renewed(text, "b", "other") == text
    assert report.renewed(text, "a", r"\1 \g<0>") == "x\n<!-- a -->\n\\1 \\g<0>\n<!-- /a -->\n"


@pytest.mark.parametrize("name", report.questions())
def test_plots_are_told_in_words_with_the_figures_that_they_show(name: str) -> None:
    result = report.load(ROOT / "benchmarks" / "results", name)
    assert result is not None
    plots = report.questions()[name].plots(result)
    assert plots
    for plot in plots:
        drawn = ElementTree.fromstring(svg(plot))
        assert drawn.get("aria-label") == plot.about
        beside = [text.text or "" for text in drawn.iter("text") if "text-anchor" not in text.get("style", "")]
        assert all(words in plot.about for words in beside), "numbers beside bars"
        assert len(re.findall(r"\d+", plot.about)) >= 3
        assert all(label in plot.about for label, _ in plot.keys)


@pytest.mark.parametrize(
    ("name", "column", "kept"),
    [("nas-baseline", "task", "full"), ("loader", "task", "224"), ("loader-sweeps", "kind", "level")],
)
def test_what_was_not_measured_is_not_drawn(name: str, column: str, kept: str) -> None:
    result = report.load(ROOT / "benchmarks" / "results", name)
    assert result is not None
    summary = result["summary"]
    rows = summary if isinstance(summary, list) else summary["rows"]
    rows[:] = [row for row in rows if row[column] == kept]
    assert rows
    (plot,) = report.questions()[name].plots(result)
    assert svg(plot)


def test_markdown_becomes_tables_whose_headers_have_a_scope_and_tags_are_shown() -> None:
    html = report.html_of("a `code`\n\n| | n |\n|---|---:|\n| **x** <b> | 1 |\n")
    assert "<p>a <code>code</code></p>" in html
    assert re.search(r'<tr>\s*<td></td>\s*<th scope="col" style="text-align:right">n</th>', html)
    assert '<th scope="row"><strong>x</strong> &lt;b&gt;</th>' in html
    assert '<td style="text-align:right">1</td>' in html


def test_a_bar_ends_where_its_value_is_and_a_longer_one_is_cut_with_an_arrow() -> None:
    series: Series = {
        "a": [{"median": 50.0, "min": 40.0, "max": 60.0}, None],
        "b": [{"median": 900.0, "min": 900.0, "max": 900.0}] * 2,
    }
    plot = bars("rates", ["one", "two"], series, unit="Mpx/s", most=100)
    assert plot.about == "rates, Mpx/s. one: a 50, b 900 →; two: b 900 →."
    root = ElementTree.fromstring(svg(plot))
    filled = [path.attrib["d"] for path in root.iter("path") if path.get("style", "").startswith("fill:var")]
    ends = [max(float(at.split()[0]) for at in re.split("[MLz]", d) if at) for d in filled]
    begin = min(float(at.split()[0]) for at in re.split("[MLz]", filled[0]) if at)
    assert ends[1] == ends[2]
    assert ends[0] - begin == pytest.approx((ends[1] - begin) / 2, abs=0.2)
