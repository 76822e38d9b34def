"""Text reaches terminals, logs and errors as it is, but for what would steer a terminal; and by one way only."""

from __future__ import annotations

import ast
import io
import logging
from pathlib import Path

import pytest
from rich.table import Table

from shardkit.errors import IntegrityError, StorageError
from shardkit.terminal.output import Terminal, logger

HOSTILE = "pip install 'shardkit[dask]' data[train] [/red] :smile: \x1b[31m\x07\x9b2J\u202e"
SHOWN = "pip install 'shardkit[dask]' data[train] [/red] :smile: \\x1b[31m\\x07\\x9b2J\\u202e"
PACKAGES = ("shardkit", "trainer", "benchmarks", "tools")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("colour", [False, True])
def test_brackets_stay_and_control_characters_are_shown_as_escapes(colour: bool) -> None:
    file = io.StringIO()
    terminal = Terminal(file=file, width=200, force_terminal=colour)
    terminal.print(HOSTILE, style="red")
    table = Table(HOSTILE, title=HOSTILE)
    table.add_row(HOSTILE)
    terminal.print(table)
    terminal.plain(f"{HOSTILE}\nanother line")
    assert file.getvalue().count(SHOWN) == 5
    assert "\x07" not in file.getvalue()
    assert ("\x1b" in file.getvalue()) == colour  # rich's own


def test_errors_are_one_clean_line() -> None:
    for error in (IntegrityError(f"{HOSTILE}\nx"), StorageError(f"{HOSTILE}\nx")):
        assert str(error) == f"{SHOWN}\\nx"


def test_log_lines_are_one_clean_line(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("shardkit.stream")
    assert logger("shardkit.stream").filters == log.filters
    with caplog.at_level(logging.WARNING):
        log.warning("%s of %d\nx", HOSTILE, 3)
    assert caplog.messages == [f"{SHOWN} of 3\\nx"]


def test_nothing_else_prints() -> None:
    """No other module makes a console, prints, or has a logger that writes what it is given."""
    found = []
    for path in sorted(p for package in PACKAGES for p in (ROOT / package).rglob("*.py")):
        if path == ROOT / "shardkit" / "terminal" / "output.py":
            continue
        tree = ast.parse(path.read_text())
        asked = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "isEnabledFor"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                written = name in ("sys.stdout.write", "sys.stderr.write", "print", "Console", "rich.print")
                logs = name == "logging.getLogger" and id(node) not in asked  # for its level only
                others = [ast.unparse(one) for one in node.args] in (["'matplotlib'"], ["'timm.models._builder'"])
                if written or (logs and not others):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
            if isinstance(node, ast.ImportFrom) and node.module in ("rich.console", "rich"):
                found += [
                    f"{path.relative_to(ROOT)}:{node.lineno}" for a in node.names if a.name in ("Console", "print")
                ]
    assert found == []
