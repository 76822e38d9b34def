"""Which archive a file is, by the end of its name and by its bytes, and the way to open it."""

from dataclasses import replace

from shardkit.sources.archives import gzips, tars, zips
from shardkit.sources.archives.index import Index, KeptIndex
from shardkit.sources.archives.members import NAMED, Archive, Unlisted
from shardkit.sources.archives.readers import Reader, Seekable

_TAR_START = 512


def opened(name: bytes, reader: Reader, kept: KeptIndex | None = None) -> Archive | None:
    """Return an archive with its members; None for a file that is none.

    Parameters
    ----------
    name : bytes
        Of the file.
    reader : Reader
        Its bytes.
    kept : KeptIndex, optional
        The index that an earlier pass over a tar has left, or where to leave it.

    Raises
    ------
    Unlisted
        No member of it can be named.
    Quarantined
        It cannot be read, maybe because its store is away.
    """
    found = NAMED.search(name)
    if found is None:
        return None
    if found.group(1).lower() == b"zip":
        return _zip(reader)
    start = reader.at(0, min(_TAR_START, reader.size))
    if start.startswith(gzips.START):
        return _tar_gz(reader, kept)
    return _tar(start, reader, kept)


def _zip(reader: Reader) -> Archive | None:
    try:
        return zips.Zip(reader)
    except Unlisted:
        if reader.at(0, min(_TAR_START, reader.size)).startswith(zips.START):
            raise
        return None  # some other file that ends like one


def _tar(start: bytes, reader: Reader, kept: KeptIndex | None) -> Archive | None:
    if not tars.is_header(start):
        return None
    index = None if kept is None else kept.load()
    if index is None:
        members, rest = tars.walk(_Whole(reader))
        index = Index(members, rest, reader.size)
        if kept is not None:
            kept.save(index)
    return tars.Tar(reader, index.members, index.rest)


def _tar_gz(reader: Reader, kept: KeptIndex | None) -> Archive | None:
    index = None if kept is None else kept.load()
    if index is None:
        start = gzips.GzipStream(reader)
        if not tars.is_header(start.at(0, _TAR_START)):
            if start.size >= _TAR_START:
                return None  # one file, compressed
            raise Unlisted(start.trouble or "damaged")
        index = _through(reader, points=kept is not None)
        if kept is not None:
            kept.save(index)
    return tars.Tar(gzips.GzipReader(reader, index.size, index.points), index.members, index.rest)


def _through(reader: Reader, points: bool) -> Index:
    """Unpack a compressed tar once, from end to end."""
    stream = gzips.GzipStream(reader)
    members, rest = tars.walk(stream)
    if not stream.ends_well():
        rest = stream.trouble or "damaged"
        if stream.trouble == "damaged":  # where the error lies nobody knows, so no member is trusted
            members = {name: replace(one, kind="damaged") for name, one in members.items()}
    made = b""
    if points and stream.trouble is None:
        made = gzips.GzipReader(reader, stream.size).points()
    return Index(members, rest, stream.size, made)


class _Whole:
    """A tar that is not compressed, as `tars.Forward`."""

    def __init__(self, reader: Reader) -> None:
        self._size, self._file = reader.size, Seekable(reader)

    def at(self, start: int, length: int) -> bytes:
        """Return bytes, as `tars.Forward.at`."""
        self._file.seek(start)
        return self._file.read(length)

    def reaches(self, end: int) -> bool:
        """Return whether so many bytes are there."""
        return end <= self._size
