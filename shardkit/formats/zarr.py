"""Zarr v3 shards: one array of a bin's images each, `<bin>/pixels`, and its halves `pixels_1`, `pixels_2` on request.

An object of the sharding codec is the images one after another, each compressed, and at the end an index: (offset,
bytes) of every slot, all ones where there is none, and the index's CRC-32C. Images fill a shard's slots from the
first on and leave no gap, so a level's offsets follow from its lengths in the manifest.

Nothing here needs the zarr package: the objects are written and read as the specification has them.
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from google_crc32c import value as crc32c

from shardkit.codecs import blosc, codec
from shardkit.codecs.base import Codec
from shardkit.dataset.bins import Bin
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import IntegrityError, ShardkitError
from shardkit.formats.base import Ints, Row
from shardkit.formats.checks import REMEDY, pixel_problem
from shardkit.formats.zarr_arrays import MOST_IMAGES, array_name
from shardkit.formats.zarr_arrays import capacity as capacity
from shardkit.formats.zarr_arrays import metadata as metadata
from shardkit.formats.zarr_arrays import same as same
from shardkit.storage import Store

NAME = "zarr"
FACTS = NESTED = False
FOLDER, OBJECT = "", re.compile(r"[0-9]+x[0-9]+/pixels(?:_[0-9]+)?/c/[0-9]+/0/0")
SHARD = re.compile(r"(?P<bin>[0-9]{4,6}x[0-9]{4,6})/pixels/c/(?:0|[1-9][0-9]{0,8})/0/0")
_ABSENT = (1 << 64) - 1
_CRC = 4  # bytes
_METADATA = 1 << 20  # bytes of an array's


class ShardWriter:
    """Writes images to a shard's objects, one a level, in the order given. The files are whole only after it."""

    def __init__(self, paths: list[Path], capacity: int) -> None:
        self._indices = [np.full((capacity, 2), _ABSENT, "<u8") for _ in paths]
        self._count = 0
        with ExitStack() as stack:
            self._files = [stack.enter_context(path.open("wb")) for path in paths]
            self._open = stack.pop_all()

    def add(self, key: str, extension: str, image: bytes, facts: bytes, smaller: Sequence[bytes] = ()) -> int:
        """Append an image and its smaller ones. See `Writer.add`.

        Key, extension and facts are a tar's: here they stand in arrays of their own, written at the end.
        """
        offset = self._files[0].tell()
        for file, index, data in zip(self._files, self._indices, (image, *smaller), strict=True):
            index[self._count] = file.tell(), len(data)
            file.write(data)
        self._count += 1
        return offset

    def __enter__(self) -> "ShardWriter":
        """Return the writer."""
        return self

    def __exit__(self, kind: object, *error: object) -> None:
        """Write the indices, unless an error ends the shard."""
        with self._open:
            if kind is None:
                for file, index in zip(self._files, self._indices, strict=True):
                    file.write(index.tobytes() + crc32c(index.tobytes()).to_bytes(_CRC, "little"))


def writer(paths: list[Path], capacity: int) -> ShardWriter:
    """Return a writer of a file for each level. See `ShardFormat.writer`."""
    return ShardWriter(paths, capacity)


def rewrite(sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[int]:
    """Copy a shard with only some images, which are known by their hash: of equal ones any will do.

    See `ShardFormat.rewrite`.
    """
    with ShardWriter(targets[:1], capacity) as whole:
        offsets = [whole.add("", "", chunk, b"") for chunk in _picked(sources[0], rows, 0, capacity)]
    for level in range(1, len(sources)):
        with ShardWriter([targets[level]], capacity) as half:
            for chunk in _picked(sources[level], rows, level, capacity):
                half.add("", "", chunk, b"")
    return offsets


def _picked(source: Path, rows: list[Row], level: int, capacity: int) -> Iterator[bytes]:
    data, found = source.read_bytes(), 0
    for start, length in read_index(data[-index_bytes(capacity) :], capacity, source.name):
        if found < len(rows) and start >= 0:
            chunk = data[start : start + length]
            if fingerprint(chunk) == rows[found]["level_hash"][level]:
                found += 1
                yield chunk
    if found < len(rows):
        raise IntegrityError(f"the shard of {rows[0]['key']} has lost images: remove it and run the build again")


# --- names


def takes(codec: Codec) -> bool:
    """Return whether a codec is Blosc, which the metadata of the arrays of images name."""
    return codec.NAME == blosc.NAME


def objects(name: str, levels: int) -> list[str]:
    """Return the names of a planned shard's objects, one a level. See `ShardFormat.objects`."""
    _, bin, number = name.split("/")
    return [f"{bin}/{array_name(level)}/c/{int(number)}/0/0" for level in range(levels + 1)]


def part(shard: str, level: int) -> str:
    """Return the object that holds a level, from the one that the manifest names."""
    return shard.replace("/pixels/", f"/{array_name(level)}/", 1)


def whole(name: str) -> tuple[str, int]:
    """Return the object that the manifest names, and the level, of an object."""
    bin, array, rest = name.split("/", 2)
    return f"{bin}/pixels/{rest}", int(array.partition("_")[2] or 0)


def starts(offsets: Ints, level_bytes: Ints) -> Ints:
    """Return where levels begin: in each object images follow one another. See `ShardFormat.starts`."""
    return np.cumsum(level_bytes, 0) - level_bytes


def locate(store: Store, row: Row, level: int) -> tuple[str, int]:
    """Return where a level of a sample lies; below the whole image, through the indices. See `ShardFormat.locate`."""
    shard = row["shard"]
    if level == 0:
        return shard, row["offset"]
    slot = np.flatnonzero(_stored_index(store, shard)[:, 0] == row["offset"])
    start = int(_stored_index(store, part(shard, level))[slot[0], 0]) if len(slot) else -1
    if start < 0:
        raise IntegrityError(f"{store.url}/{part(shard, level)} does not hold the image {row['key']}: run verify")
    return part(shard, level), start


# --- index


def _stored_index(store: Store, name: str) -> Ints:
    array = name.partition("/c/")[0]
    try:
        count = int(
            json.loads(store.get(f"{array}/zarr.json", most=_METADATA))["chunk_grid"]["configuration"]["chunk_shape"][0]
        )
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        count = 0
    if not 0 < count <= MOST_IMAGES:
        raise IntegrityError(f"{store.url}/{array}/zarr.json is damaged: run verify")
    size, end = index_bytes(count), store.size(name)
    return read_index(store.get_range(name, max(0, end - size), min(size, end)), count, f"{store.url}/{name}")


def index_bytes(capacity: int) -> int:
    """Return the length of a shard's index."""
    return 16 * capacity + _CRC


def read_index(tail: bytes, capacity: int, name: str) -> Ints:
    """Read the index at the end of a shard's object.

    Parameters
    ----------
    tail : bytes
        The object's last `index_bytes(capacity)` bytes.
    capacity : int
        Images that the shard has room for.
    name : str
        The object, in messages.

    Returns
    -------
    numpy.ndarray
        Offset and bytes of every image, -1 where there is none, of shape (capacity, 2), int64.

    Raises
    ------
    IntegrityError
        The index is cut short, or differs from its checksum.
    """
    if len(tail) != index_bytes(capacity):
        raise IntegrityError(f"{name}: cut short, its index is missing")
    if crc32c(tail[:-_CRC]).to_bytes(_CRC, "little") != tail[-_CRC:]:
        raise IntegrityError(f"{name}: its index differs from its checksum; fetch or build the shard again")
    return np.frombuffer(tail[:-_CRC], "<u8").reshape(capacity, 2).astype(np.int64)


# --- verify


def verify(
    name: str, level: int, data: bytes, rows: list[Row], description: DatasetDescription, decode: bool
) -> Iterator[str]:
    """Find problems of an object, which holds a level of its shard's images without gaps, then the index.

    See `ShardFormat.verify`.
    """
    bin, how = Bin(rows[0]["bin_height"], rows[0]["bin_width"]), codec(description.codec)
    room = capacity(bin, description.shard_bytes)
    lengths = np.array([row["level_bytes"][level] for row in rows], np.int64)
    starts = np.cumsum(lengths) - lengths
    try:
        index = read_index(data[-index_bytes(room) :], room, name)
    except ShardkitError as error:
        yield str(error)
        return
    wanted = np.full((room, 2), -1, np.int64)
    wanted[: len(rows)] = np.stack([starts, lengths], 1)
    if not np.array_equal(index, wanted) or len(data) != int(lengths.sum()) + index_bytes(room):
        yield f"{name}: its index places images elsewhere than the manifest says; {REMEDY}"
        return
    for row, start, length in zip(rows, starts.tolist(), lengths.tolist(), strict=True):
        chunk = data[start : start + length]
        problem = None
        if level == 0 and row["offset"] != start:
            problem = "is not where the manifest says"
        elif fingerprint(chunk) != row["level_hash"][level]:
            problem = f"differs from its hash (level {level})"
        elif decode:
            problem = pixel_problem(chunk, row, how, level)
        if problem:
            yield f"{name}: image {row['key']} at byte {start:,} {problem}; {REMEDY}"
