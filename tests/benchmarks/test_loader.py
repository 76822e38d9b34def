"""The loader benchmark runs from the command line, programs deliver the same samples, figures follow from raw ones."""

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import loader_epochs, loader_views

pytestmark = pytest.mark.deep  # whole benchmarks: half a minute and more

ROOT = Path(__file__).resolve().parents[2]
PEERS = ("webdataset", "lance", "spdl")  # those that the tests' environment has
COMMAND = [sys.executable, "-m", "benchmarks", "loader", "--files", "12", "--scale", "0.08", "--repeats", "1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("benchmark") / "loader.json"
    words = ["--sources", "s3", "--programs", *PEERS, "dicom", "--out", str(out)]
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert "Mpx/s" in done.stdout
    assert "Goals" in done.stdout
    return dict(json.loads(out.read_text()))


def rows(result: dict[str, Any], **wanted: str) -> list[dict[str, Any]]:
    (repeat,) = result["repeats"]
    return [row for row in repeat["rows"] if all(row[name] == value for name, value in wanted.items())]


def test_every_program_delivers_every_sample_at_both_tasks(result: dict[str, Any]) -> None:
    programs = {(row["program"], row["variant"], row["task"]) for row in rows(result)}
    ours = {("shardkit", ""), ("shardkit", "cache"), ("decode", ""), ("read", "")}
    peers = {(name, variant) for name in PEERS for variant in ("png", "htj2k")} | {("dicom", "dicom")}
    assert programs == {(*name, task) for name in ours | peers for task in ("full", "224")}
    assert {row["samples"] for row in rows(result)} == {result["conditions"]["images"]}
    assert {row["repeated"] for row in rows(result)} == {0}


def test_images_of_the_last_batch_were_compared_with_the_stored_ones(result: dict[str, Any]) -> None:
    assert all(row["checked"] > 0 for row in rows(result) if row["program"] in ("shardkit", *PEERS))


def test_rates_follow_from_the_raw_figures(result: dict[str, Any]) -> None:
    for row in rows(result):
        assert row["samples_s"] == pytest.approx(row["samples"] / row["seconds"])
        assert row["mpx_s"] == pytest.approx(result["conditions"]["mpx"] / row["seconds"])
        assert row["read_mb_s"] == pytest.approx(row["read_bytes"] / row["seconds"] / 1e6)
        assert 0 < row["first_batch_s"] <= row["seconds"]
        assert row["peak_pss_mib"] > 0
        assert row["startup_s"] > 0


def test_bytes_read_are_those_of_the_levels_or_of_a_peer_s_dataset(result: dict[str, Any]) -> None:
    facts = result["conditions"]
    (read,), (ours,) = (
        rows(result, program="read", task="full"),
        rows(result, program="shardkit", variant="", task="full"),
    )
    assert read["read_bytes"] == facts["image_bytes"]["level 0"] <= ours["read_bytes"] <= facts["bytes"]["shardkit"]
    for row in (row for name in PEERS for row in rows(result, program=name)):
        assert row["read_bytes"] == facts["bytes"][f"{row['program']}-{row['variant']}"]
    assert result["level_2"]["share"] == result["level_2"]["read_bytes"] / facts["image_bytes"]["level 0"]
    assert result["level_2"]["images"] == facts["images"]


def test_ratios_and_goals_follow_from_the_rows(result: dict[str, Any]) -> None:
    for part in result["repeats"][0]["ratios"]:
        rate = {(r["program"], r["variant"]): r["samples_s"] for r in rows(result, task=part["task"])}
        ours, found = rate["shardkit", ""], part["ratios"]
        limit = min(rate["read", ""], rate["decode", ""])
        assert found["shardkit / binding limit"] == pytest.approx(ours / limit)
        png, htj2k = (max(rate[name, variant] for name in PEERS) for variant in ("png", "htj2k"))
        assert found["shardkit / best PNG peer"] == pytest.approx(ours / png)
        assert found["shardkit / best HTJ2K peer"] == pytest.approx(ours / htj2k)
        assert found["shardkit / best peer"] == pytest.approx(ours / max(png, htj2k, rate["dicom", "dicom"]))
    goals = {(g["goal"], g["task"]): g for g in result["summary"]["goals"]}
    assert goals["shardkit / best PNG peer", "full"]["wanted"] == 2.2
    for goal in goals.values():
        reached = goal["got"] <= goal["wanted"] if "level 2" in goal["goal"] else goal["got"] >= goal["wanted"]
        assert goal["met"] == reached
        assert bool(goal["why"]) != goal["met"]


def test_a_summary_is_the_median_and_spread_of_the_repeats(result: dict[str, Any]) -> None:
    from benchmarks.loader_summary import Name, ratios, summarise

    (repeat,) = result["repeats"]
    slower = [
        row | {"samples_s": 0.5 * row["samples_s"]} if row["program"] == "shardkit" else row for row in repeat["rows"]
    ]
    three = [repeat, repeat | {"rows": slower, "ratios": ratios(slower, 2)}, repeat]
    summary = summarise(result | {"repeats": three})
    for row in summary["rows"]:
        values = [r["samples_s"] for one in three for r in one["rows"] if Name.of(r) == Name.of(row)]
        assert row["samples_s"] == {"median": statistics.median(values), "min": min(values), "max": max(values)}
    spread = summary["ratios"][0]["ratios"]["shardkit / best peer"]
    assert spread["min"] == pytest.approx(0.5 * spread["max"])
    assert spread["median"] == spread["max"]


def test_the_readme_s_table_names_every_program_and_never_images_without_pixels(result: dict[str, Any]) -> None:
    from benchmarks.loader import readme

    text = readme(result)
    for word in (
        "`shardkit.Loader`",
        "webdataset + DataLoader, PNG",
        "LanceDB, our HTJ2K",
        "SPDL, PNG",
        "DICOM",
        "limit: decoding",
        "Mpx on average",
        "moto",
    ):
        assert word in text


def test_no_path_and_no_host_is_in_the_figures(result: dict[str, Any]) -> None:
    text = json.dumps(result)
    assert str(ROOT) not in text
    assert "/tmp" not in text
    assert "127.0.0.1" not in text
    assert {"cpu", "cores", "python", "libraries"} <= set(result["machine"]) & set(result["peers"])


def test_a_peer_that_is_not_installed_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    bare = tmp_path / "python"  # this interpreter without any installed package
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    names = ["mosaic", "litdata", "lance", "spdl"]
    words = ["--programs", *names, "--peers-python", str(bare), "--out", str(tmp_path / "loader.json")]
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "mosaicml-streaming, litdata, lancedb, spdl-core" in done.stderr
    assert "pip install '.[peers]'" in done.stderr
    assert "Traceback" not in done.stderr


def _alone(part: str, place: Path) -> dict[str, Any]:
    """Figures of a run of one part, beside those that were there."""
    out = place / "loader.json"
    out.write_text('{"question": "kept"}')
    words = ["--parts", part, "--out", str(out)]
    done = subprocess.run([*COMMAND, *words], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(out.read_text()))


def test_several_views_are_measured_alone_and_leave_the_other_figures(tmp_path: Path) -> None:
    found = _alone("views", tmp_path)
    views = found["views"]
    assert found["question"] == "kept"
    assert {row["program"] for row in views["rows"]} == set(loader_views.PROGRAMS)
    for row in views["rows"]:
        assert row["samples"] == views["conditions"]["samples"]
        assert row["views_s"] == pytest.approx(10 * row["samples"] / row["seconds"])
    decodes = {row["program"]: row["decodes_per_sample"] for row in views["rows"]}
    assert decodes == {"shardkit": 1.0, "png": 1.0, "htj2k": 10.0}
    assert all(f"| {name} |" in loader_views.readme(views) for name in loader_views.PROGRAMS.values())


def test_epochs_of_a_process_are_measured_alone_and_leave_the_other_figures(tmp_path: Path) -> None:
    found = _alone("epochs", tmp_path)
    assert found["question"] == "kept"
    assert {(row["program"], row["task"], row["epoch"]) for row in found["epochs"]["rows"]} == {
        (program, task, epoch)
        for program in loader_epochs.PROGRAMS
        for task in ("full", "224")
        for epoch in range(loader_epochs.EPOCHS)
    }
    assert "later epochs: shardkit / decoding alone" in loader_epochs.readme(found["epochs"])


def test_the_first_epoch_is_told_from_the_later_ones() -> None:
    seconds = {"shardkit": (9.0, 2.0, 3.0, 2.0, 3.0), "decode": (3.0, 2.0, 2.0, 2.0, 2.0)}
    rows = [
        {"repeat": repeat, "task": "full", "program": program, "epoch": epoch, "seconds": (1 + repeat) * s, "cpu_s": s}
        for repeat in range(2)
        for program, times in seconds.items()
        for epoch, s in enumerate(times)
    ]
    found = loader_epochs.summarise(rows)["full"]
    assert found["first"]["decode / shardkit"]["seconds"]["median"] == pytest.approx(1 / 3)
    assert found["later"]["decode / shardkit"]["seconds"]["min"] == pytest.approx(2 / 2.5)
    assert found["later"]["shardkit"]["seconds"] == {"median": 3.75, "min": 2.5, "max": 5.0}
