"""A slow wire to any TCP service: latency each way, and a rate that all connections share.

Not modelled: packet loss and TCP's slow start.
"""

from __future__ import annotations

import ctypes
import math
import select
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic

from shardkit.errors import ArgumentError

PIECE_S = 2.5e-4  # what leaves in one go takes this long on the wire, so that connections mix finely
AHEAD_S = 5e-4  # the wire is booked this far ahead, so that waking up late leaves no gap on it
CATCH_UP_S = 5e-3  # waking up later than this loses wire time
UNDELIVERED = 4 << 20  # bytes a connection may hold beyond what the wire itself holds


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
        """Put bytes on the wire that have waited since then; `arrive` is called when they have arrived."""
        now = monotonic()
        self.free_at = max(self.free_at, since, now - CATCH_UP_S) + size * self.s_per_byte
        self.flight.append((max(self.free_at, now) + self.latency_s, arrive))

    def turn(self) -> float:
        """Deliver what is due and let senders on the free wire; return the time at which to call again."""
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
        """Wait for a turn on the wire: the source has bytes."""
        if not (self.waiting or self.full or self.ended):
            self.waiting, self.since = True, monotonic()
            self.link.waiting.append(self)

    def take(self) -> bool:
        """Move one piece from the source to the wire; return False when there is none, or too much is held already."""
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
        """Take what has come over the wire, and hand it on."""
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
        """End the target's stream; with both directions ended, close."""
        self.target.shutdown(socket.SHUT_WR)
        self.done.append(self)
        if len(self.done) == 2:
            self.close()
        return 0

    def close(self) -> None:
        """Close both ends."""
        self.source.close()
        self.target.close()


def forward(listener: socket.socket, target: tuple[str, int], latency_s: float, bits_per_s: float) -> None:
    """Forward the connections of a listening socket until standard input ends; asleep whenever nothing is due.

    A connection costs what it costs in TCP: the target hears of it after one latency, the client after two.

    Parameters
    ----------
    listener
        Socket that clients connect to.
    target
        Host and port of the service.
    latency_s, bits_per_s
        Latency and rate, each way.
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

    The wire is a process of its own, which ends with the `with` block, or with this process.

    Parameters
    ----------
    target_host, target_port
        The service.
    latency_s
        Seconds that are added each way.
    bits_per_s
        Rate of each way, which all connections share.

    Attributes
    ----------
    host, port
        Where clients connect.

    Raises
    ------
    ArgumentError
        For numbers that no wire has.
    """

    def __init__(self, target_host: str, target_port: int, latency_s: float = 0.001, bits_per_s: float = 1e9) -> None:
        if not (0 <= latency_s < math.inf and 0 < bits_per_s < math.inf):
            raise ArgumentError(f"a wire of {latency_s} s and {bits_per_s} bit/s is impossible; give positive numbers")
        self.host, self.port = "127.0.0.1", 0
        self._wire = ((target_host, target_port), latency_s, bits_per_s)

    def __enter__(self) -> Proxy:
        """Start the wire."""
        with socket.create_server((self.host, 0), backlog=512) as listener:
            self.port = int(listener.getsockname()[1])
            code = (
                f"import socket, sys; sys.path.insert(0, {str(Path(__file__).resolve().parents[1])!r});"
                " from tools.slow_wire import forward; "
            )
            code += f"forward(socket.socket(fileno={listener.fileno()}), *{self._wire!r})"
            command, files = [sys.executable, "-c", code], [listener.fileno()]
            # a session of its own: Ctrl-C is for the program that uses the wire
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=files, start_new_session=True)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
