"""WebDataset shards: plain tar files of `<key>.<codec extension>` and `<key>.json`, byte-identical for equal input."""

import io
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from shardkit.errors import IntegrityError

EXTENSION = "tar"


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar: its name, where its bytes lie, and the bytes."""

    name: str
    offset: int
    data: bytes

    @property
    def key(self) -> str:
        """The sample's key, as webdataset cuts it."""
        return self.name.partition(".")[0]


class ShardWriter:
    """Writes samples to a tar file in the order given. Use as a context manager; the file is whole only after it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def add(self, key: str, extension: str, image: bytes, facts: bytes) -> int:
        """Append a sample, `facts` being its JSON member; returns the offset of the image's first byte."""
        offset = self._add(f"{key}.{extension}", image)
        self._add(f"{key}.json", facts)
        return offset

    def copy(self, member: Member) -> int:
        """Append a member of another shard as it is; returns the offset of its first byte."""
        return self._add(member.name, member.data)

    def _add(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)  # owner, group and time stay 0: bytes depend on content alone
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))
        return self._file.tell() - len(data) - (-len(data)) % tarfile.BLOCKSIZE

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._tar.close()
        self._file.close()


def members(file: BinaryIO, name: str) -> Iterator[Member]:
    """Every member of a shard in order. Raises IntegrityError, naming the shard, when the tar is damaged."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                data = tar.extractfile(info)
                if data is None:
                    raise IntegrityError(f"{name}: member {info.name} is no file; the shard is not shardkit's")
                content = data.read()
                if len(content) != info.size:
                    raise IntegrityError(f"{name}: cut short inside {info.name}")
                yield Member(info.name, info.offset_data, content)
    except tarfile.TarError as error:
        raise IntegrityError(f"{name}: not a readable tar ({error}); fetch or build the shard again") from None


def rewrite(source: Path, target: Path, leave_out: Callable[[Member], bool]) -> dict[str, int]:
    """Copy a shard without the samples whose image `leave_out` picks; returns the kept images' offsets by key."""
    offsets: dict[str, int] = {}
    keep = True
    with source.open("rb") as file, ShardWriter(target) as writer:
        for member in members(file, source.name):
            if not member.name.endswith(".json"):  # the image comes first and decides for its JSON
                keep = not leave_out(member)
            if keep:
                offsets.setdefault(member.key, writer.copy(member))
    return offsets
