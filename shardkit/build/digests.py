"""Digests of source files anew, for a run that ended before it could keep those that converting gave."""

import functools
import hashlib
from dataclasses import dataclass

from shardkit.build import journal
from shardkit.build.scan_rows import entry_of
from shardkit.build.shard_plan import ShardTask
from shardkit.config import Conversion
from shardkit.errors import Quarantined
from shardkit.sources.base import ImageSource
from shardkit.sources.entries import Entry
from shardkit.sources.files import Unread, settled
from shardkit.storage import Store


def hash_shard(spec: Conversion, task: ShardTask, generation: int) -> dict[int, str]:
    """Return the SHA-256 of a finished shard's files by serial. Runs on a worker."""
    table = journal.read(Store(spec.out), generation, task.name, ["serial", "read"])
    read = dict(zip(table["serial"].to_pylist(), table["read"].to_pylist(), strict=True))
    digests = {}
    for file in task.files:
        if read[file["serial"]]:
            ask = functools.partial(_digest, spec.source, entry_of(file))
            if (found := settled(spec.source.files, ask(), ask)).sha256 is not None:  # else it vanished since
                digests[file["serial"]] = found.sha256
    return digests


@dataclass(frozen=True, slots=True)
class _Digest:
    sha256: str | None
    unsure: bool = False


def _digest(source: ImageSource, entry: Entry) -> _Digest:
    try:
        return _Digest(hashlib.sha256(source.read(entry)).hexdigest())
    except Quarantined as verdict:
        return _Digest(None, unsure=isinstance(verdict, Unread))
