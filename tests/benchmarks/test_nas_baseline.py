"""The NAS is staged over a real slow mount, and a gateway behind the same wire."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tools.slow_nas import PACKAGES

pytestmark = [pytest.mark.deep, pytest.mark.needs("/dev/fuse", "root", **PACKAGES)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("nas") / "nas-baseline.json"
    words = ["--files", "8", "--scale", "0.08", "--repeats", "1", "--latency-ms", "20", "--gbit", "1"]
    command = [sys.executable, "-m", "benchmarks", "nas-baseline", *words, "--tasks", "full", "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "DICOM files, NAS" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000
    return dict(json.loads(out.read_text()))


def test_every_row_has_its_wire_and_its_rate(result: dict[str, Any]) -> None:
    (repeat,), facts = result["repeats"], result["conditions"]
    rows = {(row["program"], row["source"]): row for row in repeat["rows"]}
    places = {"dicom": {"disk", "nas"}, "shardkit": {"disk", "nas", "s3", "cache"}}
    assert set(rows) == {(program, source) for program, sources in places.items() for source in sources}
    for (_, source), row in rows.items():
        assert ("latency_ms" in row) == (source in ("nas", "s3"))
        assert row["mpx_s"] == pytest.approx(facts["mpx"] / row["seconds"])
    assert rows["shardkit", "cache"]["read_mb_s"] == 0
    assert rows["shardkit", "nas"]["stages_s"]["fetch_s"] > rows["shardkit", "disk"]["stages_s"]["fetch_s"]


def test_one_thread_waits_for_the_wire_and_for_nothing_on_a_disk(result: dict[str, Any]) -> None:
    disk, mount = result["repeats"][0]["dicom_stages"]
    assert (disk["name"], mount["name"], mount["latency_ms"]) == ("disk", "NAS", 20)
    for one in (disk, mount):
        assert one["seconds"] == pytest.approx(one["read_s"] + one["decode_s"] + one["normalise_s"])
    assert mount["read_s"] / mount["files"] > 2 * 0.02  # a round trip at least to open and read
    assert disk["read_s"] < mount["read_s"] / 10


def test_the_ratio_is_of_the_medians(result: dict[str, Any]) -> None:
    summary = result["summary"]
    rows = {(row["program"], row["source"]): row["mpx_s"]["median"] for row in summary["rows"]}
    (ratio,) = summary["ratios"]
    assert ratio["nas"] == pytest.approx(rows["shardkit", "nas"] / rows["dicom", "nas"])
    assert ratio["s3"] == pytest.approx(rows["shardkit", "s3"] / rows["dicom", "nas"])


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert "127.0.0.1" not in text
