"""torch's distributed checkpoints, read as data: nothing that lies in one is run.

Their table of contents is a pickle, and so is every value in them that is not a tensor; torch reads both with all that
pickle can do. Here the table may name the classes of torch's own tables only, and values are read as weights are.
"""

import io
import json
import pathlib
import pickle
import struct
import warnings
import zipfile
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import filesystem, metadata
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta, TensorStorageMetadata
from torch.distributed.checkpoint.planner import ReadItem

from shardkit.errors import StorageError
from trainer.errors import TrainingError

warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is on one process, on purpose

TABLE, PROGRESS = ".metadata", "progress.json"
_PATHS = {("pathlib", "PosixPath"), ("pathlib._local", "PosixPath")}  # Python 3.13 has its own name for it
_TABLE: Final[dict[str, Any]] = {
    "torch.distributed.checkpoint.metadata": {
        name: getattr(metadata, name)
        for name in (
            "Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata",
            "ChunkStorageMetadata", "TensorProperties", "_MEM_FORMAT_ENCODING",
        )
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo": filesystem._StorageInfo},
    "torch.serialization": {"_get_layout": torch.serialization._get_layout},
    "torch": {"Size": torch.Size} | {n: v for n, v in vars(torch).items() if isinstance(v, torch.dtype)},
}  # fmt: skip


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PATHS:
            return pathlib.PosixPath
        if name in (known := _TABLE.get(module, {})):
            return known[name]
        raise TrainingError(
            f"{self._path} names {module}.{name}, which no checkpoint of weights has and which could run code: it was"
            " not read; do not use this run's folder unless you know who made it"
        )


class Reader(dcp.FileSystemReader):
    """Reads a checkpoint whose table names nothing but the classes of tables."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """See `torch.distributed.checkpoint.StorageReader`.

        Raises
        ------
        TrainingError
            For a table that names anything but its own classes, or a file outside its folder.
        """
        path = Path(self.path) / TABLE
        found = _Unpickler(path.read_bytes(), path).load()
        if not isinstance(found, Metadata):
            raise ValueError(f"{TABLE} is no table of contents")
        for info in found.storage_data.values():
            if Path(info.relative_path).name != info.relative_path:
                raise TrainingError(f"{path} names a file outside its folder, {info.relative_path}: it was not read")
        if found.storage_meta is None:
            found.storage_meta = StorageMeta()
        found.storage_meta.load_id = self.load_id
        return found


class Planner(dcp.DefaultLoadPlanner):
    """Reads values that are not tensors as torch reads weights."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """See `torch.distributed.checkpoint.LoadPlanner`."""
        *outer, name = self.mappings[read_item.dest_index.fqn]
        target: Any = self.original_state_dict
        for key in outer:
            target = target[key]
        target[name] = torch.load(value, weights_only=True)


def load(held: dict[str, Any], path: Path, alone: bool) -> None:
    """Fill nested dictionaries of tensors and plain values from a checkpoint, in place.

    Parameters
    ----------
    held
        What is filled.
    path
        Folder of the checkpoint.
    alone
        Whether the other processes do not take part.
    """
    dcp.load(held, storage_reader=Reader(path), planner=Planner(), no_dist=alone)


def shapes(path: Path) -> dict[str, tuple[int, ...] | None]:
    """Return the names of all that a checkpoint holds, with the shapes of its tensors."""
    found = Reader(path).read_metadata().state_dict_metadata
    return {name: tuple(of.size) if isinstance(of, TensorStorageMetadata) else None for name, of in found.items()}


def progress(path: Path) -> dict[str, Any]:
    """Read what a checkpoint says of its run.

    Raises
    ------
    ValueError
        For a file that is not ours.
    """
    found = json.loads((path / PROGRESS).read_text())
    if not isinstance(found, dict):
        raise ValueError(f"{PROGRESS} is no record of a run")
    return cast(dict[str, Any], found)


def damage(path: Path) -> str:
    """Return what a checkpoint lacks; empty for a whole one.

    All of it is read once, against the checksums of its values. Loading reads it again: which checkpoint a run goes on
    with, and from which step, is decided and told before anything is loaded or written.

    Raises
    ------
    TrainingError
        For one that is more than data.
    StorageError
        For one that this process may not read.
    """
    try:
        progress(path)
    except FileNotFoundError:
        return f"{PROGRESS} is missing"
    except ValueError:
        return f"{PROGRESS} is damaged"
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    try:
        found = Reader(path).read_metadata()
    except FileNotFoundError:
        return f"{TABLE} is missing"
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except TrainingError:
        raise
    except Exception:  # whatever a pickle that was cut off or overwritten ends with
        return f"{TABLE} is damaged"
    ends: dict[str, int] = defaultdict(int)
    for info in found.storage_data.values():
        ends[info.relative_path] = max(ends[info.relative_path], info.offset + info.length)
    for name, end in ends.items():
        if not (path / name).exists():
            return f"{name} is missing"
        if (path / name).stat().st_size < end:
            return f"{name} is cut short"
    for info in found.storage_data.values():
        try:
            sound = _sound(path / info.relative_path, info.offset, info.length)
        except OSError as error:  # of a disk that has lost a sector, too
            return f"{info.relative_path} cannot be read: {error.strerror}"
        if not sound:
            return f"{info.relative_path} is damaged at byte {info.offset:,}"
    return ""


def _sound(file: Path, start: int, length: int) -> bool:
    """Return whether a value is as it was written: torch writes each as an archive whose parts have checksums."""
    with file.open("rb") as opened:
        opened.seek(start)
        data = opened.read(length)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, NotImplementedError, zlib.error, struct.error):
        return False
