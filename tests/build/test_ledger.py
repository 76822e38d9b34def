"""`shardkit ledger`: which files were not written, and why; and the commands that other pages and sentences print."""

from __future__ import annotations

import csv
import io
import re
import subprocess
import sys
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from shlex import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardkit.build import ledger
from shardkit.commands.info import ledger_rows, show_ledger
from shardkit.errors import ArgumentError
from shardkit.synthetic.export import make_export
from shardkit.terminal.output import Terminal

ROWS = [
    ("a b/IM1", "written", "ok", None),
    ("a b/IM2", "written", "ok_repaired", None),
    ("x,1/[red]\x1b[31m\nIM3", "quarantined", "decode_error", "no decoder reads it"),
    ("y/IM4", "dropped", "blank", "no range of grey levels"),
    ("y/IM5", "quarantined", "decode_error", "no decoder reads it"),
    ("y/IM6", "quarantined", "truncated", "the file ends too early"),
]


FLAGS: tuple[list[str] | None, ...] = ([], ["bits_unsure"], None, ["bits_unsure", "orientation"], [], [])


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """A private folder that has a ledger."""
    rows: list[dict[str, object]] = [
        dict(zip(("path", "verdict", "reason", "message"), row, strict=True)) for row in ROWS
    ]
    for row, flags in zip(rows, FLAGS, strict=True):
        row["flags"] = flags
    rows[1]["key"] = "k2"
    pq.write_table(pa.Table.from_pylist(rows, ledger.SCHEMA), tmp_path / ledger.NAME)
    return tmp_path


@pytest.mark.parametrize(
    ("verdict", "reason", "found"),
    [
        (None, None, {2, 3, 4, 5}),
        ("quarantined", None, {2, 4, 5}),
        (None, "decode_error", {2, 4}),
        ("dropped", "decode_error", set()),
        (None, "decoder_crash", set()),
        ("written", None, {0, 1}),
        (None, "ok", {0}),
    ],
)
def test_rows_are_chosen_by_verdict_and_reason(
    private: Path, verdict: str | None, reason: str | None, found: set[int]
) -> None:
    rows = ledger_rows(private, verdict, reason)
    assert rows["path"].to_pylist() == [ROWS[i][0] for i in sorted(found)]


def test_rows_are_chosen_by_flag_whether_or_not_they_were_written(private: Path) -> None:
    assert ledger_rows(private, None, None, "bits_unsure")["path"].to_pylist() == ["a b/IM2", "y/IM4"]
    assert ledger_rows(private, "written", None, "bits_unsure")["path"].to_pylist() == ["a b/IM2"]
    with pytest.raises(ArgumentError, match=r"--flag lossy: no file has it; this ledger has bits_unsure, orientation$"):
        ledger_rows(private, None, None, "lossy")


def test_the_key_of_a_sample_is_shown_where_there_is_one(private: Path) -> None:
    for as_csv, words in ((True, "written,ok_repaired,a b/IM2,,k2"), (False, "    key k2")):
        out = io.StringIO()
        terminals = [Terminal(file=out, force_terminal=not as_csv, width=80)] * 2
        show_ledger(ledger_rows(private, None, "ok_repaired"), None, as_csv, *terminals)
        assert words in re.sub(r"\x1b\[[\d;]*m", "", out.getvalue()).splitlines()


def test_what_cannot_be_shown_is_a_sentence(private: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="blank, decode_error, ok, ok_repaired, truncated"):
        ledger_rows(private, None, "nonsense")
    with pytest.raises(ArgumentError, match="--private"):
        ledger_rows(tmp_path / "nowhere", None, None)


def _printed(private: Path, limit: int | None, as_csv: bool) -> tuple[str, str]:
    out, errors = io.StringIO(), io.StringIO()
    terminals = [Terminal(file=stream, force_terminal=not as_csv, width=80) for stream in (out, errors)]
    show_ledger(ledger_rows(private, None, None), limit, as_csv, *terminals)
    return out.getvalue(), errors.getvalue()


def test_csv_is_exact_and_its_count_stands_apart(private: Path) -> None:
    out, errors = _printed(private, None, True)
    rows = list(csv.DictReader(io.StringIO(out, newline="")))
    assert [(r["path"], r["verdict"], r["reason"], r["message"]) for r in rows] == ROWS[2:]
    assert errors.strip() == "4 files"
    out, errors = _printed(private, 1, True)
    assert len(list(csv.reader(io.StringIO(out)))) == 2
    assert errors.strip() == "4 files, 1 shown"


def test_a_terminal_shows_names_as_text_and_never_obeys_them(private: Path) -> None:
    out, _ = _printed(private, 2, False)
    plain = re.sub(r"\x1b\[[\d;]*m", "", out).splitlines()
    assert plain[0] == r"quarantined decode_error  x,1/[red]\x1b[31m\nIM3"
    assert plain[1] == "    no decoder reads it"
    assert plain[-1] == "4 files, 2 shown"
    assert "\x1b[31m" not in out


# ---- the commands that are printed


def _run_in_shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a shell would, from another folder."""
    shim = folder / "bin" / "shardkit"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from shardkit.cli import main; main()" "$@"\n')
    shim.chmod(0o755)
    root = str(Path(__file__).resolve().parents[2])
    env = {"PATH": f"{shim.parent}:/usr/bin:/bin", "PYTHONPATH": root, "HOME": str(folder)}
    return subprocess.run(command, shell=True, capture_output=True, text=True, cwd=folder, env=env, check=False)


@dataclass(frozen=True)
class Built:
    """A build with bad files, typed in a folder with a space in its name."""

    place: Path
    run: subprocess.CompletedProcess[str]

    @property
    def places(self) -> dict[str, str]:
        return _places(self.place)


def _places(folder: Path) -> dict[str, str]:
    """Where things are, by the words that the report has for them."""
    names = {"EXPORT": "export", "DATASET": "data set", "PRIVATE": "kept here"}
    return {word: quote(str(folder / name)) for word, name in names.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    place = tmp_path_factory.mktemp("printed") / "a place"
    make_export(place / "export", 2, seed=6, defects=0.0, scale=0.06)
    (place / "export" / "none.dcm").touch()
    (place / "export" / "notes.txt").write_text("no image")
    words = "--source {EXPORT} --out {DATASET} --private {PRIVATE}".format_map(_places(place))
    return Built(place, _run_in_shell(f"shardkit build {words} --workers 1 --accept-outcome", place))


def test_commands_of_report_and_of_sentences_work_as_printed(built: Built) -> None:
    assert built.run.returncode == 3, built.run.stderr
    commands = re.findall(r"see why: (shardkit .*)", built.run.stderr)
    html = (built.place / "data set" / "report" / "index.html").read_text()
    assert str(built.place) not in html
    printed = [unescape(found) for found in re.findall(r"<code>(shardkit .*?)</code>", html)]
    assert len(printed) == 4
    for command in printed:
        for word, path in built.places.items():
            command = re.sub(rf"\b{word}\b", path, command)
        commands.append(command)
    runs = {command: _run_in_shell(command, built.place) for command in commands}
    assert len(runs) == 5
    for command, run in runs.items():
        retry = "shardkit retry" in command
        # The files are still bad: a retry says so, and ends as the build did.
        assert run.returncode in ((3, 4) if retry else (0,)), (command, run.stderr)
        assert ("0 of 1 recovered" in run.stdout) == retry
        assert ("none.dcm" in run.stdout) == (not retry and "not_dicom" not in command)


def test_a_retry_of_nothing_names_a_command_that_works(built: Built) -> None:
    words = "--source {EXPORT} --out {DATASET} --private {PRIVATE}".format_map(built.places)
    run = _run_in_shell(f"shardkit retry --class truncated {words}", built.place)
    assert run.returncode == 1
    (command,) = re.findall(r"`(shardkit .*?)`", run.stderr)
    assert _run_in_shell(command, built.place).returncode == 0
