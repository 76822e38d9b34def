"""`shardkit demo` as the README has it: what a newcomer sees first must work, and must learn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


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
