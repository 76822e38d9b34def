"""What a compressed stream says of itself: the markers of the JPEG families, walked from the first to the last.

Nothing is decoded here. Every claim of a stream is checked against the bytes that are there, and a marker counts only
where the syntax allows one: the same two bytes inside a comment or inside coded data are none.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from shardkit.errors import Quarantined

SOI, JP2 = b"\xff\xd8", b"\x00\x00\x00\x0cjP  "
SOC_SIZ = b"\xff\x4f\xff\x51"
REMEDY = "decompress the file first (gdcmconv --raw, dcmdjpeg) and build again"
"""For a stream that is sound and has no decoder here."""

# Marker codes: ITU-T T.81 table B.1, T.87 C.1.1, ISO/IEC 15444-1 table A.2
_SOF3, _SOF55 = 0xC3, 0xF7
_DHT, _DRI, _SOS, _EOI = 0xC4, 0xDD, 0xDA, 0xD9
FRAMES = {*range(0xC0, 0xD0), _SOF55} - {_DHT, 0xC8, 0xCC}
"""Markers of frame headers, which give size and precision."""
ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without a segment."""
_MOST = 65535  # rows or columns of a DICOM image
_CAP, _COD, _SOT, _SOD, _EOC = 0xFF50, 0xFF52, 0xFF90, 0xFF93, b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Huffman:
    """A table of T.81 B.2.4.2: code, and its length in bits, by symbol; length 0 where there is no such code."""

    codes: npt.NDArray[np.uint16]
    lengths: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan; `intervals` are the offsets, first and past the last, of the coded data between restart markers."""

    components: int
    selection: int  # Ss: the predictor of lossless JPEG
    point_transform: int  # Al
    table: int  # destination of the first component's DC table
    start: int
    end: int
    intervals: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG or JPEG-LS stream. `end` is where EOI ends; what follows is not part of it."""

    process: int  # low byte of the SOF marker
    rows: int
    cols: int
    components: int
    precision: int
    restart: int  # MCUs between restart markers, 0 for none
    precision_at: int  # offset of the frame header's precision byte
    end: int
    scans: tuple[Scan, ...] = field(repr=False)
    tables: dict[int, Huffman] = field(repr=False)  # DC and lossless tables by destination

    @property
    def lossless(self) -> bool:
        """Whether the process is lossless JPEG (T.81 H) with Huffman coding."""
        return self.process == _SOF3

    @property
    def ls(self) -> bool:
        """Whether this is JPEG-LS (T.87)."""
        return self.process == _SOF55


@dataclass(frozen=True, slots=True)
class Codestream:
    """A JPEG 2000 codestream, or HTJ2K. `start` is its offset, past any JP2 boxes; `tiles` that of the first SOT."""

    rows: int
    cols: int
    components: int
    precision: int
    signed: bool
    reversible: bool
    high_throughput: bool
    start: int
    tiles: int


class Cut(Quarantined):
    """A stream that ends before its end marker."""

    def __init__(self) -> None:
        super().__init__("decode_error", "the compressed stream has no end: it is cut short")


def damaged(what: str) -> Quarantined:
    """Return the verdict on a stream whose structure is broken."""
    return Quarantined("decode_error", f"the compressed stream is damaged: {what}")


def jpeg(stream: bytes) -> Jpeg:
    """Walk a JPEG or JPEG-LS stream to its end.

    Raises
    ------
    Quarantined
        decode_error.
    """
    if not stream.startswith(SOI):
        raise damaged("it does not begin with SOI")
    at, restart = 2, 0
    frame: tuple[int, int] | None = None  # (process, offset of its segment)
    tables: dict[int, Huffman] = {}
    scans: list[Scan] = []
    while True:
        code, at = _marker(stream, at)
        if code == _EOI:
            break
        if code in ALONE:
            continue
        segment = _segment(stream, at)
        if code in FRAMES:
            if frame is not None:
                raise damaged("it has two frame headers")
            frame = code, at
        elif code == _DHT:
            _read_tables(segment, tables)
        elif code == _DRI and len(segment) >= 4:
            restart = int.from_bytes(segment[2:4], "big")
        at += len(segment)
        if code == _SOS:
            if frame is None:
                raise damaged("a scan comes before the frame header")
            scans.append(_scan(stream, segment, at, frame[0] == _SOF55))
            at = scans[-1].end
    if frame is None or not scans:
        raise damaged("it holds no scan")
    process, where = frame
    header = _segment(stream, where)
    if len(header) < 8:
        raise damaged("its frame header is cut short")
    return Jpeg(
        process=process,
        precision=header[2],
        rows=int.from_bytes(header[3:5], "big"),
        cols=int.from_bytes(header[5:7], "big"),
        components=header[7],
        restart=restart,
        precision_at=where + 2,
        end=at,
        scans=tuple(scans),
        tables=tables,
    )


def _marker(stream: bytes, at: int) -> tuple[int, int]:
    """Return (code, offset behind it) of the marker at `at`; fill bytes FF may precede it (T.81 B.1.1.2)."""
    start = at
    while at < len(stream) and stream[at] == 0xFF:
        at += 1
    if at == len(stream):
        raise Cut
    if at == start or stream[at] == 0:
        raise damaged("no marker where one must be")
    return stream[at], at + 1


def _segment(stream: bytes, at: int) -> bytes:
    """Return a marker segment from its length on, whole."""
    length = int.from_bytes(stream[at : at + 2], "big")
    if length < 2:
        raise damaged("a marker segment has no length")
    if at + length > len(stream):
        raise Cut
    return stream[at : at + length]


def _read_tables(segment: bytes, tables: dict[int, Huffman]) -> None:
    at = 2
    while at + 17 <= len(segment):
        kind, counts = segment[at], segment[at + 1 : at + 17]
        symbols = segment[at + 17 : at + 17 + sum(counts)]
        if len(symbols) != sum(counts):
            raise damaged("a Huffman table is cut short")
        if kind >> 4 == 0:
            tables[kind & 15] = _table(list(counts), symbols)
        at += 17 + len(symbols)


def _table(counts: list[int], symbols: bytes) -> Huffman:
    """Give out codes in order, from the shortest (T.81 C.2)."""
    codes, lengths = np.zeros(256, np.uint16), np.zeros(256, np.uint8)
    code, at = 0, 0
    for length, count in enumerate(counts, 1):
        if code + count > 1 << length:
            raise damaged("a Huffman table has more codes than its lengths allow")
        for symbol in symbols[at : at + count]:
            codes[symbol], lengths[symbol] = code, length
            code += 1
        code, at = code << 1, at + count
    return Huffman(codes, lengths)


def _scan(stream: bytes, segment: bytes, start: int, ls: bool) -> Scan:
    components = segment[2] if len(segment) > 2 else 0
    if len(segment) < 6 + 2 * components or not components:
        raise damaged("a scan header is cut short")
    coded = np.frombuffer(stream, np.uint8, offset=start)
    at = np.flatnonzero(coded[:-1] == 0xFF)
    after = coded[at + 1]
    # In coded data FF is followed by a stuffed zero: a byte of JPEG, a bit of JPEG-LS (T.81 F.1.2.3, T.87 A.1).
    stuffed = after < 0x80 if ls else after == 0
    restarts = np.zeros_like(stuffed) if ls else (after >= 0xD0) & (after <= 0xD7)
    markers = np.flatnonzero(~stuffed & ~restarts & (after != 0xFF))
    if not len(markers):
        raise Cut
    last = int(markers[0])
    end = int(at[last])
    while end and coded[end - 1] == 0xFF:  # fill bytes before the marker
        end -= 1
    cuts = (at[:last][restarts[:last]] + start).tolist()
    return Scan(
        components=components,
        selection=segment[3 + 2 * components],
        point_transform=segment[5 + 2 * components] & 15,
        table=segment[4] >> 4,
        start=start,
        end=start + end,
        intervals=tuple(zip([start, *(cut + 2 for cut in cuts)], [*cuts, start + end], strict=True)),
    )


def codestream(stream: bytes) -> Codestream:
    """Walk the main header of a JPEG 2000 codestream, raw or in JP2 boxes.

    Raises
    ------
    Quarantined
        decode_error.
    """
    start = _boxed(stream) if stream.startswith(JP2) else 0
    if stream[start : start + 4] != SOC_SIZ:
        raise damaged("it does not begin with SOC and SIZ")
    at, found = start + 2, dict[int, bytes]()
    while (code := int.from_bytes(stream[at : at + 2], "big")) != _SOT:
        if code < 0xFF00 or code == _SOD:
            raise damaged("its main header is no chain of markers")
        segment = _segment(stream, at + 2)
        found.setdefault(code, segment)
        at += 2 + len(segment)
    size, coding = found[0xFF51], found.get(_COD, b"")
    if len(size) < 41 or len(coding) < 12 or not size[39] or not size[40]:
        raise damaged("its main header lacks what every one has")
    right, bottom, left, top = (int.from_bytes(size[i : i + 4], "big") for i in (4, 8, 12, 16))
    across, down = size[39], size[40]
    rows, cols = -(-bottom // down) - -(-top // down), -(-right // across) - -(-left // across)
    if not (0 < rows <= _MOST and 0 < cols <= _MOST):
        raise damaged("it declares a size that no DICOM image can have")
    return Codestream(
        rows=rows,
        cols=cols,
        components=int.from_bytes(size[36:38], "big"),
        precision=(size[38] & 0x7F) + 1,
        signed=bool(size[38] >> 7),
        reversible=coding[11] == 1,
        high_throughput=bool(coding[10] & 0x40) or _CAP in found,
        start=start,
        tiles=at,
    )


def _boxed(stream: bytes) -> int:
    """Return the offset of the codestream in a JP2 file (15444-1 I.4)."""
    at = 0
    while at + 8 <= len(stream):
        length, head = int.from_bytes(stream[at : at + 4], "big"), 8
        if length == 1:
            length, head = int.from_bytes(stream[at + 8 : at + 16], "big"), 16
        if stream[at + 4 : at + 8] == b"jp2c":
            return at + head
        if length < head:
            break
        at += length
    raise damaged("its boxes hold no codestream")


def whole(stream: bytes, tiles: int) -> bool:
    """Return whether every tile-part from `tiles` on has the length it declares and EOC follows (15444-1 A.4.2)."""
    at = tiles
    while stream[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(stream[at + 6 : at + 10], "big")
        if length == 0:  # the last tile-part may leave its length open
            return stream.rstrip(b"\0").endswith(_EOC)
        if length < 14:
            return False
        at += length
    return stream[at : at + 2] == _EOC
