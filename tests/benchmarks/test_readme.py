"""What the README says of speed is what the benchmarks measured."""

import json
from pathlib import Path

from benchmarks import build, loader

ROOT = Path(__file__).resolve().parents[2]


def test_the_build_figures_are_those_of_the_committed_run() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "build.json").read_text())
    assert build.readme(result) in (ROOT / "README.md").read_text()


def test_the_loader_figures_are_those_of_the_committed_run() -> None:
    result = json.loads((ROOT / "benchmarks" / "results" / "loader.json").read_text())
    assert loader.readme(result) in (ROOT / "README.md").read_text()
