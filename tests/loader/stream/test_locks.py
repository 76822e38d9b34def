"""A lock on a folder is held once, ends with its process, and is none on a folder that was removed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from shardkit.loader.stream.locks import lock, release, unlock

HOLDING = """
import pathlib, signal, sys
from shardkit.loader.stream.locks import lock
held = lock(pathlib.Path(sys.argv[1]))
print(held is not None, flush=True)
signal.pause()
"""

FORKING = """
import os, pathlib, sys, time
from shardkit.loader.stream.locks import lock, unlock
folder = pathlib.Path(sys.argv[1])
held = lock(folder)
if (child := os.fork()) == 0:
    time.sleep(30)
unlock(held)
print(lock(folder) is not None)
os.kill(child, 9)
os.waitpid(child, 0)
"""


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    held = lock(tmp_path)
    assert held is not None
    assert lock(tmp_path) is None
    unlock(held)
    again = lock(tmp_path)
    assert again is not None
    unlock(again)


def test_a_lock_ends_with_its_process(kit: Any, tmp_path: Path) -> None:
    child = kit.child(HOLDING, tmp_path)
    assert child.stdout.readline() == "True\n"
    assert lock(tmp_path) is None
    child.kill()
    child.communicate()
    held = lock(tmp_path)
    assert held is not None
    unlock(held)


def test_a_child_forked_meanwhile_does_not_keep_a_lock(kit: Any, tmp_path: Path) -> None:
    """As workers of a DataLoader would, which live to the end of the run."""
    assert kit.child(FORKING, tmp_path).communicate(timeout=30) == ("True\n", None)


def test_a_folder_that_is_missing_or_made_anew_meanwhile_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "entry"
    assert lock(folder) is None
    folder.mkdir()
    opened = os.open

    def late(path: Path, flags: int) -> int:
        """Another process removes the folder, and makes it anew, between opening and locking it."""
        found = opened(path, flags)
        folder.rmdir()
        (tmp_path / "other").mkdir()  # so that the inode is another one
        folder.mkdir()
        return found

    monkeypatch.setattr(os, "open", late)
    assert lock(folder) is None


def test_a_release_removes_the_folder_only_if_it_is_empty(tmp_path: Path) -> None:
    for name in ("empty", "full"):
        (tmp_path / name).mkdir()
    (tmp_path / "full" / "shard").touch()
    for name in ("empty", "full"):
        held = lock(tmp_path / name)
        assert held is not None
        release(tmp_path / name, held)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    held = lock(tmp_path / "full")
    assert held is not None
    unlock(held)
