"""A build's options are written once: what is typed, recorded and complained of agree, option by option."""

from __future__ import annotations

import io
import json
import pickle
import re
from contextlib import redirect_stdout
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from cyclopts import Parameter

from shardkit import config
from shardkit.cli import app
from shardkit.config import BuildConfig, DatasetOptions, Rules, RunOptions, completed, differences

# Each fixed option once: as typed, the value that its record has, and how the sentence says it.
TYPED: dict[str, tuple[str, Any, str]] = {
    "format": ("--format zarr", "zarr", "--format was webdataset, now zarr"),
    "codec": ("--codec png", "png", "--codec was htj2k, now png"),
    "levels": ("--levels 2", 2, "--levels was 0, now 2"),
    "bins": ("--bins auto:5", "auto:5", "--bins was auto:36, now auto:5"),
    "patch": ("--patch 16", 16, "--patch was 48, now 16"),
    "shard_bytes": ("--shard-size 64", 64 << 20, "--shard-size was 512, now 64"),
    "invert": ("--invert imagemax", "imagemax", "--invert was full, now imagemax"),
    "demographics": ("--demographics", True, "--demographics was False, now True"),
    "follow_symlinks": ("--follow-symlinks", True, "--follow-symlinks was False, now True"),
    "collection": ("--collection nih14", "nih14", "--collection was None, now nih14"),
    "image_files": ("--image-files", True, "--image-files was False, now True"),
    "frames": ("--frames each", "each", "--frames was drop, now each"),
    "slices": ("--slices axis=0", "axis=0", "--slices was axis=2, now axis=0"),
    "modalities": ("--modalities mg dx", ["DX", "MG"], "--modalities was CR DX IO MG PX RG, now DX MG"),
    "min_side": ("--min-side 65", 65, "--min-side was 64, now 65"),
    "max_side": ("--max-side 4096", 4096, "--max-side was 3072, now 4096"),
    "min_content": ("--min-content 0.1", 0.1, "--min-content was 0.05, now 0.1"),
    "oversize": ("--oversize halve", "halve", "--oversize was drop, now halve"),
    "secondary_capture": ("--secondary-capture drop", "drop", "--secondary-capture was keep, now drop"),
    "missing_patient_id": (
        "--missing-patient-id quarantine",
        "quarantine",
        "--missing-patient-id was study, now quarantine",
    ),
    "near_duplicates": ("--near-duplicates drop", "drop", "--near-duplicates was report, now drop"),
    "burned_in": ("--burned-in blank", "blank", "--burned-in was flag, now blank"),
}
RUN: dict[str, tuple[str, Any]] = {
    "source_moved": ("--source-moved", True),
    "max_quarantine": ("--max-quarantine 0.5", 0.5),
    "accept_outcome": ("--accept-outcome", True),
    "workers": ("--workers 3", 3),
    "time_limit": ("--time-limit 99", 99.0),
    "memory_limit": ("--memory-limit 0.5", 1 << 29),
}


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(words of a build) -> the build that the command line makes of them."""
    made: list[BuildConfig] = []
    monkeypatch.setattr("shardkit.commands.building._run", lambda config, dask=None, retry=None: made.append(config))

    def run(words: str) -> BuildConfig:
        app(["build", "--source", "x", "--out", "y", *words.split()], result_action="return_value")
        return made[-1]

    return run


def _listed(command: str) -> set[str]:
    with redirect_stdout(io.StringIO()) as said:
        app([command, "--help"], result_action="return_value")
    return set(re.findall(r"--[a-z][a-z-]*", said.getvalue()))


def test_every_option_is_here() -> None:
    names = [f.name for kind in (DatasetOptions, Rules) for f in fields(kind) if f.name != "rules"]
    assert list(TYPED) == names == list(DatasetOptions().record())
    assert list(RUN) == [f.name for f in fields(RunOptions)]


@pytest.mark.parametrize("name", TYPED)
def test_a_fixed_option_is_recorded_and_complained_of_as_it_is_typed(typed: Any, name: str) -> None:
    words, value, sentence = TYPED[name]
    before, now = typed("").fixed(), typed(words).fixed()
    assert now[name] == value
    assert {k for k in now if now[k] != before[k]} == {name, *(["codec"] if name == "format" else [])}
    said = differences(before, now)
    assert sentence in said
    assert all(line.split()[0] in _listed("build") for line in said)
    assert differences(now, now) == []


@pytest.mark.parametrize("name", RUN)
def test_an_option_of_the_run_fixes_nothing(typed: Any, name: str) -> None:
    words, value = RUN[name]
    assert getattr(typed(words).run, name) == value
    assert typed(words).fixed() == typed("").fixed()
    assert words.split()[0] in _listed("retry") & _listed("build")


def test_the_record_is_what_it_was_before_options_were_written_once() -> None:
    assert json.dumps(DatasetOptions().record()) == (
        '{"format": "webdataset", "codec": "htj2k", "levels": 0, "bins": "auto:36", "patch": 48,'
        ' "shard_bytes": 536870912, "invert": "full", "demographics": false, "follow_symlinks": false,'
        ' "collection": null, "image_files": false, "frames": "drop", "slices": "axis=2",'
        ' "modalities": ["CR", "DX", "IO", "MG", "PX", "RG"], "min_side": 64, "max_side": 3072, "min_content": 0.05,'
        ' "oversize": "drop", "secondary_capture": "keep", "missing_patient_id": "study", "near_duplicates": "report",'
        ' "burned_in": "flag"}'
    )


@pytest.mark.parametrize("name", TYPED)
def test_a_recorded_build_is_repeated(name: str, tmp_path: Path) -> None:
    record = DatasetOptions().record() | {name: TYPED[name][1]}
    again = BuildConfig.repeated("x", "y", tmp_path, record, RunOptions(workers=3))
    assert again.dataset.record() == again.fixed() == record
    assert again.run.workers == 3


def test_a_file_of_bins_is_recorded_by_what_it_says_and_repeated_without_it(tmp_path: Path) -> None:
    (tmp_path / "bins.json").write_text("[[96, 48], [480, 960]]")
    record = BuildConfig.of("x", "y", tmp_path, bins=str(tmp_path / "bins.json")).fixed()
    assert record["bins"] == [[96, 48], [480, 960]]
    (tmp_path / "bins.json").unlink()
    assert BuildConfig.repeated("x", "y", tmp_path, record, RunOptions()).fixed() == record


@pytest.mark.parametrize("name", TYPED)
def test_a_record_of_before_an_option_has_its_default(name: str) -> None:
    record = DatasetOptions().record()
    older = {k: v for k, v in record.items() if k != name}
    assert completed(older) == record
    assert differences(older, record) == []


def test_what_workers_get_names_no_private_place() -> None:
    config = BuildConfig.of("x", "y", Path("/somewhere/private"), codec="raw", min_side=10)
    carried = pickle.dumps(config.conversion)
    assert b"/somewhere" not in carried
    back = pickle.loads(carried)
    assert (back, back.dataset.rules.min_side) == (config.conversion, 10)


def test_limits_in_gibibytes_are_numbers() -> None:
    from shardkit.cli import run

    for words in ("nan", "inf", "much"):
        assert run(["build", "--source", "x", "--out", "y", "--memory-limit", words]) == 2


def test_a_field_more_is_recorded_complained_of_and_repeated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = DatasetOptions().record()
    grain = ("grain", Annotated[int, Parameter(name="--grain-size", help="Of the film.")], 3)
    more: Any = make_dataclass("DatasetOptions", [grain], bases=(DatasetOptions,), frozen=True, kw_only=True)
    monkeypatch.setattr(config, "DatasetOptions", more)
    dataset = more(grain=4)
    now = dataset.record()
    assert now == before | {"grain": 4}
    assert differences(before, now) == ["--grain-size was 3, now 4"]
    assert BuildConfig.repeated("x", "y", tmp_path, now, RunOptions()).dataset.record() == now
