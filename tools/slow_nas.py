"""A slow network mount that is real: a folder served by sshd, reached through a slow wire, mounted with sshfs.

python -m tools.slow_nas FOLDER MOUNTPOINT --latency-ms 1 --gbit 1 [--measure]

Needs Debian's sshfs and openssh-server. The wire is `tools.slow_wire.Proxy`.
Not modelled: packet loss, TCP's slow start, more than one connection a mount.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic

from shardkit.errors import ArgumentError, ShardkitError, StorageError
from shardkit.terminal.output import say
from tools.slow_wire import Proxy

PACKAGES = {
    "sshfs": "sshfs",
    "fusermount3": "fuse3",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "setpriv": "util-linux",
}
"""Programs that a mount takes, and Debian's packages of them."""
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


@contextlib.contextmanager
def slow_mount(
    folder: Path | str, mountpoint: Path | str, latency_s: float = 0.001, bits_per_s: float = 1e9
) -> Iterator[Path]:
    """Mount a folder read-only, as from a NAS behind a slow wire.

    Contents are not cached from one open to the next; names and attributes are, for a second (NFS: three and more).

    Parameters
    ----------
    folder
        What is mounted.
    mountpoint
        An empty folder, or a new one.
    latency_s
        Latency of the wire each way, in seconds.
    bits_per_s
        Rate of the wire each way.

    Yields
    ------
    Path
        The mountpoint's real path.

    Raises
    ------
    ArgumentError
        For a folder that cannot be used.
    StorageError
        Where a program is missing, or the mount fails.
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
    """Forget names, attributes and contents on the mount's side, except of open files; the server keeps its own.

    Raises
    ------
    StorageError
        Where they stay.
    """
    command = ["mount", "-i", "-o", "remount,ro", str(mountpoint)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"caches of {mountpoint} stay: {' '.join(done.stderr.split())}; run as root, on a mount")


def _free(target: Path) -> bool:
    """Return whether it is an empty folder where nothing is mounted, or can become one."""
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
    """Run a private server with new keys; give the port that it listens at."""
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
    """Run a server and all that it starts, from when it is ready to the end of the block; `leave` comes before."""
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
    """Return a process, its session and all their living descendants."""
    living, family = _living(), {pid}
    while found := {p for p, above in living.items() if above & family} - family:
        family |= found
    return family


def _living() -> dict[int, set[int]]:
    """Return parent and session of every process that is not a zombie."""
    living = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent, _, session = stat.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                living[int(stat.parent.name)] = {int(parent), int(session)}
    return living


def figures(folder: Path, mount: Path) -> str:
    """Read the largest files one by one (64 MiB if there are), then the first bytes of the smallest 30.

    Returns
    -------
    str
        The rate in sequence, and the time of an open, in words.
    """
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
            say(f"{folder} is at {mount}: {latency_ms} ms each way, {gbit} Gbit/s; Ctrl-C ends it")
            if measure:
                say(figures(folder.resolve(), mount))
            else:
                signal.pause()
    except KeyboardInterrupt:
        pass
    except ShardkitError as error:
        say(str(error), error=True)
        return 1
    return 0


if __name__ == "__main__":
    from cyclopts import run  # here, because every wire imports this file

    sys.exit(run(main))
