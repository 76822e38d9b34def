"""Plans, manifests and builds of growing size are measured; the model is plain arithmetic on measured rows."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.scale_model import model

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "results"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("scale") / "scale.json"
    words = [
        "--plan-rows",
        "20000",
        "--index-rows",
        "5000",
        "--finish-rows",
        "900",
        "--files",
        "8",
        "--scale",
        "0.08",
        "--repeats",
        "1",
    ]
    words += ["--members", "300", "--tar-members", "30", "--tar-mb", "3"]
    command = [sys.executable, "-m", "benchmarks", "scale", *words, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Egress" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000
    return dict(json.loads(out.read_text()))


def test_a_loader_opened_the_manifest_that_was_made(result: dict[str, Any]) -> None:
    (index,) = result["index"]
    assert index["samples"] / index["rows"] == pytest.approx(0.8, abs=0.05)  # its training split
    assert index["manifest_mb"] * 1e6 > 150 * index["rows"]  # hashes and keys do not compress
    assert index["open_s"] > 0
    assert index["details_s"] > 0
    assert index["first_batch_s"] > index["open_s"]
    assert index["peak_mib"] > index["mib"]


def test_the_last_stage_of_a_build_ran_on_what_was_made_up(result: dict[str, Any]) -> None:
    (row,) = result["finish"]
    assert row["files"] == 900
    assert 0.97 * 900 < row["samples"] < 900  # some are copies
    assert row["peak_mib"] > row["mib"] > 0
    assert row["cpu_s"] > 0
    assert result["limits"]["finish_mib"] == 4096


def test_archives_were_listed_and_read(result: dict[str, Any]) -> None:
    (row,), tar = result["archives"]["zip"], result["archives"]["tar_gz"]
    assert row["members"] == 300
    assert row["list_s"] > 0
    assert (tar["members"], tar["bytes"]) == (30, 3_000_000)
    assert tar["list_s"] > tar["unpack_s"] / 10
    assert 0 < tar["read_s"] < tar["list_s"]


def test_every_batching_was_planned(result: dict[str, Any]) -> None:
    assert [row["batching"] for row in result["plan"]] == ["packed", "binned", "resized"]
    assert all(row["first_step_s"] > 0 and row["middle_step_s"] > 0 and row["resume_s"] > 0 for row in result["plan"])


def test_builds_have_the_same_pixels_for_any_number_of_workers(result: dict[str, Any]) -> None:
    builds = result["build"]
    assert builds[0]["workers"] == 1
    assert len({(row["mpx"], row["bytes"]) for row in builds}) == 1
    for row in builds:
        assert row["mpx_s"]["median"] == pytest.approx(row["mpx"] / row["seconds"]["median"])


def test_the_model_is_exact_where_rows_obey_it() -> None:
    """Rows made up to follow the model: its checks must be off by nothing."""

    def of(value: float) -> dict[str, float]:
        return {"median": value}

    builds = [
        {"workers": workers, "mpx": 1000.0, "seconds": of(5 + 40 / workers), "cpu_s": of(40.0)} for workers in (1, 4)
    ]
    rows = []
    for task, loading, size in (("full", 0.02, 2e6), ("224", 0.004, 1e5)):
        for source, reading in (("s3", 0.004), ("nas", 0.001)):
            rows.append(
                {"program": "read", "variant": "", "source": source, "task": task, "cpu_s": of(0.05)}
                | {"machine_cpu_s": of(100 * reading), "read_mb_s": of(100 * size / 1e6), "seconds": of(1.0)}
            )
            rate = min(2 / (loading + reading), 1e9 / 8 / size if source == "nas" else 1e9)
            rows.append({"program": "shardkit", "variant": "", "source": source, "task": task, "samples_s": of(rate)})
        rows.append({"program": "shardkit", "variant": "", "source": "disk", "task": task, "cpu_s": of(100 * loading)})
    loader = {"conditions": {"images": 100, "mpx": 300.0, "workers": 2}, "summary": {"rows": rows}}
    found = model(builds, loader)
    assert len(found["checks"]) == 5
    for check in found["checks"]:
        assert check["off"] == pytest.approx(0, abs=1e-9), check
    one = next(row for row in found["hours"] if (row["images"], row["machines"]) == (640_000, 1))
    assert one["build_h"] == pytest.approx(640_000 * 3.23 * 0.04 / 32 / 3600)
    assert one["epoch_full_h"] == pytest.approx(640_000 * 3.23 / 3 * (0.02 + 0.0005) / 32 / 3600)
    eight = next(row for row in found["hours"] if (row["images"], row["machines"]) == (640_000, 8))
    assert eight["build_h"] == pytest.approx(one["build_h"] / 8)
    egress = found["egress"][0]
    assert egress["run_full_dollars"] == pytest.approx(10 * egress["cached_dollars"])


def test_the_committed_model_follows_from_the_committed_rows() -> None:
    facts, loader = (json.loads((FOLDER / f"{name}.json").read_text()) for name in ("scale", "loader"))
    assert facts["model"] == json.loads(json.dumps(model(facts["build"], loader)))


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text
