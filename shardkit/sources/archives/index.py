"""The index of a tar, kept in a build's private folder: its children, and the next run, need no pass over it."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypedDict

import pyarrow as pa

from shardkit.sources.archives.members import Member
from shardkit.sources.entries import Kind
from shardkit.storage import parquet, private, translate_errors


@dataclass(frozen=True, slots=True)
class Index:
    """What one pass over a tar finds.

    Attributes
    ----------
    members : dict of bytes -> Member
        By name.
    rest : Kind or None
        Why more cannot be listed.
    size : int
        Bytes of the tar, unpacked.
    points : bytes
        Seek points of a compressed one, see `gzips`.
    """

    members: dict[bytes, Member]
    rest: Kind | None
    size: int
    points: bytes = field(default=b"", repr=False)


class _Row(TypedDict):
    name: Annotated[bytes, pa.binary()]
    size: Annotated[int, pa.int64()]
    kind: Annotated[str, pa.string()]
    start: Annotated[int, pa.int64()]


_SCHEMA = parquet.schema(_Row)
_FACTS = b"index"


@dataclass(frozen=True)
class KeptIndex:
    """Where the index of one archive is kept.

    Parameters
    ----------
    folder : Path
        A private folder: member names and seek points are of patients.
    path : bytes
        The archive in the export.
    identity : str
        Changes when the archive does: an index of before is not taken.
    saves : bool
        Whether it may be written; children only read.
    """

    folder: Path
    path: bytes = field(repr=False)
    identity: str
    saves: bool = False

    def _file(self, suffix: str) -> Path:
        return self.folder / (hashlib.blake2b(self.path, digest_size=16).hexdigest() + suffix)

    def load(self) -> Index | None:
        """Return the index; None where there is none of the archive as it is now."""
        try:
            table = parquet.read(self._file(".parquet"))
            facts = json.loads(table.schema.metadata[_FACTS])
            if facts["identity"] != self.identity:
                return None
            points = self._file(".points").read_bytes() if facts["points"] else b""
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
            return None
        columns = (table[name].to_pylist() for name in _SCHEMA.names)
        members = {row[0]: Member(*row) for row in zip(*columns, strict=True)}
        return Index(members, facts["rest"], facts["size"], points)

    def save(self, index: Index) -> None:
        """Write the index, whole or not at all.

        Raises
        ------
        StorageError
            The folder cannot be written.
        """
        if self.saves:
            with translate_errors(str(self.folder), writing=True):
                self._write(index)

    def _write(self, index: Index) -> None:
        private.folder(self.folder)
        if index.points:
            private.write(self._file(".points"), index.points)
        facts = {"identity": self.identity, "rest": index.rest, "size": index.size, "points": bool(index.points)}
        found = index.members.values()
        columns = [[getattr(member, name) for member in found] for name in _SCHEMA.names]
        schema = _SCHEMA.with_metadata({_FACTS: json.dumps(facts).encode()})
        parquet.write(pa.table(columns, schema=schema), self._file(".parquet"))
