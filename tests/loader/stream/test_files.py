"""Files are read exactly, stay few, and survive replacement; a file being written never outlives its process."""

from __future__ import annotations

import os
import random
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shardkit.errors import IntegrityError, StorageError
from shardkit.loader.stream.files import AnonymousFile, Files, Threads, read_once

WRITER = """
import os, pathlib, signal, sys
from shardkit.loader.stream.files import AnonymousFile
file = AnonymousFile(pathlib.Path(sys.argv[1]))
file.write(bytes(1 << 20), 0)
print("written", flush=True)
signal.pause()
"""


def test_ranges_are_exact(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(1000)
    (tmp_path / "x").write_bytes(data)
    files = Files(tmp_path)
    for start, length in ((0, 1), (0, 1000), (999, 1), (123, 456)):
        assert files.read("x", start, length) == data[start : start + length]
        assert read_once(tmp_path / "x", start, length) == data[start : start + length]


def test_reads_that_give_less_than_asked_for_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(0).randbytes(1000)
    (tmp_path / "x").write_bytes(data)
    whole = os.pread
    monkeypatch.setattr(os, "pread", lambda file, length, start: whole(file, min(length, 7), start))
    assert Files(tmp_path).read("x", 100, 500) == data[100:600]


@pytest.mark.parametrize(("start", "length"), [(90, 11), (100, 1), (5000, 10)])
def test_a_short_file_is_named_in_one_sentence(kit: Any, tmp_path: Path, start: int, length: int) -> None:
    (tmp_path / "x").write_bytes(bytes(100))
    with pytest.raises(
        IntegrityError, match=rf"{tmp_path}/x ends before byte {start + length:,}: .* run verify"
    ) as caught:
        Files(tmp_path).read("x", start, length)
    assert kit.one_sentence(caught.value)


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Files(tmp_path).read("x", 0, 1)


def test_at_most_128_files_are_open_and_none_after_closing(kit: Any, tmp_path: Path) -> None:
    files = Files(tmp_path)
    for number in range(200):
        (tmp_path / f"{number}").write_bytes(number.to_bytes(2, "big"))
    with ThreadPoolExecutor(4) as threads:
        got = list(threads.map(lambda n: files.read(f"{n % 200}", 0, 2), range(600)))
    assert got == [(n % 200).to_bytes(2, "big") for n in range(600)]
    assert len(kit.open_files(tmp_path)) == 128
    files.close()
    assert kit.open_files(tmp_path) == []


def test_threads_read_files_that_others_push_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardkit.loader.stream.files._OPEN", 2)
    files, errors = Files(tmp_path), list[BaseException]()
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(bytes([number]) * 1000)

    def read(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(2000):
                number = draw.randrange(8)
                assert files.read(f"{number}", 100, 500) == bytes([number]) * 500
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_a_replaced_or_deleted_file_stays_readable_until_it_is_forgotten(kit: Any, tmp_path: Path) -> None:
    path, files = tmp_path / "x", Files(tmp_path)
    path.write_bytes(b"old")
    assert files.read("x", 0, 3) == b"old"
    (tmp_path / "y").write_bytes(b"new")
    (tmp_path / "y").replace(path)
    assert files.read("x", 0, 3) == b"old"
    files.forget("x")
    assert files.read("x", 0, 3) == b"new"
    path.unlink()
    assert files.read("x", 0, 3) == b"new"
    assert kit.open_files(tmp_path) == [f"{path} (deleted)"]
    files.forget("x")
    assert kit.open_files(tmp_path) == []


def test_after_an_error_a_file_is_opened_anew(tmp_path: Path) -> None:
    path, files = tmp_path / "x", Files(tmp_path)
    path.write_bytes(b"half")
    with pytest.raises(IntegrityError):
        files.read("x", 0, 8)
    (tmp_path / "y").write_bytes(b"complete")
    (tmp_path / "y").replace(path)
    assert files.read("x", 0, 8) == b"complete"


# ---- files being written


def test_a_file_being_written_appears_whole_when_it_is_published(tmp_path: Path) -> None:
    file = AnonymousFile(tmp_path)
    file.write(b"part", 4)
    file.write(b"1st ", 0)
    assert list(tmp_path.iterdir()) == []
    assert file.read(0, 99) == b"1st part"
    file.publish(tmp_path / "x")
    file.close()
    assert (tmp_path / "x").read_bytes() == b"1st part"
    other = AnonymousFile(tmp_path)
    with pytest.raises(FileExistsError):
        other.publish(tmp_path / "x")
    other.close()
    assert (tmp_path / "x").read_bytes() == b"1st part"


def test_nothing_is_left_of_a_file_that_was_not_published(kit: Any, tmp_path: Path) -> None:
    file = AnonymousFile(tmp_path)
    file.write(b"data", 0)
    file.close()
    file.close()
    assert list(tmp_path.iterdir()) == []
    assert kit.open_files(tmp_path) == []


def test_a_killed_process_leaves_no_file(kit: Any, tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail
    child = kit.child(WRITER, tmp_path)
    assert child.stdout.readline() == "written\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert list(tmp_path.iterdir()) == []
    assert os.statvfs(tmp_path).f_bavail > free - 256 or os.statvfs(tmp_path).f_frsize < 4096


def test_what_is_written_after_closing_reaches_no_other_file(tmp_path: Path) -> None:
    """A cancelled fill closes its file while threads may still write: the number may then be another file's."""
    file = AnonymousFile(tmp_path)
    file.close()
    others = [(tmp_path / f"{i}").open("wb") for i in range(4)]
    file.write(b"astray", 0)
    assert file.read(0, 6) == b""
    for other in others:
        other.close()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b""] * 4


def test_closing_waits_for_a_write_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, writing, go_on = AnonymousFile(tmp_path), threading.Event(), threading.Event()
    write, open_then = os.pwrite, list[bool]()

    def stopped(number: int, data: Any, start: int) -> int:
        writing.set()
        go_on.wait(5)
        open_then.append(os.path.exists(f"/proc/self/fd/{number}"))  # noqa: PTH110
        return write(number, data, start)

    monkeypatch.setattr(os, "pwrite", stopped)
    writer = threading.Thread(target=file.write, args=(b"data", 0))
    writer.start()
    assert writing.wait(5)
    closer = threading.Thread(target=file.close)
    closer.start()
    closer.join(0.1)
    assert closer.is_alive()
    go_on.set()
    writer.join(5)
    closer.join(5)
    assert open_then == [True]


def test_a_filesystem_without_unnamed_files_is_named(kit: Any) -> None:
    with pytest.raises(StorageError, match=r"/proc: .*no unnamed files; use a folder on another") as caught:
        AnonymousFile(Path("/proc"))
    assert kit.one_sentence(caught.value)


# ------------------------------------------------------------------------------------------------------ shared calls


@pytest.mark.parametrize("count", [0, 1, 3, 500])
def test_shared_calls_are_each_made_once_by_all_threads(count: int) -> None:
    threads, meet, made = Threads(3, "test-share"), threading.Barrier(min(count, 3) or 1), list[int]()

    def one(number: int) -> None:
        if number < 3:
            meet.wait(10)  # three of them run at once
        made.append(number)

    futures = threads.share(one, count)
    assert len(futures) == min(count, 3)
    for future in futures:
        future.result(10)
    assert sorted(made) == list(range(count))
    threads.close()


def test_what_a_shared_call_raises_is_in_a_future_and_others_go_on() -> None:
    threads, made = Threads(2, "test-share"), list[int]()

    def one(number: int) -> None:
        if number == 1:
            raise IndexError("of the call itself")
        made.append(number)

    errors = [future.exception(10) for future in threads.share(one, 20)]
    assert [str(error) for error in errors if error is not None] == ["of the call itself"]
    assert sorted(made) == [0, *range(2, 20)]
    threads.close()
