"""A slow network mount that is real: a folder served by sshd, reached through a slow wire, mounted with sshfs.

python tools/slow_nas.py FOLDER MOUNTPOINT --latency-ms 1 --gbit 1 [--measure]

Needs Debian's sshfs, fuse3, openssh-server and openssh-client. The wire is `Proxy`; any TCP service can be put behind
it. Not modelled: packet loss, TCP's slow start, more than one connection a mount.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import pwd
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

from shardkit.errors import ArgumentError, ShardkitError, StorageError

PIECE_S = 2.5e-4  # what leaves in one go takes this long on the wire, so that connections mix finely
AHEAD_S = 5e-4  # the wire is booked this far ahead, so that waking up late leaves no gap on it
CATCH_UP_S = 5e-3  # waking up later than this loses wire time
UNDELIVERED = 4 << 20  # bytes a connection may hold beyond what the wire itself holds

PACKAGES = {"sshfs": "sshfs", "fusermount3": "fuse3", "sshd": "openssh-server", "ssh-keygen": "openssh-client"}
SSHD = """\
ListenAddress 127.0.0.1:{port}
HostKey "{private}/host_key"
AuthorizedKeysFile "{private}/user_key.pub"
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp -R
ForceCommand internal-sftp -R
"""
SSH = """\
IdentityFile "{private}/user_key"
IdentityAgent none
BatchMode yes
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
Compression no
Ciphers aes128-gcm@openssh.com
LogLevel ERROR
"""


class _Link:
    """One direction of the wire, shared by all connections: bytes leave one by one and arrive a latency later.

    Only what is on the wire is held. What waits for it stays in the senders' sockets; the senders take turns.
    """

    def __init__(self, latency_s: float, bits_per_s: float) -> None:
        self.latency_s, self.s_per_byte = latency_s, 8 / bits_per_s
        self.piece = int(min(max(PIECE_S / self.s_per_byte, 1500), 1 << 18))
        self.limit = int(latency_s / self.s_per_byte) + UNDELIVERED
        self.free_at = 0.0
        self.waiting: deque[_Pipe] = deque()
        self.flight: deque[tuple[float, Callable[[], None]]] = deque()  # in order of time: the latency is constant

    def book(self, size: int, arrive: Callable[[], None], since: float) -> None:
        """Put on the wire `size` bytes that have waited since then; `arrive` is called when they have arrived."""
        now = monotonic()
        self.free_at = max(self.free_at, since, now - CATCH_UP_S) + size * self.s_per_byte
        self.flight.append((max(self.free_at, now) + self.latency_s, arrive))

    def turn(self) -> float:
        """Deliver what is due and let senders on the free wire; the time at which to call again."""
        now = monotonic()
        while self.flight and self.flight[0][0] <= now:
            self.flight.popleft()[1]()
        for _ in range(16):  # then the other direction has its turn
            if not self.waiting or self.free_at > now + AHEAD_S:
                break
            pipe = self.waiting.popleft()
            if pipe.take():
                self.waiting.append(pipe)
        due = self.flight[0][0] if self.flight else math.inf
        return min(due, self.free_at - AHEAD_S / 2) if self.waiting else due


class _Pipe:
    """One direction of one connection. Sockets are polled edge-triggered: both ends are used until they would block."""

    def __init__(self, link: _Link, source: socket.socket, target: socket.socket, done: list[_Pipe]) -> None:
        self.link, self.source, self.target = link, source, target
        self.done = done  # shared by the two directions: those that have delivered all
        self.arrived: deque[bytes | memoryview] = deque()
        self.held = 0  # bytes on the wire or arrived
        self.since = 0.0
        self.waiting = self.full = self.ended = False

    def readable(self) -> None:
        if not (self.waiting or self.full or self.ended):
            self.waiting, self.since = True, monotonic()
            self.link.waiting.append(self)

    def take(self) -> bool:
        """Move one piece from the source to the wire; False when there is none, or too much is held already."""
        self.waiting, self.full = False, self.held >= self.link.limit
        if self.full:
            return False
        try:
            data = self.source.recv(self.link.piece)
        except BlockingIOError:
            return False
        except OSError:
            self.close()
            return False
        self.held += len(data)
        self.link.book(len(data), partial(self.arrive, data), self.since)
        self.waiting, self.ended = bool(data), not data
        return self.waiting

    def arrive(self, data: bytes) -> None:
        self.arrived.append(data)
        self.flush()

    def flush(self) -> None:
        """Hand on what has arrived; an empty piece is the last one."""
        try:
            while self.arrived:
                data = self.arrived[0]
                sent = self.target.send(data) if data else self.end()
                self.held -= sent
                self.arrived.popleft()
                if sent < len(data):
                    self.arrived.appendleft(memoryview(data)[sent:])
        except BlockingIOError:
            pass
        except OSError:
            self.close()
        if self.full and self.held < self.link.limit // 2:
            self.full = False
            self.readable()

    def end(self) -> int:
        self.target.shutdown(socket.SHUT_WR)
        self.done.append(self)
        if len(self.done) == 2:
            self.close()
        return 0

    def close(self) -> None:
        self.source.close()
        self.target.close()


def forward(listener: socket.socket, target: tuple[str, int], latency_s: float, bits_per_s: float) -> None:
    """Forward the connections of a listening socket until standard input ends; asleep whenever nothing is due.

    A connection costs what it costs in TCP: the target hears of it after one latency, the client after two.
    """
    ctypes.CDLL(None).prctl(29, 1)  # PR_SET_TIMERSLACK: a sleep ends at its time, not up to 50 us later
    up, down = _Link(latency_s, bits_per_s), _Link(latency_s, bits_per_s)
    pipes: dict[int, tuple[_Pipe, _Pipe]] = {}  # by socket: where its bytes go, where they come from
    poller = select.epoll()

    def connect(client: socket.socket) -> None:
        try:
            server = socket.create_connection(target, timeout=10)
        except OSError:
            client.close()
            return
        for end in (client, server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        done: list[_Pipe] = []
        there, back = _Pipe(up, client, server, done), _Pipe(down, server, client, done)
        watch(server, back, there)
        down.book(0, partial(watch, client, there, back), monotonic())

    def watch(end: socket.socket, away: _Pipe, here: _Pipe) -> None:
        if end.fileno() >= 0:
            pipes[end.fileno()] = away, here
            poller.register(end, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)

    poller.register(sys.stdin, select.EPOLLIN)
    poller.register(listener, select.EPOLLIN)
    while True:
        wake = min(up.turn(), down.turn())
        # epoll alone would round the time up to whole milliseconds
        select.select([poller], [], [], None if wake == math.inf else max(0.0, wake - monotonic()))
        for file, events in poller.poll(0):
            if file == sys.stdin.fileno():
                return
            if file == listener.fileno():
                up.book(0, partial(connect, listener.accept()[0]), monotonic())
            elif file in pipes:
                away, here = pipes[file]
                if events & ~select.EPOLLOUT:
                    away.readable()
                if events & ~select.EPOLLIN:
                    here.flush()


class Proxy:
    """A slow wire to a TCP service: `with Proxy("127.0.0.1", 7480, 0.001, 1e9) as wire: wire.host, wire.port`.

    `latency_s` is added each way; `bits_per_s` holds for each way and is shared by all connections. The wire is a
    process of its own, which ends with the `with` block, or with this process.
    """

    def __init__(self, target_host: str, target_port: int, latency_s: float = 0.001, bits_per_s: float = 1e9) -> None:
        if not (0 <= latency_s < math.inf and 0 < bits_per_s < math.inf):
            raise ArgumentError(f"a wire of {latency_s} s and {bits_per_s} bit/s is impossible; give positive numbers")
        self.host, self.port = "127.0.0.1", 0
        self._wire = ((target_host, target_port), latency_s, bits_per_s)

    def __enter__(self) -> Proxy:
        with socket.create_server((self.host, 0), backlog=512) as listener:
            self.port = int(listener.getsockname()[1])
            code = (
                f"import socket, sys; sys.path.insert(0, {str(Path(__file__).resolve().parent)!r}); import slow_nas; "
            )
            code += f"slow_nas.forward(socket.socket(fileno={listener.fileno()}), *{self._wire!r})"
            command, files = [sys.executable, "-c", code], [listener.fileno()]
            # a session of its own: Ctrl-C is for the program that uses the wire
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=files, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def slow_mount(
    folder: Path | str, mountpoint: Path | str, latency_s: float = 0.001, bits_per_s: float = 1e9
) -> Iterator[Path]:
    """Mount `folder` read-only at `mountpoint`, as from a NAS behind that wire; yields the mountpoint's real path.

    Contents are not cached from one open to the next; names and attributes are, for a second (NFS: three and more).
    ArgumentError if a folder cannot be used, StorageError if a program is missing or the mount fails.
    """
    source, target = Path(folder).resolve(), Path(mountpoint).resolve()
    if not source.is_dir():
        raise ArgumentError(f"{source} is no folder and cannot be mounted; name one")
    if not _free(target):
        raise ArgumentError(f"nothing can be mounted at {target}; name an empty folder, or a new one in a folder")
    programs = {name: _program(name) for name in PACKAGES}
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        raise StorageError("/dev/fuse cannot be opened and no slow mount be made; load the module fuse, or run as root")
    with contextlib.ExitStack() as stack:
        private = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slow-nas-")))
        if not target.exists():
            target.mkdir()
            stack.callback(target.rmdir)
        port = stack.enter_context(_sshd(programs, private))
        wire = stack.enter_context(Proxy("127.0.0.1", port, latency_s, bits_per_s))
        stack.enter_context(_sshfs(programs, private, wire.port, source, target))
        yield target


def drop_caches(mountpoint: Path | str) -> None:
    """Forget names, attributes and contents on the mount's side, except of open files; the server keeps its own."""
    command = ["mount", "-i", "-o", "remount,ro", str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"caches of {mountpoint} stay: {' '.join(done.stderr.split())}; run as root, on a mount")


def _free(target: Path) -> bool:
    """Whether it is an empty folder where nothing is mounted, or can become one."""
    try:
        if target.exists():
            return not (target.is_mount() or any(target.iterdir()))
        return target.parent.is_dir()
    except OSError:  # a file, or a mount whose server is gone
        return False


def _program(name: str) -> str:
    path = shutil.which(name, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")
    if path is None:
        raise StorageError(f"{name} is missing and no slow mount can be made; run apt-get install {PACKAGES[name]}")
    return path


@contextlib.contextmanager
def _sshd(programs: dict[str, str], private: Path) -> Iterator[int]:
    """A private server with new keys; the port it listens at."""
    for key in ("host_key", "user_key"):
        subprocess.run([programs["ssh-keygen"], "-q", "-t", "ed25519", "-N", "", "-f", private / key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = int(free.getsockname()[1])
    config, log = private / "sshd_config", private / "sshd.log"
    config.write_text(SSHD.format(port=port, private=private))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # wanted by Debian's sshd; stays, as its own service's does
    with _running([programs["sshd"], "-D", "-e", "-f", str(config)], log, lambda: "listening" in log.read_text()):
        yield port


@contextlib.contextmanager
def _sshfs(programs: dict[str, str], private: Path, port: int, source: Path, target: Path) -> Iterator[None]:
    config = private / "ssh_config"
    config.write_text(SSH.format(private=private))
    remote = f"{pwd.getpwuid(os.geteuid()).pw_name}@127.0.0.1:{source}"
    command = [programs["sshfs"], remote, str(target), "-f", "-p", str(port), "-F", str(config)]

    def unmount() -> None:
        words = [programs["fusermount3"], "-u", "-q", str(target)]
        if subprocess.run(words, check=False).returncode:  # a file is open, or nothing is mounted
            subprocess.run([*words, "-z"], check=False)

    ready = partial(os.path.ismount, target)
    with _running([*command, "-o", "ro,dir_cache=no"], private / "sshfs.log", ready, unmount):
        yield


@contextlib.contextmanager
def _running(
    command: list[str], log: Path, ready: Callable[[], bool], leave: Callable[[], object] = lambda: None
) -> Iterator[None]:
    """A server and all it starts, from when it is ready to the end of the block; `leave` comes before the end."""
    with log.open("wb") as output:
        guarded = ["setpriv", "--pdeathsig", "TERM", *command]  # it ends when this process is killed, too
        server = subprocess.Popen(guarded, stdout=output, stderr=output, start_new_session=True)
    try:
        end = monotonic() + 30
        while not ready():
            if server.poll() is not None or monotonic() > end:
                reason = " ".join(log.read_text().split()) or "no answer in 30 s"
                raise StorageError(
                    f"{Path(command[0]).name} failed ({reason}) and no slow mount can be made; try by hand"
                )
            time.sleep(0.01)
        yield
    finally:
        leave()
        family = _family(server.pid)
        server.terminate()
        end = monotonic() + 3
        while (server.poll() is None or family & _living().keys()) and monotonic() < end:
            time.sleep(0.01)
        for pid in family & _living().keys():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()


def _family(pid: int) -> set[int]:
    """A process, its session and all their living descendants."""
    living, family = _living(), {pid}
    while found := {p for p, above in living.items() if above & family} - family:
        family |= found
    return family


def _living() -> dict[int, set[int]]:
    """Parent and session of every process that is not a zombie."""
    living = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                living[int(stat.parent.name)] = {int(parent), int(session)}
    return living


def figures(folder: Path, mount: Path) -> str:
    """Read the largest files one by one (64 MiB if there are), then the first bytes of the smallest 30."""
    files = sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    size, start, times = 0, monotonic(), []
    for path in reversed(files):
        size += len((mount / path.relative_to(folder)).read_bytes())
        if size >= 64 << 20:
            break
    rate = size / (monotonic() - start) / 1e6
    for path in files[:30]:
        there = mount / path.relative_to(folder)
        there.parent.stat()  # the way to the folder is not part of the figure
        start = monotonic()
        with there.open("rb") as stream:
            os.fstat(stream.fileno())
            stream.read(4096)
        times.append(1e3 * (monotonic() - start))
    return f"{rate:.1f} MB/s in sequence, {statistics.median(times or [0]):.2f} ms an open, stat and read"


def main(folder: Path, mountpoint: Path, *, latency_ms: float = 1.0, gbit: float = 1.0, measure: bool = False) -> int:
    """Mount FOLDER at MOUNTPOINT as from a slow NAS, until Ctrl-C.

    Parameters
    ----------
    latency_ms
        Milliseconds on the wire, each way.
    gbit
        Rate of the wire in Gbit/s, each way.
    measure
        Print the sequential rate and the time of an open instead of waiting.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # a background shell ignores the first
        signal.signal(number, signal.default_int_handler)
    try:
        with slow_mount(folder, mountpoint, latency_ms / 1e3, gbit * 1e9) as mount:
            print(f"{folder} is at {mount}: {latency_ms} ms each way, {gbit} Gbit/s; Ctrl-C ends it", flush=True)
            if measure:
                print(figures(folder.resolve(), mount))
            else:
                signal.pause()
    except KeyboardInterrupt:
        pass
    except ShardkitError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    from cyclopts import run  # here, because every wire imports this file

    sys.exit(run(main))
