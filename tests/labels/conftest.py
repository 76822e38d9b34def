"""A dataset with duplicates, drops and quarantines, in tars and Zarr, and tables of labels for it."""

from __future__ import annotations

import csv
import importlib.util
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from shardkit import cli
from shardkit.report import dataset_page
from shardkit.synthetic.export import make_export, plan_export
from shardkit.synthetic.records import ImageSpec
from tests.making import FORMATS

STUDIES = {"studies": 14, "seed": 3, "defects": 0.4, "scale": 0.06}


@dataclass(frozen=True)
class Place:
    """A dataset of a test's own, with the export that it was built from."""

    dataset: Path
    private: Path
    specs: tuple[ImageSpec, ...]
    identifiers: frozenset[str]

    @property
    def url(self) -> str:
        return str(self.dataset)

    def ledger(self) -> list[dict[str, Any]]:
        return list(pq.read_table(self.private / "ledger.parquet").to_pylist())

    def manifest(self) -> list[dict[str, Any]]:
        return list(pq.read_table(self.dataset / "manifest.parquet").to_pylist())

    def written(self) -> dict[str, str]:
        """Path -> key of files that became samples."""
        return {row["path"]: row["key"] for row in self.ledger() if row["verdict"] == "written"}

    def table(self, header: Sequence[str], rows: Sequence[Sequence[object]], name: str = "table.csv") -> Path:
        path = self.dataset.parent / name
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return path


@pytest.fixture(scope="session")
def built(make_dataset: Callable[..., Path], form: str, kept: Callable[..., Path]) -> Path:
    def make(place: Path) -> None:
        make_export(place / "export", **STUDIES)  # type: ignore[arg-type]
        options = {"bins": "auto:2", "max_quarantine": 1.0, "accept_outcome": True, **FORMATS[form]}
        make_dataset(place / "export", place / "dataset", **options)

    return kept(f"defective-{form}", make)


@pytest.fixture
def page() -> None:
    """For tests that look at the report page: without it `place` has none, as the page costs more than a join."""


@pytest.fixture
def place(built: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A copy of the dataset to label; its private folder, which nothing may change, is everybody's."""
    if "page" not in request.fixturenames:
        monkeypatch.setattr(dataset_page, "write", lambda *_: None)
    shutil.copytree(built / "dataset", tmp_path / "dataset")
    specs = tuple(plan_export(**STUDIES))  # type: ignore[arg-type]
    studies = {id(spec.study): spec.study for spec in specs}.values()
    clear = frozenset[str]().union(*(study.identifiers() for study in studies))
    clear |= {spec.sop_uid for spec in specs} | {spec.path for spec in specs}
    return Place(tmp_path / "dataset", built / "dataset.private", specs, clear)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line here: (exit code, output, errors)."""

    def command(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run([str(word) for word in words])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="session")
def published() -> Path:
    """The label tables that the wheel of torchxrayvision holds; it is found, not imported."""
    spec = importlib.util.find_spec("torchxrayvision")
    if spec is None or not spec.submodule_search_locations:
        pytest.fail("torchxrayvision is not installed: pip install -e '.[test]'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"
