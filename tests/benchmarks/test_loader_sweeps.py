"""The sweeps run from the command line, all images come in every row, and shares of bytes are what they are called."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("sweeps") / "loader-sweeps.json"
    words = ["--files", "10", "--scale", "0.08", "--repeats", "1", "--levels", "2", "--worlds", "2", "--empty-threads"]
    command = [sys.executable, "-m", "benchmarks", "loader-sweeps", *words, "--sources", "disk", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Mpx/s decoded" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000
    return dict(json.loads(out.read_text()))


def test_rates_and_bytes_follow_from_raw_figures(result: dict[str, Any]) -> None:
    (rows,), facts = result["repeats"], result["conditions"]
    found = {(row["kind"], row["value"]): row for row in rows}
    assert set(found) == {("level", 2), ("world", 2), ("cache", "cold"), ("cache", "warm")}
    for row in rows:
        assert row["images_s"] == pytest.approx(facts["images"] / row["seconds"])
        assert row["mpx_s"] == pytest.approx(facts["mpx"] / row["seconds"])
    total = facts["bytes"] / 1e6
    assert found["level", 2]["read_mb"] < 0.5 * total
    assert found["level", 2]["decoded_mpx_s"] < 0.2 * found["level", 2]["mpx_s"]
    ranks = found["world", 2]["read_mb_by_rank"]
    assert total * 0.999 < found["world", 2]["read_mb"] < 1.5 * total  # one read for neighbours has the gap in it
    assert ranks["mean"] == pytest.approx(found["world", 2]["read_mb"] / 2)
    assert ranks["mean"] <= ranks["most"] < found["world", 2]["read_mb"]
    assert found["cache", "cold"]["read_mb"] > total  # whole shards, with their headers
    assert found["cache", "warm"]["read_mb"] == 0


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert "127.0.0.1" not in text
