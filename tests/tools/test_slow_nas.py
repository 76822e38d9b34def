"""The slow wire delays and limits bytes and changes none; the mount behind it is real and leaves nothing."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shardkit.errors import ArgumentError, StorageError
from tools import slow_nas
from tools.slow_wire import Proxy

ROOT = Path(__file__).resolve().parents[2]
Serve = Callable[[socket.socket], object]


@contextlib.contextmanager
def service(serve: Serve) -> Iterator[int]:
    """A TCP service, one thread a connection; its port."""

    def one(connection: socket.socket) -> None:
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            serve(connection)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=[connection], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)


def confirm(connection: socket.socket) -> None:
    """Take everything, then say so."""
    while connection.recv(1 << 16):
        pass
    connection.sendall(b"!")


@contextlib.contextmanager
def wire(serve: Serve, latency_s: float, bits_per_s: float) -> Iterator[Proxy]:
    with service(serve) as port, Proxy("127.0.0.1", port, latency_s, bits_per_s) as proxy:
        with call(proxy) as first:  # its process is up
            first.shutdown(socket.SHUT_WR)
            first.recv(1)
        yield proxy


def call(proxy: Proxy) -> socket.socket:
    client = socket.create_connection((proxy.host, proxy.port), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def send(proxy: Proxy, size: int) -> float:
    """Seconds until `size` bytes have arrived and the answer is here."""
    start = time.monotonic()
    with call(proxy) as client:
        client.sendall(bytes(size))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b"!"
    return time.monotonic() - start


def test_bytes_are_the_same_both_ways_and_ends_are_passed_on() -> None:
    data = random.Random(0).randbytes(3_000_000)
    with wire(echo, 0.002, 1e9) as proxy, call(proxy) as client:

        def write() -> None:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)

        threading.Thread(target=write, daemon=True).start()
        received = bytearray()
        while piece := client.recv(1 << 16):
            received += piece
    assert received == data


def test_a_round_trip_takes_two_latencies_and_a_connection_two_more() -> None:
    latency, rounds = 0.01, 15
    with wire(echo, latency, 1e9) as proxy:
        start = time.monotonic()
        with call(proxy) as client:
            for _ in range(rounds):
                client.sendall(b"ping")
                assert client.recv(4) == b"ping"
        taken = time.monotonic() - start
    assert 2 * latency * (rounds + 1) <= taken < 4 * latency * (rounds + 1)


def test_latency_does_not_limit_the_rate() -> None:
    with wire(confirm, 0.1, 1e9) as proxy:
        assert 0.4 <= send(proxy, 4_000_000) < 1  # one piece of 31 kB a latency would take 12 s


def test_the_rate_is_kept() -> None:
    size, rate = 2_000_000, 4e7
    with wire(confirm, 0.001, rate) as proxy:
        assert 0.9 <= send(proxy, size) * rate / (8 * size) < 1.5


def test_connections_share_the_rate_and_take_turns() -> None:
    size, rate, ends = 1_000_000, 4e7, []
    with wire(confirm, 0.001, rate) as proxy:
        start = time.monotonic()
        bulk = [threading.Thread(target=lambda: ends.append(send(proxy, size))) for _ in range(2)]
        for thread in bulk:
            thread.start()
        time.sleep(0.05)
        small = send(proxy, 10)
        for thread in bulk:
            thread.join()
        taken = time.monotonic() - start
    assert 0.9 <= taken * rate / (8 * 2 * size) < 1.5
    assert small < 0.1 < 0.7 * max(ends) < min(ends)


def test_a_receiver_that_does_not_read_stops_the_sender() -> None:
    with (
        service(lambda connection: time.sleep(2)) as port,
        Proxy("127.0.0.1", port, 0.001, 1e10) as proxy,
        call(proxy) as client,
    ):
        client.settimeout(0.3)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 1 << 28:
                sent += client.send(bytes(1 << 16))
        memory = Path(f"/proc/{proxy._process.pid}/statm").read_text().split()[1]
    assert sent < 1 << 26
    assert int(memory) * os.sysconf("SC_PAGE_SIZE") < 1 << 26


def test_closed_connections_leave_no_open_files() -> None:
    with wire(confirm, 0.0, 1e9) as proxy:
        files = Path(f"/proc/{proxy._process.pid}/fd")
        before = len(list(files.iterdir()))
        for _ in range(20):
            send(proxy, 10)
        time.sleep(0.1)
        assert len(list(files.iterdir())) <= before


def test_a_connection_to_nothing_is_closed() -> None:
    with service(echo) as port:
        pass
    with Proxy("127.0.0.1", port, 0.001, 1e9) as proxy, call(proxy) as client:
        assert client.recv(1) == b""


def test_an_impossible_wire_is_refused() -> None:
    with pytest.raises(ArgumentError, match="impossible"):
        Proxy("127.0.0.1", 80, -1, 1e9)


def test_a_wire_ends_when_its_user_is_killed() -> None:
    code = "import os; from tools.slow_wire import Proxy; p = Proxy('127.0.0.1', 9)"
    code += "; p.__enter__(); print(p._process.pid, flush=True); os.kill(os.getpid(), 9)"
    pid = int(
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    )
    assert soon(lambda: not alive({pid}))


# The mount

needs_mount = pytest.mark.needs("/dev/fuse", **slow_nas.PACKAGES)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to mount, and after the test a look for what is left: mounts, files, processes seen while mounted."""
    (tmp_path / "folder" / "deep er").mkdir(parents=True)
    (tmp_path / "folder" / "large").write_bytes(random.Random(0).randbytes(500_000))
    (tmp_path / "folder" / "deep er" / "small").write_bytes(b"small")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    yield tmp_path
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
    assert not list((tmp_path / "temporary").iterdir())
    assert not started(tmp_path)


def started(place: Path) -> set[int]:
    """Living processes with the place in their environment or arguments (sshd's lie over it), and their descendants."""
    found, parents, mark = set(), {}, f"{place}/temporary".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(process.name)] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if mark in (process / "environ").read_bytes() + (process / "cmdline").read_bytes():
                found.add(int(process.name))
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return alive(found)


def alive(pids: set[int]) -> set[int]:
    living = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                living.add(pid)
    return living


def soon(condition: Callable[[], bool]) -> bool:
    for _ in range(250):
        if condition():
            return True
        time.sleep(0.02)
    return False


@needs_mount
def test_the_mount_shows_the_folder_read_only_and_leaves_nothing(place: Path) -> None:
    with slow_nas.slow_mount(place / "folder", place / "mount", 0.001, 1e9) as mount:
        processes = started(place)
        assert len(processes) >= 5  # wire, sshd, its session, sshfs, ssh
        assert mount == place / "mount"
        assert sorted(p.name for p in mount.rglob("*")) == ["deep er", "large", "small"]
        for name in ("large", "deep er/small"):
            assert (mount / name).read_bytes() == (place / "folder" / name).read_bytes()
        with pytest.raises(OSError, match="Read-only"):
            (mount / "new").touch()
    assert not alive(processes)
    assert not (place / "mount").exists()


@needs_mount
@pytest.mark.needs("root")
def test_names_are_asked_for_again_after_caches_are_dropped(place: Path) -> None:
    latency = 0.02

    def look() -> float:
        start = time.monotonic()
        (mount / "large").stat()
        return time.monotonic() - start

    with slow_nas.slow_mount(place / "folder", place / "mount", latency, 1e9) as mount:
        look()
        assert look() < 2 * latency
        slow_nas.drop_caches(mount)
        assert look() >= 2 * latency


@needs_mount
def test_an_exception_with_a_file_open_leaves_nothing(place: Path) -> None:
    (place / "mount").mkdir()
    processes: set[int] = set()

    def fail() -> None:
        with slow_nas.slow_mount(place / "folder", place / "mount") as mount:
            processes.update(started(place))
            files.append(os.open(mount / "large", os.O_RDONLY))
            raise RuntimeError("on purpose")

    files: list[int] = []
    with pytest.raises(RuntimeError, match="on purpose"):
        fail()
    with contextlib.suppress(OSError):  # its server is gone
        os.close(files.pop())
    assert processes
    assert not alive(processes)
    assert not list((place / "mount").iterdir())


@needs_mount
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_mounts_until_interrupted(place: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "tools.slow_nas", str(place / "folder"), str(place / "mount")]
    with subprocess.Popen([*command, "--gbit", "10"], cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert "1.0 ms each way, 10.0 Gbit/s" in program.stdout.readline()
        assert (place / "mount" / "deep er" / "small").read_bytes() == b"small"
        processes = started(place)
        program.send_signal(number)
        assert program.stdout.read() == ""
    assert program.returncode == 0
    assert len(processes) >= 6
    assert not alive(processes)


@needs_mount
def test_the_command_measures(place: Path) -> None:
    command = [sys.executable, "-m", "tools.slow_nas", str(place / "folder"), str(place / "mount"), "--measure"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert "MB/s in sequence" in done.stdout


@needs_mount
def test_servers_and_mount_end_when_their_user_is_killed(place: Path) -> None:
    command = [sys.executable, "-m", "tools.slow_nas", str(place / "folder"), str(place / "mount")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        program.stdout.readline()
        processes = started(place)
        program.kill()
    assert soon(lambda: not alive(processes) and str(place) not in Path("/proc/self/mountinfo").read_text())
    shutil.rmtree(next((place / "temporary").iterdir()))  # this alone is left by a kill


@pytest.mark.parametrize(("program", "package"), slow_nas.PACKAGES.items())
def test_a_missing_program_is_named_with_its_package(
    place: Path, program: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name == program else "/bin/false")
    with (
        pytest.raises(StorageError, match=f"^{program} is missing.* apt-get install {package}$"),
        slow_nas.slow_mount(place / "folder", place / "mount"),
    ):
        pass


def test_a_machine_without_fuse_is_told_so(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, path: "/bin/false")
    monkeypatch.setattr(os, "access", lambda path, mode: path != "/dev/fuse")
    with (
        pytest.raises(StorageError, match=r"^/dev/fuse cannot be opened.* load the module fuse"),
        slow_nas.slow_mount(place / "folder", place / "mount"),
    ):
        pass
    assert sorted(p.name for p in place.iterdir()) == ["folder", "temporary"]


def test_a_missing_folder_and_a_full_mountpoint_are_refused(place: Path) -> None:
    for folder, mountpoint in (("none", "mount"), ("folder", "folder"), ("folder", "none/mount")):
        with pytest.raises(ArgumentError, match="name"), slow_nas.slow_mount(place / folder, place / mountpoint):
            pass


@needs_mount
def test_a_server_that_fails_is_quoted_and_leaves_nothing(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_nas, "SSH", slow_nas.SSH + "NoSuchOption yes\n")
    with (
        pytest.raises(StorageError, match=r"sshfs failed .*nosuchoption"),
        slow_nas.slow_mount(place / "folder", place / "mount"),
    ):
        pass
    assert not (place / "mount").exists()
