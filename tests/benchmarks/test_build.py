"""The build benchmark runs from the command line and its figures follow from its raw ones."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("benchmark")
    words = ["--files", "12", "--scale", "0.08", "--repeats", "1", "--profile-files", "4", "--plan-rows", "500"]
    command = [sys.executable, "-m", "benchmarks", "build", *words, "--out", str(folder / "build.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Mpx/s" in done.stdout
    return dict(json.loads((folder / "build.json").read_text()))


def test_every_program_states_its_raw_figures(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    for program in ("build", "naive"):
        for figure in ("wall_s", "cpu_s", "mpx_s", "files_s", "source_mb_s", "peak_pss_mib", "bytes_out"):
            assert repeat[program][figure] > 0, (program, figure)
    assert repeat["bound"]["mpx_s"] > 0
    assert all(repeat["bound"]["ms_per_mpx"][part] > 0 for part in ("encode", "check"))


def test_rates_and_ratios_follow_from_the_raw_figures(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    build, bound, naive = repeat["build"], repeat["bound"], repeat["naive"]
    mpx = result["conditions"]["mpx_written"]
    assert build["mpx_s"] == pytest.approx(mpx / build["wall_s"])
    assert naive["mpx_s"] == pytest.approx(mpx / naive["wall_s"])
    assert repeat["ratios"]["build / bound"] == pytest.approx(build["mpx_s"] / bound["mpx_s"])
    assert repeat["ratios"]["codec CPU / build CPU"] == pytest.approx(bound["cpu_s"] / build["cpu_s"])
    assert repeat["ratios"]["build / naive"] == pytest.approx(naive["wall_s"] / build["wall_s"])


def test_archives_give_the_shards_of_the_folder(result: dict[str, Any]) -> None:
    assert [row["archive"] for row in result["archives"]] == ["zip", "tar.gz"]
    assert all(row["same_shards"] and row["ratio"]["median"] > 0 for row in result["archives"])


def test_png_files_have_a_row(result: dict[str, Any]) -> None:
    from benchmarks.build_summary import readme

    (repeat,) = result["kinds"]["png"]["repeats"]
    assert repeat["build"]["mpx_s"] > 0
    assert repeat["bound"]["mpx_s"] > 0
    assert set(result["kinds"]["png"]["conditions"]["syntaxes"]) == {"PNG"}
    assert "From PNG files" in readme(result)


def test_the_stages_add_up_to_the_wall_time(result: dict[str, Any]) -> None:
    (repeat,) = result["repeats"]
    stages = repeat["build"]["stages_s"]
    assert {"startup", "scan", "plan", "convert", "assemble"} <= set(stages)
    assert sum(stages.values()) == pytest.approx(repeat["build"]["wall_s"], abs=0.05)


def test_the_profile_accounts_for_a_child_s_whole_time(result: dict[str, Any]) -> None:
    profile = result["profile"]
    assert sum(profile["child_ms_per_mpx"].values()) == pytest.approx(profile["child_total"])
    assert 0 < profile["codecs_share"] < 1
    assert {"encode", "check decode", "source decode"} <= set(profile["child_ms_per_mpx"])


def test_planning_is_measured_alone(result: dict[str, Any]) -> None:
    assert [plan["rows"] for plan in result["plan"]] == [500]
    assert all(plan["seconds"] > 0 and plan["peak_mib"] > 0 for plan in result["plan"])


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert {"cpu", "cores", "memory_gib", "python", "libraries"} <= set(result["machine"])


def test_a_summary_is_the_median_and_spread_of_the_ratios_of_the_repeats(result: dict[str, Any]) -> None:
    from benchmarks.build import RATIOS, ratios
    from benchmarks.build_summary import summarise

    (repeat,) = result["repeats"]
    faster = {**repeat, "build": {**repeat["build"], "mpx_s": 2 * repeat["build"]["mpx_s"]}}
    slower = {**repeat, "build": {**repeat["build"], "mpx_s": 0.5 * repeat["build"]["mpx_s"]}}
    three = [{**one, "ratios": ratios(one)} for one in (slower, repeat, faster)]
    summary = summarise(three)
    for name in RATIOS:
        values = [one["ratios"][name] for one in three]
        wanted = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        assert summary["ratios"][name] == wanted
    assert summary["ratios"]["build / bound"]["max"] == pytest.approx(2 * repeat["ratios"]["build / bound"])


def test_png_files_are_a_source_of_the_same_benchmark(tmp_path: Path) -> None:
    words = ["--files", "8", "--scale", "0.08", "--repeats", "1", "--kind", "png", "--out", str(tmp_path / "png.json")]
    command = [sys.executable, "-m", "benchmarks", "build", *words, "--no-others", "--no-archives"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "png.json").read_text())
    assert set(result["conditions"]["syntaxes"]) == {"PNG"}
    assert result["conditions"]["written"] > 4
    assert all(ms > 0 for ms in result["repeats"][0]["bound"]["ms_per_mpx"].values())
