"""The page has every benchmark's table and plot in it; the README is renewed between its marks and nowhere else."""

import re
import shutil
from pathlib import Path

from benchmarks import report

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
    assert page.count("data:image/png;base64,") == 2
    assert "<table>" in page
    assert "peer" in page
    assert not re.search(r'(?:src|href)="(?!data:|#)', page)  # one file, all of it
    assert str(tmp_path) not in page


def test_a_readme_that_is_up_to_date_stays_as_it_is() -> None:
    text = "x\n<!-- a -->\none | two\n<!-- /a -->\n"
    assert report.renewed(text, "a", "one | two") == text
    assert report.renewed(text, "b", "other") == text
    assert report.renewed(text, "a", r"\1 \g<0>") == "x\n<!-- a -->\n\\1 \\g<0>\n<!-- /a -->\n"
