"""`shardkit demo` as the README has it: what a newcomer sees first must work, and must learn."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from shardkit.build.workspace import KEY
from shardkit.commands import demo as commands
from shardkit.commands.demo import demo
from shardkit.errors import ArgumentError
from shardkit.privacy import Pseudonyms
from shardkit.synthetic.export import Export, expected, plan_export
from shardkit.synthetic.findings import PART_OF, PARTS
from shardkit.terminal.output import Terminal


@pytest.mark.deep
def test_the_demo_builds_verifies_and_learns(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from shardkit.cli import main; main()", "demo", "--out", "here"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "all sound" in run.stdout
    assert "the flat patch's error:" in run.stdout
    pages = "shards/report/index", "run/report", "finetuned/report", "evaluation/index"
    for page in (f"here/{name}.html" for name in pages):
        assert page in run.stdout
        assert (tmp_path / page).stat().st_size > 10_000
    splits = json.loads((tmp_path / "here/shards/dataset.json").read_text())["splits"]
    assert set(splits) == {"train", "val", "test"}
    assert "no validation" not in run.stdout
    lines = [json.loads(line) for line in (tmp_path / "here/run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines]
    assert losses[-1] < json.loads((tmp_path / "here/run/run.json").read_text())["baseline"]["flat_patch"]
    tuned = [json.loads(line) for line in (tmp_path / "here/finetuned/metrics.jsonl").read_text().splitlines()]
    assert tuned[-1]["loss"] < tuned[0]["loss"]
    assert "no checkpoint was chosen" not in run.stdout
    assert max(line["padding"] for line in lines) < 0.1


def _built(studies: int, monkeypatch: pytest.MonkeyPatch, folder: Path) -> tuple[Pseudonyms, list[tuple[str, str]]]:
    """Return the key that a demo builds with, and patient and part of the body of each image that it has."""
    monkeypatch.setattr(commands, "make_export", lambda *given, **options: Export((), frozenset()))
    monkeypatch.setattr(commands, "build", _no_build)
    with pytest.raises(InterruptedError):
        demo(folder, studies, 0, 1, 1, Terminal())
    specs = plan_export(studies, seed=0, **commands._OPTIONS)
    shown = [(s.study.patient.number, PART_OF[s.region]) for s in specs if expected(s).verdict == "written"]
    return Pseudonyms((folder / "shards.private" / KEY).read_bytes()), shown


def _no_build(*given: object) -> None:
    raise InterruptedError


@pytest.mark.parametrize(("studies", "parts"), [(5, 0), (15, 1), (20, 2)])
def test_each_split_of_a_small_demo_has_images_and_classes_where_its_patients_allow_that(
    studies: int, parts: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name, shown = _built(studies, monkeypatch, tmp_path / "demo")
    seen = Counter((name.split(name("patient", f"id {patient}")), part) for patient, part in shown)
    for split in ("train", "val", "test"):
        assert sum(seen[split, part] for part in PARTS) > 0
        assert all(seen[split, part] >= parts for part in PARTS)


def test_too_few_studies_are_refused_with_the_least_number_that_works(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"--studies 3 are too few for train, val and test, .*: take 5 or more"):
        demo(tmp_path / "demo", 3, 0, 1, 1, Terminal())
    assert not (tmp_path / "demo").exists()
