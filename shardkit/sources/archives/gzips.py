"""Gzip: read once from end to end, to list a tar and to check its checksum; then from seek points.

`indexed_gzip` keeps such points: where a block of the compressed data begins, and the 32 KiB before it, which is what
unpacking from there on needs. Python's own `gzip` unpacks all that lies before a member each time it is read.
"""

import threading
import zlib
from io import BytesIO
from typing import Any

import indexed_gzip

from shardkit.errors import Quarantined
from shardkit.sources.archives import limits
from shardkit.sources.archives.members import damaged
from shardkit.sources.archives.readers import BLOCK, Reader, Seekable
from shardkit.sources.entries import Kind

START = b"\x1f\x8b"
_SPACING, _POINTS = 1 << 20, 1000  # bytes between seek points at least, and how many there are at most, about
_STEP = 1 << 20


class GzipStream:
    """Unpacked bytes of a gzip file, as `tars.Forward`.

    Attributes
    ----------
    size : int
        Bytes unpacked so far.
    trouble : Kind or None
        Why there are no more: "damaged" where bytes are wrong, and nobody can tell since when; "limit" for a bomb.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader, self._packed = reader, 0
        self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self._waiting, self._piece, self._whole = b"", b"", False
        self.size = 0
        self.trouble: Kind | None = None

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `tars.Forward.at`."""
        parts: list[bytes] = []
        while length and self._forward(start):
            offset = len(self._piece) - (self.size - start)
            part = self._piece[offset : offset + length]
            parts.append(part)
            start, length = start + len(part), length - len(part)
        return b"".join(parts)

    def reaches(self, end: int) -> bool:
        """Return whether there are so many bytes."""
        return end == 0 or self._forward(end - 1)

    def ends_well(self) -> bool:
        """Unpack all that is left, and return whether the file is whole and its checksums are right."""
        while self._more():
            pass
        return self._whole

    def _forward(self, to: int) -> bool:
        """Unpack until the byte at `to` is in the piece at hand."""
        while self.size <= to:
            if not self._more():
                return False
        return True

    def _more(self) -> bool:
        """Unpack another piece; whether there was one."""
        while self.trouble is None and not self._whole:
            if self._decoder.eof and not self._next_file():
                return False
            fetched = bool(self._waiting) or self._fetch()
            try:
                piece = self._decoder.decompress(self._waiting, _STEP)
            except zlib.error:
                self.trouble = "damaged"
                return False
            if not (piece or fetched or self._decoder.eof):  # cut short
                return False
            self._waiting = self._decoder.unconsumed_tail or self._decoder.unused_data
            if piece:
                self._piece, self.size = piece, self.size + len(piece)
                if limits.expands(self.size, self._packed, limits.ALL_FREE):
                    self.trouble = "limit"
                return True
        return False

    def _next_file(self) -> bool:
        """Begin the next of the files that one gzip file may consist of; what else follows is padding."""
        while len(self._waiting) < len(START) and self._fetch():
            pass
        self._whole = not self._waiting.startswith(START)
        if not self._whole:
            self._decoder = zlib.decompressobj(16 + zlib.MAX_WBITS)
        return not self._whole

    def _fetch(self) -> bool:
        length = min(BLOCK, self._reader.size - self._packed)
        self._waiting += self._reader.at(self._packed, length)
        self._packed += length
        return length > 0


class _Noting(Seekable):
    """Packed bytes as a file that remembers why it could not be read."""

    failed: Quarantined | None = None

    def read(self, count: int | None = -1, /) -> bytes:
        try:
            return super().read(count)
        except Quarantined as verdict:
            self.failed = verdict
            raise


class GzipReader:
    """Unpacked bytes of a gzip file by their place, as `Reader`.

    Parameters
    ----------
    reader : Reader
        The packed bytes.
    size : int
        How many they unpack to.
    points : bytes, optional
        What `points` returned for the same bytes; without, points are made as far as the bytes are read.
    """

    def __init__(self, reader: Reader, size: int, points: bytes = b"") -> None:
        self.size, self._packed, self._lock = size, _Noting(reader), threading.Lock()
        self._file: Any = indexed_gzip._IndexedGzipFile(
            fileobj=self._packed, spacing=max(_SPACING, size // _POINTS), readbuf_size=BLOCK
        )
        if points:
            self._file.import_index(fileobj=BytesIO(points))

    @property
    def held(self) -> int:
        """Bytes of memory that the seek points take, about."""
        return (1 << 15) * min(_POINTS, self.size // _SPACING + 1)

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `Reader.at`."""
        with self._lock:
            return self._at(start, length)

    def _at(self, start: int, length: int) -> bytes:
        data, self._packed.failed = b"", None
        try:
            while len(data) < length and (part := self._file.pread(length - len(data), start + len(data))):
                data += part
        except MemoryError:
            raise
        except Exception:
            if self._packed.failed is not None:  # which the library may have replaced by an error of its own
                raise self._packed.failed from None
            raise damaged("its archive cannot be unpacked so far") from None
        if len(data) < length:
            raise damaged("its archive ends before it")
        return data

    def points(self) -> bytes:
        """Make all seek points, and return them for another process."""
        self._file.build_full_index()
        kept = BytesIO()
        self._file.export_index(fileobj=kept)
        return kept.getvalue()
