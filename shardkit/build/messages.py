"""How a child process hands over what it made, which is mostly the bytes of an image: few copies, few allocations.

`Connection.send` pickles such bytes into one copy after another, and `Connection.recv` allocates a message's whole
length for each of the many pieces that it comes in.
"""

import os
import pickle
import struct
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

_LENGTH = struct.Struct("<Q")
_VECTOR = 512  # pieces that the system takes at once


class _Pieces(list[bytes]):
    """A file that keeps what is written to it."""

    def write(self, piece: bytes) -> None:
        self.append(bytes(piece))  # the same object, if it is one


def pickled(message: object) -> list[bytes]:
    """Return a message in pieces; long bytes in it are not copied."""
    pieces = _Pieces()
    ForkingPickler(pieces, pickle.HIGHEST_PROTOCOL).dump(message)
    return pieces


def send(pipe: "Connection[Any, Any]", pieces: Sequence[bytes]) -> None:
    """Send a message that `pickled` returned."""
    left = [memoryview(piece) for piece in (_LENGTH.pack(sum(map(len, pieces))), *pieces)]
    while left:
        sent = os.writev(pipe.fileno(), left[:_VECTOR])
        while left and sent >= len(left[0]):
            sent -= len(left.pop(0))
        if sent:
            left[0] = left[0][sent:]


class Receiver:
    """Takes messages from a pipe into one buffer."""

    def __init__(self, pipe: "Connection[Any, Any]") -> None:
        self._pipe, self._buffer = pipe, bytearray()

    def next(self) -> Any:
        """Return the next message.

        Raises
        ------
        EOFError, OSError
            The other side is gone before its end.
        """
        (length,) = _LENGTH.unpack(self._filled(memoryview(bytearray(_LENGTH.size))))
        if len(self._buffer) < length:
            self._buffer = bytearray(length)
        with memoryview(self._buffer) as whole, whole[:length] as message:
            return pickle.loads(self._filled(message))

    def _filled(self, message: memoryview) -> memoryview:
        at = 0
        while at < len(message):
            with message[at:] as rest:
                got = os.readv(self._pipe.fileno(), [rest])
            if not got:
                raise EOFError
            at += got
        return message
