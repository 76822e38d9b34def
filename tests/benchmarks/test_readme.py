"""What the READMEs say of speed is what the benchmarks measured."""

from pathlib import Path

import pytest

from benchmarks import headline, report

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "results"


@pytest.mark.parametrize("name", report.questions())
def test_the_figures_are_those_of_the_committed_run(name: str) -> None:
    result = report.load(FOLDER, name)
    assert result is not None, "no figures are committed"
    lines = f"<!-- {name} -->\n{report.questions()[name].readme(result)}\n<!-- /{name} -->"
    assert sum(lines in path.read_text() for path in report.TEXTS) == 1
    assert {"question", "date", "machine", "conditions"} <= set(result)
    assert (FOLDER / f"{name}.png").exists()


def test_the_one_table_of_the_readme_is_of_the_same_figures() -> None:
    lines = headline.readme({name: dict(report.load(FOLDER, name) or {}) for name in headline.SOURCES})
    assert f"<!-- {headline.NAME} -->\n{lines}\n<!-- /{headline.NAME} -->" in (ROOT / "README.md").read_text()


def test_the_readme_is_read_in_minutes() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1500
