"""Progress on a narrow terminal: every line fits, no number is cut, and a step without files has no rate."""

from __future__ import annotations

import io
import re
import time

import pytest

from shardkit.build import progress
from shardkit.build.ingest import ShardDone
from shardkit.build.progress import BuildProgressBar
from shardkit.terminal.output import Terminal

STAGES = ("scan", "plan", "convert", "assemble")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that pass when a test says so; the terminal is drawn after each."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def _lines(width: int, files: int, pixels: int, seconds: float, now: list[float]) -> list[str]:
    """What a build of `files` files shows at the middle and the end of every stage."""
    console = Terminal(width=width, height=20, force_terminal=True, file=io.StringIO(), color_system=None)
    shown, lines = BuildProgressBar(console), []
    shown._bars.get_time = lambda: now[0]

    def draw() -> None:
        with console.capture() as caught:
            console.print(shown._bars.get_renderable())
        lines.extend(re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", caught.get()).splitlines())

    for name in STAGES:
        shown.stage(name, files if name == "convert" else None)
        draw()
        for _ in range(4):
            now[0] += seconds / 4
            if name == "scan":
                shown.scanned(files // 4)
            if name == "convert":
                shown.converted(ShardDone("s", files // 4, files // 4, pixels // 4, pixels // 2))
            draw()
    shown._end()
    draw()
    return lines


@pytest.mark.parametrize("width", [80, 100, 60, 40])
@pytest.mark.parametrize(
    ("files", "pixels", "seconds"),
    [(4, 4_000_000, 1.0), (2048, 7 * 10**9, 3600.0), (20_000_000, 6 * 10**13, 900_000.0), (10**9, 4 * 10**15, 8000.0)],
)
def test_no_line_is_wrapped_or_cut_at_any_size(
    clock: list[float], width: int, files: int, pixels: int, seconds: float
) -> None:
    lines = _lines(width, files, pixels, seconds, clock)
    assert lines
    counts = {f"{files * k // 4:,}" for k in range(5)} | {"4", "20"}
    for line in lines:
        assert len(line) <= width
        assert "…" not in line
        word, *facts = re.split(r" {2,}", re.sub(r"^[^a-z]*", "", line).strip())
        assert word in progress._WORDS.values(), "a line was wrapped"
        for fact in facts:
            assert re.fullmatch(
                r"[\d,]+( of [\d,]+)?( files)?|\d+:\d\d:\d\d( left)?|[\d,.]+/s|[\d,.]+ Mpx/s|ratio \d\.\d\d", fact
            ), line
            if "files" in fact or " of " in fact:
                assert set(re.findall(r"[\d,]+", fact)) <= counts


def test_eighty_columns_show_what_matters(clock: list[float]) -> None:
    lines = _lines(80, 100_000, 3 * 10**11, 4000.0, clock)
    assert any("75,000 of 100,000  0:16:40 left  25/s  75 Mpx/s" in line for line in lines), lines
    assert any("100,000 files  1:06:40  25/s  75 Mpx/s  ratio 1.00" in line for line in lines), lines


def test_a_step_without_files_shows_time_alone(clock: list[float]) -> None:
    lines = [line for line in _lines(80, 4, 4_000_000, 60.0, clock) if "planning" in line or "finishing" in line]
    assert lines
    for line in lines:
        assert re.search(r"(planning shards|finishing) +\d:\d\d:\d\d$", line.rstrip()), line


def test_where_there_is_no_terminal_a_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with BuildProgressBar(Terminal(width=80)) as shown:
        for name in STAGES:
            shown.stage(name, None)
            if name == "scan":
                shown.scanned(1234)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("scanning headers: 1,234 files, ")
