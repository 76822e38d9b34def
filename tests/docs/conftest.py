"""A folder in which somebody has followed the README, line by line: what the other pages begin with."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEY = bytes([78]) * 32
"""With it the few patients of the export are in all three splits."""


@pytest.fixture(scope="session")
def blocks() -> ModuleType:
    """The module beside this one."""
    spec = importlib.util.spec_from_file_location("documented_blocks", Path(__file__).with_name("blocks.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def private(folder: Path) -> None:
    """Make a private folder whose key is known."""
    folder.mkdir(0o700)
    (folder / "pseudonym.key").touch(0o600)
    (folder / "pseudonym.key").write_bytes(KEY)


@pytest.fixture(scope="session")
def documented(kept: Callable[..., Path], blocks: ModuleType) -> Path:
    """`pacs_export/`, and all that the README's blocks leave, run one after another."""

    def make(place: Path) -> None:
        from shardkit.synthetic.export import make_export

        make_export(place / "pacs_export", 16, seed=3, defects=0.0, scale=0.1)
        private(place / "shards.private")
        before = Path.cwd()
        os.chdir(place)
        try:
            blocks.run_page(ROOT / "README.md")
        finally:
            os.chdir(before)

    return kept("documented", make)


@pytest.fixture
def workplace(documented: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """(whether `shards/` is there already) -> makes the current folder one of the test's own, as a page has it."""

    def make(built: bool) -> None:
        (tmp_path / "pacs_export").symlink_to(documented / "pacs_export")
        private(tmp_path / "arrays.private")
        if built:
            for name in ("shards", "shards.private"):
                shutil.copytree(documented / name, tmp_path / name)
        else:
            private(tmp_path / "shards.private")
        monkeypatch.chdir(tmp_path)

    return make
