"""Joins of labels are measured on tables whose outcome is known; the lines for the README follow from the figures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import labels

pytestmark = pytest.mark.deep  # a dozen processes

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("labels") / "labels.json"
    command = [sys.executable, "-m", "benchmarks", "labels", "--rows", "300", "600", "--peers", "300", "--repeats", "1"]
    done = subprocess.run(
        [*command, "--out", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "shardkit / pandas, 300 rows by study" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000
    return dict(json.loads(out.read_text()))


def test_every_way_of_joining_is_measured_beside_pandas_and_hashing(result: dict[str, Any]) -> None:
    assert [(row["rows"], row["by"]) for row in result["rows"]] == [(n, by) for n in (300, 600) for by in labels.WAYS]
    for row in result["rows"]:
        stages = [row["shardkit"][stage]["median"] for stage in ("read_s", "join_s", "store_s")]
        assert row["shardkit"]["seconds"]["median"] == pytest.approx(sum(stages))
        programs = labels.PROGRAMS if row["rows"] == 300 else labels.PROGRAMS[:1]
        assert row.keys() - {"rows", "by"} == {*programs}
        assert min(row[name]["peak_mib"]["median"] for name in programs) > 10


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    assert str(ROOT) not in json.dumps(result)
