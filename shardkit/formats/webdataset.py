"""WebDataset shards: plain tar files of `<key>.<codec extension>` and `<key>.json`, byte-identical for equal input."""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from shardkit.codecs import codec
from shardkit.codecs.base import Codec, CodestreamCodec
from shardkit.codecs.placement import Placement
from shardkit.dataset.bins import Bin
from shardkit.dataset.description import DatasetDescription
from shardkit.dataset.hashes import fingerprint
from shardkit.errors import ArgumentError, IntegrityError, ShardkitError, clean
from shardkit.formats.base import Ints, Named, Row
from shardkit.formats.checks import REMEDY, pixel_problem
from shardkit.storage import Store
from shardkit.storage.spill import Spill

NAME, EXTENSION = "webdataset", "tar"
FACTS = NESTED = True
FOLDER, OBJECT = "shards", re.compile("shards/.+")
SHARD = re.compile(r"shards/(?P<bin>[0-9]{4,6}x[0-9]{4,6})/[0-9]{5,9}\.tar")
_PIECE = 1 << 30  # bytes written at once: by 16 KiB, which is tarfile's own, an image takes a hundred calls
_TOLD = ["height", "width", "bits", "box_top", "box_left", "box_height", "box_width", "min", "max", "p0_5", "p99_5"]
"""Facts that a JSON member and the manifest must agree on."""


@dataclass(frozen=True, slots=True)
class TarMember:
    """One file of a tar.

    Parameters
    ----------
    name : str
        Name in the tar.
    offset : int
        First byte of the content in the tar.
    data : bytes
        The content.
    """

    name: str
    offset: int
    data: bytes

    @property
    def key(self) -> str:
        """The sample's key, as webdataset cuts it."""
        return self.name.partition(".")[0]


class ShardWriter:
    """Writes samples to a tar file in the order given. It is a context manager; the file is whole only after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.TarFile(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT, copybufsize=_PIECE)

    def add(self, key: str, extension: str, image: bytes, facts: bytes, smaller: Sequence[bytes] = ()) -> int:
        """Append a sample, an image and its JSON. See `Writer.add`; a tar has no place for smaller images."""
        if smaller:
            raise ArgumentError("a tar holds smaller images inside their codec: choose htj2k, or Zarr shards")
        offset = self._add(f"{key}.{extension}", image)
        self._add(f"{key}.json", facts)
        return offset

    def copy(self, member: TarMember) -> int:
        """Append a member of another shard as it is, and return the offset of its first byte."""
        return self._add(member.name, member.data)

    def _add(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)  # owner, group and time stay 0: bytes depend on content alone
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        return self._file.tell() - len(data) - (-len(data)) % tarfile.BLOCKSIZE

    def __enter__(self) -> "ShardWriter":
        """Return the writer."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write the end of the tar."""
        self._tar.close()
        self._file.close()


def members(file: BinaryIO, name: str) -> Iterator[TarMember]:
    """Read every member of a shard in order.

    Parameters
    ----------
    file : binary file
        The tar.
    name : str
        The shard, in messages.

    Yields
    ------
    TarMember
        A file in the tar.

    Raises
    ------
    IntegrityError
        The tar is damaged.
    """
    end = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):  # no links, and no holes that memory fills
                    raise IntegrityError(f"{name}: member {info.name[:200]} is no file; the shard is not shardkit's")
                if info.offset_data + info.size > end:
                    raise IntegrityError(f"{name}: cut short inside {info.name[:200]}")
                file.seek(info.offset_data)
                yield TarMember(info.name, info.offset_data, file.read(info.size))
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise IntegrityError(f"{name}: not a readable tar ({error}); fetch or build the shard again") from None


def rewrite(sources: list[Path], targets: list[Path], rows: list[Row], capacity: int) -> list[int]:
    """Copy a shard with only some samples, which are known by their JSON's hash: two may have one key.

    See `ShardFormat.rewrite`.
    """
    (source,), (target,) = sources, targets
    offsets, image = list[int](), None
    with source.open("rb") as file, ShardWriter(target) as writer:
        for member in members(file, source.name):
            if not member.name.endswith(".json"):
                image = member
                continue
            wanted = len(offsets) < len(rows) and rows[len(offsets)]["json_hash"] == fingerprint(member.data)
            if wanted and image is not None and image.key == member.key:
                offsets.append(writer.copy(image))
                writer.copy(member)
    if len(offsets) < len(rows):
        raise IntegrityError(f"the shard of {rows[0]['key']} has lost samples: remove it and run the build again")
    return offsets


def writer(paths: list[Path], capacity: int) -> ShardWriter:
    """Return a writer of one tar. See `ShardFormat.writer`."""
    return ShardWriter(paths[0])


def takes(codec: Codec) -> bool:
    """Return whether the bytes tell the image by themselves, as other readers of the tar need."""
    return not codec.NEEDS_PLACEMENT


def capacity(bin: Bin, shard_bytes: int) -> int:
    """Return 0: a tar has room for any number."""
    return 0


def objects(name: str, levels: int) -> list[str]:
    """Return the one tar, with all levels of its images inside them."""
    return [f"{name}.{EXTENSION}"]


def part(shard: str, level: int) -> str:
    """Return the tar itself."""
    return shard


def whole(name: str) -> tuple[str, int]:
    """Return the tar itself, and level 0."""
    return name, 0


def starts(offsets: Ints, level_bytes: Ints) -> Ints:
    """Return the images' own offsets: every level is a prefix of its image. See `ShardFormat.starts`."""
    return np.broadcast_to(offsets[:, None], level_bytes.shape)


def locate(store: Store, row: Row, level: int) -> tuple[str, int]:
    """Return the tar, and the image's offset in it. See `ShardFormat.locate`."""
    return row["shard"], row["offset"]


def metadata(samples: pa.Table | Spill, description: DatasetDescription) -> list[list[Named]]:
    """Return nothing: a tar needs no objects beside it."""
    return []


def same(name: str, wanted: bytes, found: bytes) -> bool:
    """Compare byte by byte."""
    return wanted == found


# --- verify


def verify(
    name: str, level: int, data: bytes, rows: list[Row], description: DatasetDescription, decode: bool
) -> Iterator[str]:
    """Find problems of a tar. It holds an image and a JSON of every sample, where the manifest says, and nothing else.

    See `ShardFormat.verify`.
    """
    images = {f"{row['key']}.{description.extension}": row for row in rows}
    facts = {f"{row['key']}.json": row for row in rows}
    missing, how = images.keys() | facts.keys(), codec(description.codec)
    # Datasets of before do not claim the transfer syntax: there, five levels of a large image are no damage.
    claimed = description.transfer_syntax is not None
    try:
        for member in members(io.BytesIO(data), name):
            missing.discard(member.name)
            problem: str | None
            if member.name in images:
                problem = _image_problem(member, images[member.name], how, claimed, decode)
            elif member.name in facts:
                problem = _facts_problem(member.data, facts[member.name])
            else:
                problem = "is not in the manifest"
            if problem:
                yield f"{name}: member {clean(member.name[:200])} at byte {member.offset:,} {problem}; {REMEDY}"
    except ShardkitError as error:
        yield str(error)
    for lost in sorted(missing):
        yield f"{name}: member {lost} is missing; {REMEDY}"


def _facts_problem(data: bytes, row: Row) -> str | None:
    """Say whether a JSON member is the one that was written, and says of the image what the manifest says."""
    if fingerprint(data) != row["json_hash"]:
        return "differs from its hash"
    said: Mapping[str, object] = row
    try:
        told = json.loads(data)
        wrong = [name for name in _TOLD if told[name] != said[name]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "is no JSON of a sample"
    return f"has another {wrong[0]} than the manifest" if wrong else None


def _image_problem(member: TarMember, row: Row, how: Codec, claimed: bool, decode: bool) -> str | None:
    if member.offset != row["offset"] or len(member.data) != row["length"]:
        return "is not where the manifest says, or has another length"
    for level, (length, digest) in enumerate(zip(row["level_bytes"], row["level_hash"], strict=True)):
        if fingerprint(member.data[:length]) != digest:
            return f"differs from its hash (level {level})"
    if isinstance(how, CodestreamCodec):
        fault = how.fault(member.data, row["height"], row["width"], row["level_bytes"], claimed)
        if fault:
            return f"is no stream of {how.SYNTAX_NAME}: {fault}"
    try:
        how.check(member.data, Placement.of(row))
    except IntegrityError as error:
        return f"is not the image of the manifest: {error}"
    return pixel_problem(member.data, row, how, 0) if decode else None
