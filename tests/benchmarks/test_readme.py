"""What the READMEs say of speed is what the benchmarks measured."""

from pathlib import Path

import pytest

from benchmarks import report

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("name", report.questions())
def test_the_figures_are_those_of_the_committed_run(name: str) -> None:
    result = report.load(FOLDER, name)
    assert result is not None, "no figures are committed"
    lines = f"<!-- {name} -->\n{report.questions()[name].readme(result)}\n<!-- /{name} -->"
    assert sum(lines in path.read_text() for path in report.TEXTS) == 1
    assert {"question", "date", "machine", "conditions"} <= set(result)
    assert (FOLDER / f"{name}.png").exists()
