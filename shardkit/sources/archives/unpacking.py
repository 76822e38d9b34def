"""Compressed members: unpacked as far as they are read, never further than their size, and checked at their end."""

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable, Iterator

from shardkit.errors import Quarantined
from shardkit.sources.archives.members import damaged
from shardkit.sources.seeking import Opened

STORED, DEFLATED, BZIP2, LZMA = 0, 8, 12, 14
METHODS = (STORED, DEFLATED, BZIP2, LZMA)
_STEP = 1 << 20  # bytes unpacked at once
_LZMA_MEMORY = 1 << 28
_BROKEN = (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError, struct.error)  # bz2 raises OSError

Source = Callable[[], bytes]
"""Gives the next packed bytes; none at their end."""


def unpacked(method: int, packed: Source, size: int, crc: int) -> Iterator[bytes]:
    """Yield a member's bytes in pieces.

    Parameters
    ----------
    method : int
        One of `METHODS`, as zip numbers them.
    packed : callable
        Gives the packed bytes.
    size, crc : int
        What its archive says of the member.

    Raises
    ------
    Quarantined
        archive_damaged: the bytes are not those that were packed.
    """
    found, digest = 0, 0
    pieces = _pieces(method, packed, size)
    while True:
        try:
            piece = next(pieces, b"")
        except _BROKEN:
            raise damaged("its packed bytes are damaged") from None
        if not piece:
            break
        found, digest = found + len(piece), zlib.crc32(piece, digest)
        if found > size:
            raise damaged("it unpacks to more bytes than its archive says")
        yield piece
    if found != size:
        raise damaged("it unpacks to fewer bytes than its archive says")
    if digest != crc:
        raise damaged("its checksum is wrong")


def _pieces(method: int, packed: Source, size: int) -> Iterator[bytes]:
    if method == STORED:
        while piece := packed():
            yield piece
    elif method == DEFLATED:
        yield from _inflated(packed)
    else:
        yield from _decompressed(method, packed, size)


def _inflated(packed: Source) -> Iterator[bytes]:
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    while not decoder.eof:
        waiting = decoder.unconsumed_tail or packed()
        piece = decoder.decompress(waiting, _STEP) if waiting else decoder.flush()
        if piece:
            yield piece
        if not waiting:
            return


def _decompressed(method: int, packed: Source, size: int) -> Iterator[bytes]:
    if method == BZIP2:
        decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor = bz2.BZ2Decompressor()
        waiting = packed()
    else:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY)
        waiting = _alone(packed(), size)
    while not decoder.eof:
        if decoder.needs_input and not waiting:
            return
        piece = decoder.decompress(waiting, _STEP)
        waiting = packed() if decoder.needs_input and not decoder.eof else b""
        if piece:
            yield piece


def _alone(start: bytes, size: int) -> bytes:
    """Return LZMA data as files of their own begin: properties, the size, the stream."""
    (length,) = struct.unpack_from("<H", start, 2)
    return start[4 : 4 + length] + struct.pack("<Q", size) + start[4 + length :]


class Unpacked(Opened):
    """A compressed member as a file to seek in: what was unpacked stays, the rest is unpacked when it is asked for."""

    def __init__(self, pieces: Iterator[bytes], size: int) -> None:
        super().__init__(size)
        self._pieces, self._data = pieces, bytearray()
        self._failed: Quarantined | None = None

    def part(self, start: int, end: int) -> bytes:
        """Return bytes, as `Opened.part`."""
        if self._failed is not None:
            raise self._failed
        try:
            while len(self._data) < end and (piece := next(self._pieces, b"")):
                self._data += piece
            if end == self._size:
                next(self._pieces, b"")  # compares the checksum
        except Quarantined as verdict:
            self._failed = verdict
            raise
        return bytes(self._data[start:end])
