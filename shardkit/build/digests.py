"""Digests of source files anew, for a run that ended before it could keep those that converting gave."""

import functools
import hashlib
from dataclasses import dataclass

from shardkit.build import journal
from shardkit.build.shard_plan import ShardTask
from shardkit.config import Conversion
from shardkit.errors import Quarantined
from shardkit.sources.files import FileTree, Unread, settled
from shardkit.storage import Store


def hash_shard(spec: Conversion, task: ShardTask, generation: int) -> dict[int, str]:
    """Return the SHA-256 of a finished shard's files by serial. Runs on a worker."""
    table = journal.read(Store(spec.out), generation, task.name, ["serial", "read"])
    read = dict(zip(table["serial"].to_pylist(), table["read"].to_pylist(), strict=True))
    digests = {}
    for file in task.files:
        if read[file["serial"]]:
            ask = functools.partial(_digest, spec.source.files, file["path"])
            if (found := settled(spec.source.files, ask(), ask)).sha256 is not None:  # else it vanished since
                digests[file["serial"]] = found.sha256
    return digests


@dataclass(frozen=True, slots=True)
class _Digest:
    sha256: str | None
    unsure: bool = False


def _digest(files: FileTree, path: bytes) -> _Digest:
    try:
        return _Digest(hashlib.sha256(files.read(path)).hexdigest())
    except Quarantined as verdict:
        return _Digest(None, unsure=isinstance(verdict, Unread))
