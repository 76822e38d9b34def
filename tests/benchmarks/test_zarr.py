"""The comparison of formats runs from the command line, and its figures are what they are called."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import zarr

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("zarr") / "zarr.json"
    words = ["--files", "8", "--scale", "0.5", "--repeats", "1", "--images", "4", "--shard-mib", "1", "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks", "zarr", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "full size, warm, Mpx/s" in done.stdout
    assert out.with_suffix(".png").stat().st_size > 1000
    return dict(json.loads(out.read_text()))


def test_every_format_states_its_figures(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    assert set(repeat) == set(zarr.FORMATS)
    for name, figures in repeat.items():
        assert set(figures) == {row for row in zarr.ROWS if name != "tar" or not row.startswith("zarr_")}
        assert all(value > 0 for value in figures.values())


def test_bytes_follow_the_levels(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    assert repeat["tar"]["small_mb"] < 0.5 * repeat["tar"]["full_mb"]
    assert repeat["zarr"]["small_mb"] == pytest.approx(repeat["zarr"]["full_mb"])
    assert repeat["zarr2"]["small_mb"] < 0.7 * repeat["zarr2"]["full_mb"]
    assert repeat["zarr2"]["full_mb"] == pytest.approx(repeat["zarr"]["full_mb"])
    for figures in repeat.values():
        assert figures["full_mb"] <= figures["stored_mb"]
    raw = result["conditions"]["raw_mb"]
    assert raw == pytest.approx(2 * result["conditions"]["mpx"])
    assert all(figures["stored_mb"] < raw for name, figures in repeat.items() if name != "zarr2")


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text


def test_a_summary_is_the_spread_of_figures_and_of_their_ratios_in_a_repeat(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    other = {name: {key: 2 * value for key, value in figures.items()} for name, figures in repeat.items()}
    summary = zarr.summarise([repeat, other])
    for name, figures in repeat.items():
        for key, value in figures.items():
            assert summary["figures"][name][key]["max"] == pytest.approx(2 * value)
            if key in repeat["tar"]:
                ratio = summary["ratios"][name][key]
                assert ratio["min"] == ratio["max"] == pytest.approx(value / repeat["tar"][key])
