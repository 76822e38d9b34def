"""What a dataset's object may be on a disk: a regular file. All else is told at once, as no waiting changes it."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from shardkit.errors import IntegrityError
from shardkit.storage.regular import opened


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(os.mkfifo, id="fifo"),
        pytest.param(_socket, id="socket"),
        pytest.param(lambda path: path.symlink_to(path), id="link to itself"),
        pytest.param(lambda path: path.symlink_to("/dev/zero"), id="device"),
        pytest.param(lambda path: path.symlink_to(__file__), id="link out of the dataset"),
        pytest.param(lambda path: path.mkdir(), id="folder"),
    ],
)
def test_what_is_no_regular_file_is_told_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "00000.tar")
    with pytest.raises(IntegrityError, match=r"00000\.tar is (no regular file|a link out of the dataset)"):
        opened(tmp_path, "00000.tar")


@pytest.mark.parametrize("name", ["file/00000.tar", "x" * 300])
def test_a_name_that_no_file_can_have_is_told_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IntegrityError, match="no regular file"):
        opened(tmp_path, name)


def test_a_file_that_is_not_there_is_for_its_reader_to_judge(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        opened(tmp_path, "00000.tar")
